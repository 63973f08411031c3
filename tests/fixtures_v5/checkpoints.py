"""The committed fixtures as checkpoint folders, and what transformers 5 computed with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures_v5 import filler

DATA = Path(__file__).parent / "data"


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint of a fixture into ``folder``, which must not exist, and return it."""
    folder.mkdir(parents=True)
    shutil.copyfile(DATA / name / "config.json", folder / "config.json")
    entries = json.loads((DATA / name / "weights.json").read_text())
    filler.write_safetensors(folder / "model.safetensors", name, entries)
    return folder


def config(name: str) -> dict[str, Any]:
    """The config as transformers 5 saved it."""
    content: dict[str, Any] = json.loads((DATA / name / "config.json").read_text())
    return content


def reference(name: str) -> np.ndarray:
    """The first output of the model in transformers 5."""
    output: np.ndarray = np.load(DATA / name / "output.npy")
    return output
