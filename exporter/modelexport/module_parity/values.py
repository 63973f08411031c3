"""Values inside an ONNX graph: run it with any of them as outputs.

The weights are not copied for it: ONNX Runtime gets the graph alone as bytes, and maps the weights from a file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from modelexport import temporary, weights

Item = TypeVar("Item")


@dataclass(frozen=True)
class Probe:
    """A graph that can be run with any of its values as outputs.

    Attributes:
        skeleton: the graph; its large initialisers lie in files in ``folder``.
    """

    skeleton: onnx.ModelProto
    folder: Path

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The named values, computed from ``feeds``; ``bfloat16`` as ``float32``.

        The graph is run as it stands in the file, without ONNX Runtime's optimiser: what it fuses has no values inside.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.skeleton)
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.folder))
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        wanted = {item.name for item in session.get_inputs()}
        values = session.run_with_ort_values(
            list(names),
            {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items() if name in wanted},
        )
        return {name: _array(value) for name, value in zip(names, values, strict=True)}


@contextmanager
def probe(model: ir.Model, file: Path) -> Iterator[Probe]:
    """Prepare ``model``, which was read from ``file`` and may have been changed since, for any number of runs.

    Weights that lie in the ``.onnx`` file itself are written once to a temporary folder.
    """
    embedded = any(
        value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > 1024
        for value in model.graph.initializers.values()
    )
    if not embedded:
        yield Probe(ir.to_proto(model), file.parent)
        return
    with temporary.folder() as scratch:
        weights.write(model, scratch / "model.onnx", limit=0)
        yield Probe(onnx.load(scratch / "model.onnx", load_external_data=False), scratch)


def batches(sizes: Iterable[tuple[Item, int]], limit: int) -> Iterator[list[Item]]:
    """Group items, given with their bytes, so that each group stays below ``limit`` bytes or holds one item."""
    group: list[Item] = []
    total = 0
    for item, size in sizes:
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group


def _array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.element_type() == onnx.TensorProto.BFLOAT16:  # numpy has no such type
        return torch.from_dlpack(value).float().numpy()
    return value.numpy()
