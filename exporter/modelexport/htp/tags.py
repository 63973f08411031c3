"""The tags as they stand in a file: keys in the ``metadata_props`` of every ONNX node.

Reading needs onnx-ir alone, no PyTorch: this is what ``modelexport inspect`` uses on any file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote, unquote

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
class Frame:
    """One module call on a call stack.

    Attributes:
        path: dotted path of the module, ``""`` for the root.
        index: position among all module calls of the trace; two calls of one module have the same path and different
            indexes, and what is called later has the larger one.
    """

    path: str
    index: int


Stack = tuple[Frame, ...]
"""Module calls from the root call to the innermost one."""


@dataclass(frozen=True)
class Tag:
    """The module call that a node belongs to.

    Attributes:
        hierarchy: class names from the root, see :mod:`modelexport.htp.hierarchy`.
        module: dotted path of the innermost module, ``""`` for the root.
        origin: how we know.
        stack: the module calls that were running; empty in a file that lost the key.
    """

    hierarchy: str
    module: str
    origin: Origin
    stack: Stack

    def write(self, node: ir.Node) -> None:
        """Set the keys on ``node``."""
        node.metadata_props[HIERARCHY_TAG] = self.hierarchy
        node.metadata_props[MODULE] = self.module
        node.metadata_props[ORIGIN] = self.origin.value
        node.metadata_props[CALL] = format_stack(self.stack)

    @classmethod
    def read(cls, node: ir.Node) -> "Tag | None":
        """The tag of ``node``; None where it has none, or not all three keys."""
        props = node.metadata_props
        if not {HIERARCHY_TAG, MODULE, ORIGIN} <= props.keys() or props[ORIGIN] not in tuple(Origin):
            return None
        return cls(props[HIERARCHY_TAG], props[MODULE], Origin(props[ORIGIN]), parse_stack(props.get(CALL, "")))


@lru_cache(maxsize=1 << 16)
def format_stack(stack: Stack) -> str:
    """Write a stack as text, outermost call first: ``:0/encoder:7/layer.0:8/attention:9``.

    1. Each frame is ``<path>:<index>``, frames are separated by ``/``.
    2. A path is relative to that of the frame before; one that does not lie inside it is whole and starts with ``=``.
    3. Anything but letters, digits and ``_.-~`` in a path is percent-encoded (RFC 3986).
    """
    parts = []
    outer = ""
    for frame in stack:
        prefix = f"{outer}." if outer else ""
        inside = frame.path.startswith(prefix)
        name = quote(frame.path[len(prefix) :] if inside else frame.path, safe="")
        parts.append(f"{name if inside else '=' + name}:{frame.index}")
        outer = frame.path
    return "/".join(parts)


@lru_cache(maxsize=1 << 16)
def parse_stack(text: str) -> Stack:
    """What :func:`format_stack` wrote; empty for anything else."""
    frames: list[Frame] = []
    for part in text.split("/"):
        name, colon, index = part.rpartition(":")
        if not colon or not index.isdecimal():
            return ()
        path = unquote(name.removeprefix("="))
        outer = frames[-1].path if frames else ""
        frames.append(Frame(f"{outer}.{path}" if outer and not name.startswith("=") else path, int(index)))
    return tuple(frames)


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
