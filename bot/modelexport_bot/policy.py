"""Who decides what: the operator's limits come first, then the repo's own say, then the defaults.

A repo speaks through ``modelexport:`` in its model card's metadata, or through ``.modelexport.yaml``, which wins::

    modelexport:
      enabled: true          # false: never open a pull request here
      task: text-classification
      opset: 18
      dtype: float32
      atol: 0.0001

What does not fit the schema is reported, once, and nothing is guessed from it.
"""

import fnmatch
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError
from pydantic_core import ErrorDetails

from modelexport.contract import Options, estimate, memory_limit, require_fits
from modelexport.contract.errors import OptionsInvalidError, TooLargeError
from modelexport_bot import inputs
from modelexport_bot.hub import RepoAt
from modelexport_bot.settings import Limits, Overrides, Settings

OPTIONS_FILE = ".modelexport.yaml"
CARD_KEY = "modelexport"

_BYTES = {"I64": 8, "U64": 8}  # of one parameter; the others have four when they are exported, or fewer


class RepoOptions(BaseModel):
    """What a repo's owner can say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: StrictBool = Field(default=True, description="false: the bot never opens a pull request here")
    task: str | None = Field(default=None, description="Optimum's name of the task; found from the repo if not given")
    opset: int | None = Field(default=None, ge=11, le=30, description="ONNX opset; Optimum's choice if not given")
    dtype: Literal["float32", "source"] | None = Field(
        default=None, description="dtype of the weights; float32 if not given"
    )
    atol: float | None = Field(default=None, gt=0, description="largest absolute difference that parity may show")


def repo_options(card: Mapping[str, Any], options_file: str | None) -> RepoOptions:
    """What the repo says. ``options_file`` is the text of ``.modelexport.yaml``, if there is one.

    Raises:
        OptionsInvalidError: it does not fit the schema; the message says where and what is allowed.
    """
    if options_file is None:
        return _checked(card.get(CARD_KEY), f"{CARD_KEY} in the metadata of README.md")
    try:
        said = yaml.safe_load(options_file)
    except yaml.YAMLError as error:
        raise OptionsInvalidError(f"{OPTIONS_FILE} is no YAML: {' '.join(str(error).split())}") from error
    if isinstance(said, dict) and set(said) == {CARD_KEY}:  # the same block as in the model card
        said = said[CARD_KEY]
    return _checked(said, OPTIONS_FILE)


def _checked(said: object, where: str) -> RepoOptions:
    if said is None:
        return RepoOptions()
    if said is False:  # `modelexport: false` can only mean one thing
        return RepoOptions(enabled=False)
    try:
        return RepoOptions.model_validate(said)
    except ValidationError as error:
        wrong = "; ".join(_in_words(item) for item in error.errors())
        allowed = ", ".join(RepoOptions.model_fields)
        raise OptionsInvalidError(f"{where}: {wrong}. The keys are {allowed}.") from error


def _in_words(wrong: ErrorDetails) -> str:
    """For owners, who know neither pydantic nor our classes."""
    key = ".".join(map(str, wrong["loc"]))
    match wrong["type"]:
        case "extra_forbidden":
            return f"there is no key {key}"
        case "model_type":
            return "these are no keys with values, such as enabled: false"
        case _:
            return f"{key}: {wrong['msg'].lower()}"


def export_options(overrides: Overrides, asked_task: str | None, wishes: RepoOptions) -> Options:
    """The export's options: the operator's, else what was asked for in the thread, else the repo's, else defaults."""

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    return Options(
        task=first(overrides.task, asked_task, wishes.task),
        opset=first(overrides.opset, wishes.opset),
        dtype=first(overrides.dtype, wishes.dtype, Options().dtype),
        atol=first(overrides.atol, wishes.atol),
    )


def not_ours_to_touch(repo: str, limits: Limits) -> str | None:
    """Why the operator's lists keep us away from a repo; None if they do not."""

    def listed(patterns: tuple[str, ...]) -> str | None:
        return next((pattern for pattern in patterns if fnmatch.fnmatchcase(repo.lower(), pattern.lower())), None)

    if (pattern := listed(limits.deny)) is not None:
        return f"The operator's deny list has {pattern}."
    if limits.allow and listed(limits.allow) is None:
        return "The operator's allow list does not have it."
    return None


def may_run_code_of(repo: str, settings: Settings) -> bool:
    """Whether the operator allows the code of a repo, by its exact id.

    A repo has no say in this, and one that was renamed has to be allowed anew.
    """
    return repo in settings.trust_remote_code


def exported_size(repo: RepoAt, options: Options) -> int:
    """Bytes that the weights have when they are exported, as far as the Hub's listing tells.

    It counts the parameters of safetensors files by dtype. Of other files the dtype is not known from outside; they are
    taken to be as large as their export. The exporter, which reads their headers, asks again.
    """
    files = inputs.weights(repo.files)
    if options.dtype == "source" or not (repo.parameters and any(f.path.endswith(".safetensors") for f in files)):
        return sum(file.size for file in files)
    counted = sum(_BYTES.get(dtype, 4) * count for dtype, count in repo.parameters.items())
    return counted + sum(file.size for file in files if "/" in file.path)


def must_fit(repo: RepoAt, options: Options, settings: Settings) -> None:
    """Raises TooLargeError, before anything is downloaded, for what could not be exported here.

    What counts is the operator's ``max_memory``, what the machine and the container have, and the disk that the
    download and the export go to.
    """
    computed = exported_size(repo, options.model_copy(update={"dtype": "float32"}))  # what float16 is held against
    cost = estimate(exported_size(repo, options), computed)
    download = sum(file.size for file in inputs.snapshot(repo.files, code=may_run_code_of(repo.id, settings)))
    free = _free(settings.downloads or settings.cache)
    require_fits(replace(cost, disk=cost.disk + download), memory_limit(settings.max_memory), free, repo.id)


def _free(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    return shutil.disk_usage(next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())).free


def must_not_be_too_large(repo: RepoAt, limits: Limits) -> None:
    """Raises TooLargeError when the weights pass the operator's limit."""
    size = sum(file.size for file in inputs.weights(repo.files))
    if limits.max_size is not None and size > limits.max_size:
        raise TooLargeError(
            f"The weights of {repo.id} are {size / 1e9:.2f} GB, more than the {limits.max_size / 1e9:.2f} GB allowed "
            "here. Raise max_size in the operator's settings to export it."
        )
