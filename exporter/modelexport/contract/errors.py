"""Every way in which modelexport can fail that a user can act on: one class each.

Each class has a stable ``code`` (for machines), an ``exit_status`` (for shells) and builds a message that says
what happened, why, and what to do. Both command lines print that message and exit with that status;
``--verbose`` adds the traceback. Anything that is not one of these is a bug in modelexport.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """Stable names of the failures; never renamed, only added to."""

    USAGE = "usage"
    OUTPUT_EXISTS = "output_exists"
    OUTPUT_UNWRITABLE = "output_unwritable"
    SOURCE_NOT_FOUND = "source_not_found"
    CONFIG_MISSING = "config_missing"
    CONFIG_INVALID = "config_invalid"
    UNSUPPORTED_ARCHITECTURE = "unsupported_architecture"
    UNSUPPORTED_LIBRARY = "unsupported_library"
    TASK_UNKNOWN = "task_unknown"
    CUSTOM_CODE = "custom_code"
    CHECKPOINT_INCOMPLETE = "checkpoint_incomplete"
    CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
    CHECKPOINT_MISMATCH = "checkpoint_mismatch"
    CHECKPOINT_TOO_NEW = "checkpoint_too_new"
    CHECKPOINT_QUANTIZED = "checkpoint_quantized"
    TOKENIZER_UNREADABLE = "tokenizer_unreadable"
    ENGINE_MISSING = "engine_missing"
    EXPORT_FAILED = "export_failed"
    TOO_LARGE = "too_large"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PARITY_FAILED = "parity_failed"
    OPTIMUM_LOAD_FAILED = "optimum_load_failed"
    FOLDER_INVALID = "folder_invalid"
    NO_TAGS = "no_tags"
    ENVIRONMENT_FAILED = "environment_failed"
    EXPORTER_CRASHED = "exporter_crashed"
    REPO_NOT_FOUND = "repo_not_found"
    REVISION_NOT_FOUND = "revision_not_found"
    REPO_EMPTY = "repo_empty"
    GATED = "gated"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    REPO_DISABLED = "repo_disabled"
    PRS_DISABLED = "prs_disabled"
    OPTED_OUT = "opted_out"
    OPTIONS_INVALID = "options_invalid"
    DOWNLOAD_CORRUPT = "download_corrupt"
    UPLOAD_CORRUPT = "upload_corrupt"
    RATE_LIMITED = "rate_limited"
    HUB_UNAVAILABLE = "hub_unavailable"


class ModelExportError(Exception):
    """A failure that a user can act on.

    Attributes:
        code: stable name, see :class:`ErrorCode`.
        exit_status: what a command line exits with.
        message: one or a few sentences: what happened, why, what to do.
    """

    code: ClassVar[ErrorCode]
    exit_status: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- the call is wrong (2-9) -----------------------------------------------------------------------------------------


class UsageError(ModelExportError):
    """The command line or a settings file makes no sense as given."""

    code = ErrorCode.USAGE
    exit_status = 2


class OutputExistsError(ModelExportError):
    """The output folder exists already, and nobody asked to replace it."""

    code = ErrorCode.OUTPUT_EXISTS
    exit_status = 3


class OutputUnwritableError(ModelExportError):
    """The output folder cannot be made where it was asked for."""

    code = ErrorCode.OUTPUT_UNWRITABLE
    exit_status = 8


class SourceNotFoundError(ModelExportError):
    """The source is neither a folder nor the name of a repo."""

    code = ErrorCode.SOURCE_NOT_FOUND
    exit_status = 4


class TaskUnknownError(ModelExportError):
    """The task does not exist, or could not be found from the repo."""

    code = ErrorCode.TASK_UNKNOWN
    exit_status = 5


class OptionsInvalidError(ModelExportError):
    """The repo's own options (model card, ``.modelexport.yaml``) do not follow the schema."""

    code = ErrorCode.OPTIONS_INVALID
    exit_status = 6


class EngineMissingError(ModelExportError):
    """``modelexport`` was installed without its engine (torch, Optimum, ONNX Runtime)."""

    code = ErrorCode.ENGINE_MISSING
    exit_status = 7


# --- the model cannot be exported (10-29) ----------------------------------------------------------------------------


class ConfigMissingError(ModelExportError):
    """There is no ``config.json``, so nothing says what the weights mean."""

    code = ErrorCode.CONFIG_MISSING
    exit_status = 10


class ConfigInvalidError(ModelExportError):
    """``config.json`` is no JSON, or describes a model that cannot be built."""

    code = ErrorCode.CONFIG_INVALID
    exit_status = 11


class UnsupportedArchitectureError(ModelExportError):
    """Optimum has no ONNX export for the architecture, or not for the task."""

    code = ErrorCode.UNSUPPORTED_ARCHITECTURE
    exit_status = 12


class UnsupportedLibraryError(ModelExportError):
    """The model belongs to a library other than transformers (diffusers, timm, ...)."""

    code = ErrorCode.UNSUPPORTED_LIBRARY
    exit_status = 13


class CustomCodeError(ModelExportError):
    """The model is defined by Python code in its repo, which is not run unless the operator allows it."""

    code = ErrorCode.CUSTOM_CODE
    exit_status = 14


class CheckpointIncompleteError(ModelExportError):
    """Weights are missing: a shard, a tensor, or the head that the task needs."""

    code = ErrorCode.CHECKPOINT_INCOMPLETE
    exit_status = 15


class CheckpointUnreadableError(ModelExportError):
    """A weight file is damaged, or is not what it claims to be."""

    code = ErrorCode.CHECKPOINT_UNREADABLE
    exit_status = 16


class CheckpointTooNewError(ModelExportError):
    """transformers 5 saved the checkpoint with something that has no equivalent in 4.57."""

    code = ErrorCode.CHECKPOINT_TOO_NEW
    exit_status = 17


class CheckpointQuantizedError(ModelExportError):
    """The weights are quantized (GPTQ, AWQ, bitsandbytes, fp8, ...), which cannot be exported."""

    code = ErrorCode.CHECKPOINT_QUANTIZED
    exit_status = 18


class TokenizerUnreadableError(ModelExportError):
    """The repo has a tokenizer or processor that does not load, or would give other inputs."""

    code = ErrorCode.TOKENIZER_UNREADABLE
    exit_status = 19


class ExportFailedError(ModelExportError):
    """torch cannot express the model as an ONNX graph."""

    code = ErrorCode.EXPORT_FAILED
    exit_status = 20


class CheckpointMismatchError(ModelExportError):
    """Config and weights are sound each, and do not belong together."""

    code = ErrorCode.CHECKPOINT_MISMATCH
    exit_status = 21


# --- the result is not good enough to publish (30-39) ----------------------------------------------------------------


class ParityFailedError(ModelExportError):
    """ONNX Runtime and PyTorch compute different numbers."""

    code = ErrorCode.PARITY_FAILED
    exit_status = 30


class OptimumLoadFailedError(ModelExportError):
    """Stock Optimum does not load the folder, or cannot run it."""

    code = ErrorCode.OPTIMUM_LOAD_FAILED
    exit_status = 31


class FolderInvalidError(ModelExportError):
    """A folder of ONNX files is incomplete, changed or damaged."""

    code = ErrorCode.FOLDER_INVALID
    exit_status = 32


class NoTagsError(ModelExportError):
    """An ONNX file carries no module tags."""

    code = ErrorCode.NO_TAGS
    exit_status = 33


# --- the machine does not allow it (40-49) ---------------------------------------------------------------------------


class TooLargeError(ModelExportError):
    """The export would not fit into memory or onto the disk."""

    code = ErrorCode.TOO_LARGE
    exit_status = 40


class OutOfMemoryError(ModelExportError):
    """The export ran out of memory, or reached its limit."""

    code = ErrorCode.OUT_OF_MEMORY
    exit_status = 41


class DiskFullError(ModelExportError):
    """There is no space left to write to."""

    code = ErrorCode.DISK_FULL
    exit_status = 42


class TimeLimitError(ModelExportError):
    """The export took longer than it may."""

    code = ErrorCode.TIMEOUT
    exit_status = 43


class EnvironmentFailedError(ModelExportError):
    """The exporter's environment could not be built."""

    code = ErrorCode.ENVIRONMENT_FAILED
    exit_status = 44


class ExporterCrashedError(ModelExportError):
    """The exporter died without saying why: a bug, in it or below it."""

    code = ErrorCode.EXPORTER_CRASHED
    exit_status = 45


# --- the Hub or its rules do not allow it (50-69) --------------------------------------------------------------------


class RepoNotFoundError(ModelExportError):
    """There is no such repo, or it is private and the token cannot see it."""

    code = ErrorCode.REPO_NOT_FOUND
    exit_status = 50


class RevisionNotFoundError(ModelExportError):
    """The repo has no such branch, tag or commit."""

    code = ErrorCode.REVISION_NOT_FOUND
    exit_status = 51


class RepoEmptyError(ModelExportError):
    """The repo holds no files."""

    code = ErrorCode.REPO_EMPTY
    exit_status = 52


class GatedError(ModelExportError):
    """The repo is gated, and the account has not been let in."""

    code = ErrorCode.GATED
    exit_status = 53


class UnauthorizedError(ModelExportError):
    """The token is invalid or has expired."""

    code = ErrorCode.UNAUTHORIZED
    exit_status = 54


class ForbiddenError(ModelExportError):
    """The token may not do this, or none was given."""

    code = ErrorCode.FORBIDDEN
    exit_status = 55


class RepoDisabledError(ModelExportError):
    """The Hub has disabled access to the repo."""

    code = ErrorCode.REPO_DISABLED
    exit_status = 56


class PrsDisabledError(ModelExportError):
    """The repo takes no pull requests."""

    code = ErrorCode.PRS_DISABLED
    exit_status = 57


class OptedOutError(ModelExportError):
    """The repo, or the operator, asked us to leave it alone."""

    code = ErrorCode.OPTED_OUT
    exit_status = 58


class DownloadCorruptError(ModelExportError):
    """A downloaded file is not the one that the Hub lists."""

    code = ErrorCode.DOWNLOAD_CORRUPT
    exit_status = 59


class UploadCorruptError(ModelExportError):
    """The Hub does not hold what was uploaded."""

    code = ErrorCode.UPLOAD_CORRUPT
    exit_status = 60


class RateLimitedError(ModelExportError):
    """The quota of the account is used up."""

    code = ErrorCode.RATE_LIMITED
    exit_status = 61


class HubUnavailableError(ModelExportError):
    """The Hub did not answer, or not in time."""

    code = ErrorCode.HUB_UNAVAILABLE
    exit_status = 62


# --- somebody stopped it ---------------------------------------------------------------------------------------------


class CancelledError(ModelExportError):
    """Ctrl-C or SIGTERM; 128 + SIGINT, what a shell expects."""

    code = ErrorCode.CANCELLED
    exit_status = 130


ERRORS: dict[ErrorCode, type[ModelExportError]] = {error.code: error for error in ModelExportError.__subclasses__()}
"""The class of every code: how the bot raises again what the exporter's ``failed`` event reports."""
