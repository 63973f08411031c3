"""Load the tokenizer, image processor and feature extractor that a folder holds.

A kind that the folder has files for must load: a model without its tokenizer is of no use to anybody.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer

from modelexport.contract.errors import TokenizerUnreadableError
from modelexport.parity.cases import Preprocessors

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model")


def load(folder: Path) -> Preprocessors:
    """What ``folder`` holds, by transformers' Auto classes, from local files only and without custom code.

    Raises:
        TokenizerUnreadableError: the files are there, but transformers cannot load them.
    """
    names = {path.name for path in folder.iterdir()}
    tokenizer = image_processor = feature_extractor = None
    if names & {"tokenizer_config.json", *_VOCABULARIES} or any(name.endswith(".model") for name in names):
        tokenizer = _load(AutoTokenizer.from_pretrained, folder, "tokenizer")
    config = _processor_config(folder)
    if "image_processor_type" in config or "image_mean" in config or ("do_normalize" in config and "size" in config):
        image_processor = _load(AutoImageProcessor.from_pretrained, folder, "image processor", use_fast=False)
    elif "feature_extractor_type" in config or "sampling_rate" in config:
        feature_extractor = _load(AutoFeatureExtractor.from_pretrained, folder, "feature extractor")
    processor = None
    if hasattr(image_processor, "max_patches"):  # Optimum asks Pix2Struct's processor for it
        processor = _load(AutoProcessor.from_pretrained, folder, "processor")
    return Preprocessors(tokenizer, image_processor, feature_extractor, processor)


def _processor_config(folder: Path) -> dict[str, Any]:
    import json

    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, OSError) as error:
                raise TokenizerUnreadableError(f"{name} is not JSON: {error}. Correct it in the repo.") from error
            if isinstance(config, dict):
                return {**config, **(config.get("image_processor") or {}), **(config.get("feature_extractor") or {})}
    return {}


def _load(from_pretrained: Callable[..., Any], folder: Path, kind: str, **options: Any) -> Any:
    try:
        return from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise TokenizerUnreadableError(
            f"The repo has a {kind}, but transformers cannot load it: {type(error).__name__}: {first_line}. Without "
            "it the ONNX model could not be used. Save it again with a current transformers and upload it."
        ) from error
