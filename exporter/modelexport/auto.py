"""``AutoModelForONNX``: load an exported model without knowing which of Optimum's classes it needs.

    from modelexport import AutoModelForONNX
    model = AutoModelForONNX.from_pretrained("org/model")

What comes back is an ordinary ``ORTModelForX`` of Optimum. Nothing is ever exported here: a folder without ONNX files
is an error, where Optimum's own ``from_pretrained`` would quietly convert the model again.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import optimum.onnxruntime
from transformers import AutoConfig, PretrainedConfig

from modelexport import folder as folders
from modelexport import source
from modelexport import task as tasks
from modelexport.contract.errors import (
    ConfigInvalidError,
    ConfigMissingError,
    FolderInvalidError,
    OptimumLoadFailedError,
    SourceNotFoundError,
    TaskUnknownError,
    UnsupportedArchitectureError,
)
from modelexport.contract.manifest import MANIFEST_NAME, Manifest

_SINGLE = ("model.onnx",)
_PAIRS = (
    ("encoder_model.onnx", "decoder_model_merged.onnx"),
    ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"),
    ("encoder_model.onnx", "decoder_model.onnx"),
)
_CAUSAL = (_SINGLE, ("decoder_model_merged.onnx",), ("decoder_model.onnx", "decoder_with_past_model.onnx"))
_ENCODER_DECODER = (
    "ORTModelForSeq2SeqLM",
    "ORTModelForSpeechSeq2Seq",
    "ORTModelForVision2Seq",
    "ORTModelForPix2Struct",
)
_BESIDE = ("config.json", "generation_config.json", MANIFEST_NAME)


class AutoModelForONNX:
    """Picks the ``ORTModelForX`` for a folder or repo and loads it; see :meth:`from_pretrained`."""

    def __init__(self) -> NoReturn:
        """Refuse: there is nothing to construct."""
        raise TypeError("Use AutoModelForONNX.from_pretrained(folder_or_repo).")

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "onnx",
        task: str | None = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load the model in ``model_id`` with the class of Optimum that it needs.

        The class is that of the manifest. Without one it is the class of the task that ``config.json`` names by its
        architecture (``ORTModelForCustomTasks`` where Optimum has none for the task, as for object detection); an
        encoder-decoder of which only ``model.onnx`` is there gives features.

        A config that an older exporter left in the folder around the ONNX files only is taken from there.

        Args:
            model_id: a local folder, or a repo on the Hub (``org/name``). Of a repo, the ONNX files that the class
                opens are downloaded, their external data and the configs beside them, and nothing else.
            revision: branch, tag or commit of a repo.
            subfolder: where the ONNX files lie. Where there is no such folder, ``model_id`` itself is looked at.
            task: overrides what was found, with Optimum's name (``text-classification``).
            local_files_only: take a repo from the cache, without network.
            cache_dir: of the Hub client.
            token: of the Hub client.
            **kwargs: for ``ORTModelForX.from_pretrained`` (``provider``, ``session_options``, ``file_name``,
                ``use_cache``, ...). Without ``use_cache`` a KV cache is used where the graphs have one.

        Returns:
            An ``ORTModelForX``.

        Raises:
            SourceNotFoundError: ``model_id`` is neither a folder nor a possible repo id.
            RepoNotFoundError, RevisionNotFoundError, GatedError, HubUnavailableError: the Hub says no.
            FolderInvalidError: there are no ONNX files, or not those that the class opens.
            ConfigMissingError, ConfigInvalidError: there is no readable ``config.json``.
            TaskUnknownError, UnsupportedArchitectureError: Optimum does not know what the model is for.
            OptimumLoadFailedError: it has one, which cannot load the files.
        """
        if Path(model_id).is_dir():
            folder = _local(Path(model_id), subfolder)
        else:
            hub = {"cache_dir": cache_dir, "token": token}
            folder = _repo(str(model_id), revision, subfolder, task, local_files_only, kwargs.get("file_name"), hub)
        config_folder = folder if (folder / "config.json").is_file() else folder.parent
        config = kwargs.pop("config", None) or _config(config_folder)
        model_class = _model_class(
            config, folders.manifest(folder), task, {path.name for path in folder.glob("*.onnx")}
        )
        if "use_cache" not in kwargs and _has_no_cache(model_class, folder):
            kwargs["use_cache"] = False
        try:
            model = model_class.from_pretrained(  # type: ignore[attr-defined]
                config_folder,
                subfolder=folder.relative_to(config_folder).as_posix(),
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                **kwargs,
            )
        except Exception as error:
            first_line = (str(error).strip() or "no message").splitlines()[0]
            raise OptimumLoadFailedError(
                f"{model_class.__name__} cannot load {model_id}: {type(error).__name__}: {first_line}"
            ) from error
        if "use_cache" not in kwargs and not getattr(model, "can_use_cache", True):
            model.config.use_cache = model.generation_config.use_cache = False  # all that use_cache=False does
        return model


def _local(folder: Path, subfolder: str) -> Path:
    inner = folder / subfolder
    chosen = inner if subfolder and inner.is_dir() else folder
    folders.onnx_files(chosen)  # raises where there are none
    return chosen


def _repo(
    repo: str,
    revision: str | None,
    subfolder: str,
    task: str | None,
    local_files_only: bool,
    file_name: str | None,
    hub: dict[str, Any],
) -> Path:
    """The folder with the ONNX files in the local snapshot of a repo, downloaded as far as needed."""
    from huggingface_hub import HfApi, snapshot_download

    if not source.REPO_ID.fullmatch(repo):
        raise SourceNotFoundError(f"{repo} is neither a folder nor the name of a repo on the Hub (org/name).")
    try:
        if local_files_only:
            return _local(Path(snapshot_download(repo, revision=revision, local_files_only=True, **hub)), subfolder)
        small = [name for beside in _BESIDE for name in (beside, f"{subfolder}/{beside}")]
        root = Path(snapshot_download(repo, revision=revision, allow_patterns=small, **hub))
        sha = root.name
        info = HfApi(token=hub["token"]).model_info(repo, revision=sha)
        names = {sibling.rfilename for sibling in info.siblings or ()}
        prefix = f"{subfolder}/" if subfolder and any(name.startswith(f"{subfolder}/") for name in names) else ""
        onnx = {name.removeprefix(prefix) for name in names if name.startswith(prefix) and name.endswith(".onnx")}
        onnx = {name for name in onnx if "/" not in name}
        if not onnx:
            raise FolderInvalidError(
                f"{repo} has no ONNX files in {subfolder!r}. Export it with `modelexport export {repo}`."
            )
        folder = root / prefix
        config = _config(folder if f"{prefix}config.json" in names else root)
        manifest = folders.manifest(folder)
        wanted = [file_name] if file_name else _files(_model_class(config, manifest, task, onnx), manifest, onnx)
        data = (f"{name}_data" for name in wanted if f"{prefix}{name}_data" in names)
        patterns = [f"{prefix}{name}" for name in (*wanted, *data)]
        snapshot_download(repo, revision=sha, allow_patterns=patterns, **hub)
    except (FolderInvalidError, ConfigMissingError, ConfigInvalidError, TaskUnknownError, UnsupportedArchitectureError):
        raise
    except Exception as error:  # noqa: BLE001  translated, every one
        source.translate(error, repo, revision)
    return folder


def _files(model_class: type, manifest: Manifest | None, present: Iterable[str]) -> list[str]:
    """Names of the ONNX files that ``model_class`` opens: the manifest's, else Optimum's standard names."""
    present = set(present)
    if manifest is not None and set(manifest.optimum.files) <= present:
        return list(manifest.optimum.files)
    name = model_class.__name__
    choices = _PAIRS if name in _ENCODER_DECODER else _CAUSAL if name == "ORTModelForCausalLM" else (_SINGLE,)
    for choice in choices:
        if set(choice) <= present:
            return list(choice)
    if len(present) == 1:
        return list(present)
    raise FolderInvalidError(
        f"{name} opens {' and '.join(choices[0])}, and there are only {', '.join(sorted(present))}. "
        "Name one with file_name=…, or export the model again."
    )


def _model_class(config: PretrainedConfig, manifest: Manifest | None, task: str | None, present: Iterable[str]) -> type:
    if task is None and manifest is not None:
        found = getattr(optimum.onnxruntime, manifest.optimum.model_class, None)
        if found is None:
            raise UnsupportedArchitectureError(
                f"The manifest names {manifest.optimum.model_class}, which the installed Optimum does not have. "
                "Update Optimum."
            )
        return found
    architectures = tuple(config.architectures or ())
    chosen = tasks.resolve(config.model_type, architectures, requested=task, pipeline_tag=None)
    model_class = tasks.ort_model_class(chosen, architectures)
    if task is None and model_class.__name__ in _ENCODER_DECODER and set(present) == {"model.onnx"}:
        return optimum.onnxruntime.ORTModelForFeatureExtraction
    return model_class


def _has_no_cache(model_class: type, folder: Path) -> bool:
    """Whether the graphs of an encoder-decoder have no cache; Optimum then looks for a file that is not there."""
    if model_class.__name__ not in _ENCODER_DECODER:
        return False
    return not any((folder / f"decoder_{name}.onnx").is_file() for name in ("model_merged", "with_past_model"))


def _config(folder: Path) -> PretrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigMissingError(
            f"config.json not found in {folder}. Optimum needs it beside the model; re-export with modelexport >= 1.0.0"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ConfigInvalidError(f"{path} cannot be read: {type(error).__name__}: {first_line}") from error
