"""What is published means the same in transformers 5: asked of transformers 5 itself.

Needs an interpreter with transformers 5, named by ``MODELEXPORT_V5_PYTHON`` (``make fixtures-v5`` makes one).
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("optimum.exporters.onnx")

from modelexport import bridge, bundle, checkpoint
from tests.fixtures_v5 import checkpoints
from tests.fixtures_v5.models import MODELS

V5_PYTHON = os.environ.get("MODELEXPORT_V5_PYTHON")
TOKENIZERS = Path(checkpoints.__file__).parent / "tokenizer_data"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(V5_PYTHON is None, reason="MODELEXPORT_V5_PYTHON names no interpreter with transformers 5"),
]


def publish(original: Path) -> None:
    read = checkpoint.read(original)
    prepared = bridge.prepare(read, original.parent / "scratch")
    (out := original.parent / "published").mkdir()
    bundle.bundle(read, prepared, out)


def test_transformers_5_reads_every_published_folder_as_the_original(tmp_path: Path) -> None:
    for model in MODELS:
        publish(checkpoints.build(model.name, tmp_path / model.name / "original"))
    for tokenizer in TOKENIZERS.iterdir():
        original = checkpoints.build("bert", tmp_path / f"tokenizer_{tokenizer.name}" / "original")
        for path in tokenizer.iterdir():
            if path.name != "results.json":
                shutil.copyfile(path, original / path.name)
        publish(original)
    assert V5_PYTHON is not None
    root = Path(checkpoints.__file__).parents[2]
    finished = subprocess.run(
        [V5_PYTHON, "-m", "tests.fixtures_v5.reread", str(tmp_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'exporter'}", "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
