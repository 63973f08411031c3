"""The files beside the ONNX graphs: config, generation config, tokenizer, processor.

They are the repo's own bytes. Where transformers 4.57 could not read one, the bridge has written a translation that
both majors read alike, and that is what is published. :func:`verify` proves that nothing was lost on the way.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoConfig, GenerationConfig

from modelexport import preprocessors
from modelexport.bridge import Prepared
from modelexport.checkpoint import Checkpoint
from modelexport.checkpoint.folder import Folder
from modelexport.contract.errors import ConfigInvalidError, FolderInvalidError
from modelexport.parity.samples import PAIRS, texts_for

_IMAGE_SIZES = ((64, 48), (37, 91), (256, 256))  # width and height in pixels: either side longer, and neither
_SECONDS = (0.5, 1.3)


@dataclass(frozen=True)
class BundleResult:
    """What was written, relative to the output folder, sorted; and the deviations, one sentence each."""

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def bundle(checkpoint: Checkpoint, prepared: Prepared, out: Path) -> BundleResult:
    """Copy what belongs beside the graphs into ``out``, which exists.

    Raises:
        CheckpointUnreadableError: one of the files is a link that leads out of the folder.
    """
    own = Folder(checkpoint.root)
    names = {"config.json", *checkpoint.tokenizer_files, *checkpoint.processor_files, *prepared.translated}
    if checkpoint.generation_config:
        names.add("generation_config.json")
    for name in sorted(names):
        source = prepared.folder / name if name in prepared.translated else own.path(name)
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return BundleResult(tuple(sorted(names)))


def verify(source: Path, out: Path) -> None:
    """Prove that config, tokenizer and processor of ``out`` behave as those of ``source``.

    Args:
        source: the folder that the model was loaded from (:attr:`Prepared.folder`).
        out: the folder that is going to be published.

    Raises:
        TokenizerUnreadableError: the source has a tokenizer or processor that does not load.
        ConfigInvalidError: ``generation_config.json`` does not load.
        FolderInvalidError: something differs; the message names the text or the input.
    """
    _same_config(source, out)
    if (out / "generation_config.json").is_file():
        _loads_generation_config(out)
    here, there = preprocessors.load(source), preprocessors.load(out)
    if here.tokenizer is not None:
        _same_ids(here.tokenizer, there.tokenizer)
    if here.image_processor is not None:
        for width, height in _IMAGE_SIZES:
            image = _image(width, height)
            _same(here.image_processor, there.image_processor, "an image", images=image, return_tensors="np")
    if here.feature_extractor is not None:
        rate = int(getattr(here.feature_extractor, "sampling_rate", 16000))
        for seconds in _SECONDS:
            sound, options = _sound(int(rate * seconds)), {"sampling_rate": rate, "return_tensors": "np"}
            _same(here.feature_extractor, there.feature_extractor, "a sound", sound, **options)


def _same_config(source: Path, out: Path) -> None:
    dictionaries = []
    for folder in (source, out):
        content = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).to_dict()
        content.pop("_name_or_path", None)
        dictionaries.append(content)
    if dictionaries[0] != dictionaries[1]:
        raise FolderInvalidError("config.json of the bundle does not mean what the model's config means. Report this.")


def _loads_generation_config(out: Path) -> None:
    try:
        GenerationConfig.from_pretrained(out, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigInvalidError(
            f"transformers cannot read generation_config.json: {str(error)[:200]} Correct the file, or remove it."
        ) from error


def _same_ids(here: Any, there: Any) -> None:
    for text in texts_for(here.all_special_tokens):
        _same(here, there, repr(text[:40]), text, verbose=False)
    for first, second in PAIRS:
        _same(here, there, f"the pair {first!r} and {second!r}", first, second, verbose=False)


def _same(here: Any, there: Any, what: str, *inputs: Any, **options: Any) -> None:
    """Call both alike and compare every array; an input that neither takes proves nothing and is no failure."""
    expected, found = (_outcome(processor, inputs, options) for processor in (here, there))
    equal = expected.keys() == found.keys() and all(
        np.array_equal(np.asarray(expected[key]), np.asarray(found[key])) for key in expected
    )
    if not equal:
        raise FolderInvalidError(
            f"The {type(there).__name__} of the bundle gives another result for {what} than the repo's own. "
            "Report this."
        )


def _outcome(processor: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return dict(processor(*inputs, **options))
    except (ValueError, TypeError, KeyError, IndexError, AssertionError) as error:  # wants words and boxes, say
        return {"refused": type(error).__name__}


def _image(width: int, height: int) -> Image.Image:
    generator = np.random.Generator(np.random.PCG64(width))
    return Image.fromarray(generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8))


def _sound(samples: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(samples)).standard_normal(samples, dtype=np.float32)
