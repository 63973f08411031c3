"""Does transformers 5 read a published folder as it reads the original? Run by a test, in the environment of
transformers 5.

``python -m tests.fixtures_v5.reread FOLDER`` goes through ``FOLDER/*/original`` and ``FOLDER/*/published`` and prints
what differs, nothing where all is well. Compared are the configs, less the keys that only 4.57 reads, and what the
tokenizer makes of the text set where there is one.
"""

import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from modelexport.parity.samples import PAIRS, TEXTS


def main(original: Path, published: Path) -> list[str]:
    """One line for each difference."""
    return [*_configs(original, published), *_tokenizers(original, published)]


def _configs(original: Path, published: Path) -> list[str]:
    before, after = (AutoConfig.from_pretrained(folder).to_dict() for folder in (original, published))
    return list(_differences("config", before, after))


def _differences(path: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [line for key in before for line in _differences(f"{path}.{key}", before[key], after.get(key))]
    return [] if before == after or path.endswith("_name_or_path") else [f"{path}: {before!r} became {after!r}"]


def _tokenizers(original: Path, published: Path) -> list[str]:
    if not (original / "tokenizer_config.json").is_file():
        return []
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (original, published))
    texts = [(text,) for text in TEXTS] + list(PAIRS)
    return [f"tokenizer: {text!r}" for text in texts if dict(before(*text)) != dict(after(*text))]


if __name__ == "__main__":
    for pair in sorted(Path(sys.argv[1]).iterdir()):
        for line in main(pair / "original", pair / "published"):
            print(f"{pair.name}: {line}")
