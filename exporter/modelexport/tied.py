"""Store a weight once that the graph reads in two orientations: as an embedding table, and transposed as the output
layer.

Optimum does this for ``Gather`` and ``MatMul`` (``_deduplicate_gather_matmul`` in
``optimum/onnx/transformations_utils.py``, optimum 2.1.0), and only where accelerate is installed. Torch's constant
folding has made two initialisers of the one tensor; here they are still two views of the same memory, so nothing has
to be compared.
"""

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from modelexport.htp.tags import Tag


class ShareTransposedWeights(ir.passes.InPlacePass):
    """Replace an initialiser that is the transpose of another by a ``Transpose`` of that one.

    1. Both are matrices over the same memory, one with the strides of the other reversed.
    2. The ``Transpose`` stands in the graph before the first node that reads it and carries that node's own tag: a
       linear layer transposes its weight before it multiplies, which torch folded and is restored here. ONNX Runtime
       fuses it into the multiplication, or folds it when it loads the file.
    3. Readers inside an ``If`` or ``Loop`` body are left alone, and so is their initialiser.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        upright: dict[tuple[object, ...], ir.Value] = {}
        for value in graph.initializers.values():
            tensor = _matrix(value)
            if tensor is not None and tensor.is_contiguous():
                upright.setdefault(_memory(tensor), value)
        modified = False
        for value in tuple(graph.initializers.values()):
            tensor = _matrix(value)
            if tensor is None or tensor.is_contiguous():
                continue
            original = upright.get(_memory(tensor.t()))
            readers = [use.node for use in value.uses()]
            if original is None or not readers or any(node.graph is not graph for node in readers):
                continue
            self._transpose(graph, original, value, set(readers))
            modified = True
        return ir.passes.PassResult(model, modified)

    @staticmethod
    def _transpose(graph: ir.Graph, original: ir.Value, value: ir.Value, readers: set[ir.Node]) -> None:
        first = next(node for node in graph if node in readers)
        node = ir.Node("", "Transpose", [original], [ir.AttrInt64s("perm", [1, 0])])
        node.outputs[0].name = f"{value.name}.of.{original.name}"
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        tag = Tag.read(first)
        if tag is not None:
            tag.write(node)
        graph.insert_before(first, node)
        value.replace_all_uses_with(node.outputs[0])
        del graph.initializers[str(value.name)]


def _matrix(value: ir.Value) -> torch.Tensor | None:
    tensor = value.const_value.raw if isinstance(value.const_value, TorchTensor) else None
    return tensor if tensor is not None and tensor.dim() == 2 and min(tensor.shape) > 1 else None


def _memory(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
