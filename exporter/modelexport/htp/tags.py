"""The tags as they stand in a file: three keys in the ``metadata_props`` of every ONNX node.

Reading needs onnx-ir alone, no PyTorch: this is what ``modelexport inspect`` uses on any file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir

HIERARCHY_TAG = "modelexport.hierarchy_tag"
MODULE = "modelexport.module"
ORIGIN = "modelexport.origin"
CALL = "modelexport.call"


class Origin(StrEnum):
    """How the module of a node is known."""

    TRACED = "traced"
    INFERRED = "inferred"


@dataclass(frozen=True)
class Tag:
    """The module call that a node belongs to.

    Attributes:
        hierarchy: class names from the root, see :mod:`modelexport.htp.hierarchy`.
        module: dotted path of the innermost module, ``""`` for the root.
        origin: how we know.
        call: index of the module call in the trace; two calls of one module have the same path and different indexes.
    """

    hierarchy: str
    module: str
    origin: Origin
    call: int

    def write(self, node: ir.Node) -> None:
        """Set the keys on ``node``."""
        node.metadata_props[HIERARCHY_TAG] = self.hierarchy
        node.metadata_props[MODULE] = self.module
        node.metadata_props[ORIGIN] = self.origin.value
        node.metadata_props[CALL] = str(self.call)

    @classmethod
    def read(cls, node: ir.Node) -> "Tag | None":
        """The tag of ``node``; None where it has none, or not all three keys."""
        props = node.metadata_props
        if not {HIERARCHY_TAG, MODULE, ORIGIN} <= props.keys() or props[ORIGIN] not in tuple(Origin):
            return None
        return cls(props[HIERARCHY_TAG], props[MODULE], Origin(props[ORIGIN]), int(props.get(CALL, -1)))


def owned_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node | None]]:
    """Every node of the model in execution order, with the ``If`` or ``Loop`` node in whose body it stands, if any.

    Nodes of local functions are included.
    """

    def walk(nodes: Iterable[ir.Node], owner: ir.Node | None) -> Iterator[tuple[ir.Node, ir.Node | None]]:
        for node in nodes:
            yield node, owner
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    yield from walk(attribute.as_graph(), node)
                elif attribute.type == ir.AttributeType.GRAPHS:
                    for graph in attribute.as_graphs():
                        yield from walk(graph, node)

    yield from walk(model.graph, None)
    for function in model.functions.values():
        yield from walk(function, None)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model, those in ``If`` and ``Loop`` bodies and in local functions included."""
    for node, _ in owned_nodes(model):
        yield node
