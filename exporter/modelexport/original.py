"""The PyTorch model that a folder of ONNX files is compared with, planned as it was for the export of that folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from modelexport import bridge, preprocessors
from modelexport.checkpoint import Checkpoint
from modelexport.contract.errors import FolderInvalidError
from modelexport.htp.hierarchy import Hierarchy
from modelexport.load import load_model
from modelexport.parity.cases import Preprocessors
from modelexport.parity.generation import CacheSettings
from modelexport.parity.references import Interface
from modelexport.plan import DECODER, DECODER_MERGED, DECODER_WITH_PAST, GraphPlan, plan


@dataclass(frozen=True)
class Original:
    """A loaded model and how it relates to the files of a folder.

    Attributes:
        settings: of the model as it was loaded.
        plans: its graphs.
        stems: by graph, the file that holds it, without suffix.
        interfaces: by graph, its inputs and outputs.
        published: by file, its inputs with their shapes.
        dtype: of the weights.
    """

    model: PreTrainedModel
    settings: CacheSettings
    hierarchy: Hierarchy
    preprocessors: Preprocessors
    plans: tuple[GraphPlan, ...]
    stems: Mapping[str, str]
    interfaces: Mapping[str, Interface]
    published: Mapping[str, Mapping[str, tuple[object, ...]]]
    dtype: str


def load(checkpoint: Checkpoint, task: str, folder: Path, scratch: Path) -> Original:
    """Load the model of ``checkpoint`` to compare ``folder`` with it.

    Args:
        checkpoint: what was read.
        task: for which the folder was exported.
        folder: the ONNX files.
        scratch: a folder of our own that outlives what is returned.

    Raises:
        FolderInvalidError: a file that the task needs is missing.
        ModelExportError: the model cannot be loaded.
    """
    (prepared_folder := scratch / "prepared").mkdir()
    prepared = bridge.prepare(checkpoint, prepared_folder)
    loaded = load_model(prepared, checkpoint, task, torch.float32)
    settings = CacheSettings(loaded.model)
    makers = preprocessors.load(prepared.folder)
    variant = "split" if (folder / "vision_encoder.onnx").is_file() else None  # SAM as optimum-cli exports it
    plans = plan(loaded.model, task, list(makers), variant)
    stems = {graph.name: _stem(folder, graph.name) for graph in plans}
    published: dict[str, dict[str, tuple[object, ...]]] = {}
    interfaces = {}
    for name, stem in stems.items():
        model = ir.load(folder / f"{stem}.onnx").graph
        published[stem] = {str(value.name): tuple(value.shape or ()) for value in model.inputs}
        outputs = [str(value.name) for value in model.outputs]
        if name == DECODER_WITH_PAST:  # in a merged decoder its branch returns no encoder keys and values
            outputs = [output for output in outputs if ".encoder." not in output]
        interfaces[name] = Interface(tuple(published[stem]), tuple(outputs))
    return Original(
        model=loaded.model,
        settings=settings,
        hierarchy=Hierarchy(loaded.model),
        preprocessors=makers,
        plans=tuple(plans),
        stems=stems,
        interfaces=interfaces,
        published=published,
        dtype="float32",
    )


def _stem(folder: Path, name: str) -> str:
    """The file that holds the graph ``name``: the merged decoder where there is one, as Optimum prefers it."""
    stems = [DECODER_MERGED, name] if name in (DECODER, DECODER_WITH_PAST) else [name]
    for stem in stems:
        if (folder / f"{stem}.onnx").is_file():
            return stem
    raise FolderInvalidError(f"{name}.onnx is missing in {folder}; the task needs it.")
