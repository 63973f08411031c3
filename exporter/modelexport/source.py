"""Where the model comes from: a local folder, or a repo on the Hub for whoever uses the exporter by itself.

In a bot run the folder is always local; the process then has neither network nor token.
"""

import json
import re
from pathlib import Path
from typing import NoReturn

from modelexport.contract.architectures import require_known
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    GatedError,
    HubUnavailableError,
    ModelExportError,
    RepoNotFoundError,
    RevisionNotFoundError,
    SourceNotFoundError,
)

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""``org/name``, or ``name`` of the few repos without an owner."""

_NEVER = ("onnx/*", "openvino/*", "*.gguf", "*.msgpack", "*.h5", "*.ot", "*.tflite", "*.mlmodel", "*.pth", "*.npz")


def locate(source: str, revision: str | None) -> tuple[Path, str | None, str | None]:
    """The folder to export, and repo id and commit sha where it is a snapshot of a repo.

    Raises:
        SourceNotFoundError: neither a folder nor a possible repo id.
        RepoNotFoundError, RevisionNotFoundError, GatedError, HubUnavailableError: the Hub says no.
        UnsupportedArchitectureError: nothing can export the model, as the config says; no weights were downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise SourceNotFoundError(
                f"{source} is a local folder, which has no revisions. Leave --revision out, or rename the folder if "
                "you mean the repo of that name on the Hub."
            )
        return folder, None, None
    if folder.exists() or not REPO_ID.fullmatch(source):
        raise SourceNotFoundError(
            f"{source} is neither a folder nor the name of a repo on the Hub (org/name). Check the path."
        )
    return _download(source, revision)


def _download(repo: str, revision: str | None) -> tuple[Path, str, str]:
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().model_info(repo, revision=revision)
        require_known(info.config or {})
        names = [sibling.rfilename for sibling in info.siblings or []]
        ignore = [*_NEVER, *(["*.bin"] if any(name.endswith(".safetensors") for name in names) else [])]
        folder = Path(snapshot_download(repo, revision=info.sha, ignore_patterns=ignore))
    except ModelExportError:
        raise
    except Exception as error:  # noqa: BLE001  translated, every one
        translate(error, repo, revision)
    return folder, info.id or repo, str(info.sha)


def translate(error: Exception, repo: str, revision: str | None) -> NoReturn:
    """Raise what the Hub client said as one of our errors."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    where = f"{repo} at {revision}" if revision else repo
    if isinstance(error, GatedRepoError):
        raise GatedError(
            f"{repo} is gated. Accept its conditions on its page on the Hub, then log in with `hf auth login`."
        ) from error
    if isinstance(error, NoRevision):
        raise RevisionNotFoundError(
            f"{repo} has no revision {revision!r}. Check the branch, tag or commit sha."
        ) from error
    if isinstance(error, RepositoryNotFoundError):
        raise RepoNotFoundError(
            f"There is no folder {repo}, and no repo of that name that you can see on the Hub. Check the spelling; "
            "for a private repo, log in with `hf auth login`."
        ) from error
    if isinstance(error, json.JSONDecodeError | OSError):  # requests' exceptions are OSErrors
        raise HubUnavailableError(f"{where} could not be downloaded: {error}. Try again later.") from error
    raise CheckpointIncompleteError(f"{where} could not be downloaded: {type(error).__name__}: {error}") from error
