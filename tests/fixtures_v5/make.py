"""Make the fixtures; ``python -m tests.fixtures_v5.make [NAME…]`` with transformers 5 (``make fixtures-v5``).

Each model is built and saved by transformers 5, its weights replaced by those of :mod:`filler`, loaded again, and run.
What is committed: ``config.json`` as saved, the names and shapes of the weights, and the output. Each tokenizer is
trained on a few lines and saved; committed are its files and what it makes of the text set. Of image processors and
feature extractors, the files and what they make of two pictures or sounds.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from modelexport.parity.samples import PAIRS, TEXTS
from tests.fixtures_v5 import filler, processors, schema
from tests.fixtures_v5.inputs import inputs_for, processed
from tests.fixtures_v5.models import MODELS, Model
from tests.fixtures_v5.vocabularies import tokenizers

OUT = Path(__file__).parent / "data"
TOKENIZERS = Path(__file__).parent / "tokenizer_data"
PROCESSORS = Path(__file__).parent / "processor_data"


def main(names: list[str]) -> None:
    """Make the named fixtures, or all and the schema."""
    assert transformers.__version__.startswith("5."), "the fixtures are what transformers 5 saves"
    torch.set_num_threads(1)
    for model in MODELS:
        if not names or model.name in names:
            _make(model)
            print(model.name)
    for name, build in tokenizers().items():
        if not names or name in names:
            _save_tokenizer(TOKENIZERS / name, build())
            print(name)
    for name, build in processors.builders().items():
        if not names or name in names:
            _save_processor(PROCESSORS / name, build())
            print(name)
    if not names:
        schema.main(list(json.loads(schema.OUT.read_text())))


def _make(model: Model) -> None:
    folder = OUT / model.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model_class = getattr(transformers, model.model_class)
    torch.manual_seed(0)
    built = model_class(_config(model_class, model))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        built.save_pretrained(scratch, save_original_format=not model.fused)
        entries = _entries(scratch / "model.safetensors")
        for parameter in model.untie:
            entries[parameter] = ("F32", list(built.state_dict()[parameter].shape))
        filler.write_safetensors(scratch / "model.safetensors", model.name, entries)
        loaded, report = model_class.from_pretrained(scratch, output_loading_info=True)
        assert [*report["missing_keys"], *report["unexpected_keys"]] == []
        loaded.eval()
        inputs = inputs_for(json.loads((scratch / "config.json").read_text()))
        with torch.no_grad():
            output = loaded(**{key: torch.from_numpy(value) for key, value in inputs.items()})[model.output or 0]
        shutil.copyfile(scratch / "config.json", folder / "config.json")
    (folder / "weights.json").write_text(json.dumps(entries, separators=(",", ":"), sort_keys=True) + "\n")
    np.save(folder / "output.npy", output.float().numpy())


def _save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """The files as saved, and what the tokenizer that is loaded from them returns."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save_pretrained(folder)
    loaded = type(tokenizer).from_pretrained(folder)
    texts = [
        *(text for text in TEXTS if len(text) < 1000),
        *(f"a{token} b{token}c" for token in sorted(loaded.all_special_tokens)),
    ]
    results = {
        "texts": [[text, _returned(loaded(text))] for text in texts],
        "pairs": [[first, second, _returned(loaded(first, second))] for first, second in PAIRS],
        "decoded": [loaded.decode(loaded(text)["input_ids"]) for text in texts],
    }
    (folder / "results.json").write_text(json.dumps(results, separators=(",", ":")) + "\n")


def _save_processor(folder: Path, processor: Any) -> None:
    """The files as saved, but for those of a tokenizer, and what a processor loaded from them returns."""
    shutil.rmtree(folder, ignore_errors=True)
    processor.save_pretrained(folder)
    loaded = type(processor).from_pretrained(folder)
    part = getattr(loaded, "image_processor", None) or getattr(loaded, "feature_extractor", None) or loaded
    for path in folder.iterdir():
        if path.name not in ("preprocessor_config.json", "processor_config.json"):
            path.unlink()
    np.savez_compressed(folder / "results.npz", **processed(part))


def _returned(encoding: Any) -> dict[str, list[int]]:
    """What a tokenizer returns, without the mask, which is all ones where nothing is padded."""
    assert set(encoding.pop("attention_mask")) <= {1}
    return dict(encoding)


def _config(model_class: Any, model: Model) -> Any:
    options = dict(model.config)
    name = options.pop("model_class_config", None)
    config_class = getattr(transformers, name) if name else model_class.config_class
    return config_class(**options)


def _entries(path: Path) -> dict[str, tuple[str, list[int]]]:
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
