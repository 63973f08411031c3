"""Image processors and feature extractors saved by transformers 5 give the same values in 4.57 from our bundle."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

from transformers import AutoFeatureExtractor, AutoImageProcessor

from modelexport import bridge, bundle, checkpoint, preprocessors
from modelexport.bridge import preparing
from tests.fixtures_v5 import checkpoints
from tests.fixtures_v5.inputs import processed

pytestmark = pytest.mark.engine
DATA = Path(checkpoints.__file__).parent / "processor_data"
NAMES = sorted(path.name for path in DATA.iterdir())
WHOLE = ["whole_clip", "whole_whisper"]
NOT_READ = {"image_yolos": "pixel_mask"}
"""What transformers 5 returns in addition and no model of this kind takes, in either release."""


def published(name: str, folder: Path) -> Path:
    """A checkpoint with the processor of the fixture, bundled and verified."""
    root = checkpoints.build("vit", folder / "checkpoint")
    for path in DATA.joinpath(name).glob("*.json"):
        shutil.copyfile(path, root / path.name)
    read = checkpoint.read(root)
    prepared = bridge.prepare(read, folder / "scratch")
    (out := folder / "out").mkdir()
    bundle.bundle(read, prepared, out)
    bundle.verify(prepared.folder, out)
    return out


def loaded(folder: Path) -> Any:
    """What the exporter finds in a folder."""
    found = preprocessors.load(folder)
    return found.image_processor if found.image_processor is not None else found.feature_extractor


def largest_difference(found: dict[str, np.ndarray], name: str) -> float:
    """From what transformers 5 returned; infinite where names or shapes differ."""
    with np.load(DATA / name / "results.npz") as stored:
        expected = {key: stored[key] for key in stored.files if key.partition(".")[2] != NOT_READ.get(name)}
    assert len(expected) >= 2
    if found.keys() != expected.keys() or any(found[key].shape != expected[key].shape for key in found):
        return float("inf")
    return max(float(np.abs(found[key].astype(np.float64) - expected[key]).max()) for key in found)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_processor_returns_what_transformers_5_returns(name: str, tmp_path: Path) -> None:
    assert largest_difference(processed(loaded(published(name, tmp_path))), name) < 1e-5


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WHOLE)))
def test_a_processor_file_that_is_understood_keeps_its_bytes(name: str, tmp_path: Path) -> None:
    out = published(name, tmp_path)
    assert (out / "preprocessor_config.json").read_bytes() == (DATA / name / "preprocessor_config.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_lost_is_seen(name: str, tmp_path: Path) -> None:
    """The fixtures differ from the defaults: without their settings the values are others, or there are none."""
    kind = type(loaded(published(name, tmp_path)))
    with suppress(ImportError, KeyError, TypeError):
        assert largest_difference(processed(kind()), name) > 1e-2


@pytest.mark.parametrize("name", WHOLE)
def test_the_part_of_a_whole_processor_is_where_older_readers_look(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"whole_clip": "image_processor", "whole_whisper": "feature_extractor"}[name]
    auto_class = {"whole_clip": AutoImageProcessor, "whole_whisper": AutoFeatureExtractor}[name]
    out = published(name, tmp_path / "translated")
    (out / "processor_config.json").unlink()  # which they do not know
    assert largest_difference(processed(auto_class.from_pretrained(out)), name) < 1e-5
    written = json.loads((DATA / name / "processor_config.json").read_text())[part]
    assert written.items() <= json.loads((out / "preprocessor_config.json").read_text()).items()
    monkeypatch.setattr(preparing, "translate_processor", lambda _: None)
    out = published(name, tmp_path / "not")
    (out / "processor_config.json").unlink()
    with pytest.raises((OSError, ValueError)):
        auto_class.from_pretrained(out)
