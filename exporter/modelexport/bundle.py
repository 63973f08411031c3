"""The files beside the ONNX graphs: config, generation config, tokenizer, processor.

They are the repo's own bytes. Where transformers 4.57 could not read them, the bridge has written a translation, and that is
what is published: a bundle must load in both majors and mean the same in both.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from modelexport.bridge import Prepared
from modelexport.checkpoint import Checkpoint


@dataclass(frozen=True)
class BundleResult:
    """What was written, relative to the output folder, sorted; and the deviations, one sentence each."""

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def bundle(checkpoint: Checkpoint, prepared: Prepared, out: Path) -> BundleResult:
    """Copy what belongs beside the graphs into ``out``, which exists."""
    names = ["config.json", *checkpoint.tokenizer_files, *checkpoint.processor_files]
    if checkpoint.generation_config:
        names.append("generation_config.json")
    for name in names:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(prepared.folder / name, target)
    return BundleResult(tuple(sorted(names)))
