"""``make readers``: sentence-transformers and transformers.js read an exported repo, and compute what PyTorch does.

The repo is the real all-MiniLM-L6-v2 with our ``onnx/`` folder in it, as it is after a merge. Ends with status 1 where
a reader is further from PyTorch than float32 explains.

    python -m tests.readers FOLDER      FOLDER holds python/ and node_modules/, as ``make readers`` puts them there
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np

from demo.model import download

TEXTS = ["The cat sat on the mat.", "東京 is far away \U0001f680", "x", "Zoë paid 3,50 € for a crème brûlée — twice."]
ALLOWED = 1e-5


def main(readers: Path) -> int:
    """Export, ask every reader, print a line for each; returns the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        repo = Path(scratch) / "local" / "minilm"
        shutil.copytree(download(), repo, ignore=shutil.ignore_patterns("onnx", "openvino"))
        command = [sys.executable, "-m", "modelexport", "export", str(repo), str(repo / "onnx")]
        subprocess.run(command, check=True)
        sys.path.append(str(readers / "python"))
        expected = _sentence_transformers(repo, "torch")
        found = {
            "sentence-transformers": _sentence_transformers(repo, "onnx"),
            "transformers.js": _transformers_js(readers, Path(scratch)),
        }
    worst = {name: float(np.abs(embeddings - expected).max()) for name, embeddings in found.items()}
    for name, difference in worst.items():
        print(f"{name}: {len(TEXTS)} embeddings, at most {difference:.1e} from PyTorch's")
    return int(max(worst.values()) > ALLOWED)


def _sentence_transformers(repo: Path, backend: str) -> np.ndarray:
    """Embeddings, float32 ``[texts, 384]``."""
    from sentence_transformers import SentenceTransformer

    chosen = {"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"} if backend == "onnx" else {}
    model = SentenceTransformer(str(repo), backend=backend, device="cpu", model_kwargs=chosen, local_files_only=True)
    return np.asarray(model.encode(TEXTS))


def _transformers_js(readers: Path, root: Path) -> np.ndarray:
    """The same from Node, which finds ``node_modules`` beside the script."""
    script = shutil.copy(Path(__file__).with_name("embed.mjs"), readers)
    done = subprocess.run(
        ["node", script, f"{root}/", "local/minilm"],
        input=json.dumps(TEXTS), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return np.asarray(json.loads(done.stdout.splitlines()[-1]), np.float32)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
