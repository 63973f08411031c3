"""Several traces in one file: the merged decoder, an ``If`` that chooses between a decoder with and one without cache.

Each branch was traced by itself and counts its module calls by itself, so whoever looks at calls looks at one branch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from modelexport.htp.calls import reads


@dataclass(frozen=True)
class Branch:
    """One trace as a graph of its own.

    Attributes:
        name: ``then_branch`` or ``else_branch``; ``""`` where the file holds one trace.
        model: the graph without the ``If``; it shares no node with the model that it was taken from.
        chosen_by: the input that chose the branch, which the graph no longer has; None where there was no choice.
    """

    name: str
    model: ir.Model
    chosen_by: str | None = None


def branches(model: ir.Model) -> Iterator[Branch]:
    """The traces in ``model``, one after the other.

    1. A model whose only node is an ``If`` on a graph input yields its branches, ``then`` first; any other itself.
    2. Outputs of a branch that are constants, put there so that both branches return the same, are left out, with
       their nodes.
    """
    choice = _choice(model.graph)
    if choice is None:
        yield Branch("", model)
        return
    for name in ("then_branch", "else_branch"):
        copy = model.clone()
        node = copy.graph[0]
        body = node.attributes[name].as_graph()
        copy.graph.remove(node)
        outputs = [value for value in body.outputs if not _is_constant(value)]
        names = [str(inner.name) for inner in copy.graph.outputs]
        kept = [outer for outer, inner in zip(names, body.outputs, strict=True) if not _is_constant(inner)]
        nodes = [inner for inner in body if inner.op_type != "Constant" or inner.outputs[0].uses()]
        body.outputs.clear()
        body.remove(list(body))
        copy.graph.outputs.clear()
        copy.graph.extend(nodes)
        for value, kept_name in zip(outputs, kept, strict=True):
            value.name = kept_name
            copy.graph.outputs.append(value)
        read = {value for inner in nodes for value in reads(inner)}
        inputs = [value for value in copy.graph.inputs if value in read]
        copy.graph.inputs.clear()
        copy.graph.inputs.extend(inputs)
        for initializer in tuple(copy.graph.initializers.values()):
            if initializer not in read:
                del copy.graph.initializers[str(initializer.name)]
        yield Branch(name, copy, choice)


def _choice(graph: ir.Graph) -> str | None:
    """Name of the input that the graph's only node, an ``If``, branches on."""
    if len(graph) != 1 or graph[0].op_type != "If":
        return None
    condition = graph[0].inputs[0]
    return condition.name if condition is not None and condition.is_graph_input() else None


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"
