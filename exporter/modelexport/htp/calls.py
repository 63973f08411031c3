"""The module calls of a graph, as its tags tell them: which nodes each owns, and which values cross its boundary.

Rules:

1. The nodes of a call are those tagged with it and those of every call below it.
2. A node with bodies (``If``, ``Loop``, ``Scan``) counts as one node, of the call that it is tagged with: what its
   bodies read from outside it reads, what they compute stays inside.
3. A value *leaves* a call if a node of the call produces it and a node that is not of the call reads it, or if the
   graph returns it.
4. A value *enters* a call if a node of the call reads it and no node of the call produces it; initialisers do not
   count.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import onnx_ir as ir

from modelexport.htp.tags import Frame, Stack, Tag


@dataclass
class Call:
    """One module call in a graph.

    Attributes:
        frame: path and index.
        parent: the call in which it ran; None for the outermost.
        own: nodes tagged with this very call.
        nodes: those and the nodes of all calls below, in graph order.
        entering, leaving: values that cross the boundary, in the order in which the graph computes them; those that
            leave an outermost call in the order in which the graph returns them.
        children: calls made by this one, in execution order.
    """

    frame: Frame
    parent: "Call | None"
    own: list[ir.Node] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)
    entering: list[ir.Value] = field(default_factory=list)
    leaving: list[ir.Value] = field(default_factory=list)
    children: list["Call"] = field(default_factory=list)

    def finished(self) -> Iterator["Call"]:
        """The calls below and this one, in the order in which they return."""
        for child in self.children:
            yield from child.finished()
        yield self


class CallTree:
    """All module calls of ``graph``, which must be tagged throughout.

    Attributes:
        roots: the outermost calls; one, unless somebody changed the tags.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._stacks: dict[ir.Node, Stack] = {}
        self._calls: dict[Frame, Call] = {}
        self.roots: list[Call] = []
        for node in graph:
            tag = Tag.read(node)
            self._stacks[node] = tag.stack if tag else ()
            self._add(node)
        for call in self._calls.values():
            call.children.sort(key=lambda child: child.frame.index)
        self._find_boundaries()

    def __len__(self) -> int:
        return len(self._calls)

    def finished(self) -> Iterator[Call]:
        """Every call in the order in which they return: inner ones before the one that made them."""
        for root in self.roots:
            yield from root.finished()

    def readers(self, value: ir.Value) -> list[Stack]:
        """The calls of the nodes that read ``value``."""
        return [self._stacks[node] for node in self._readers.get(value, ())]

    def disorder(self) -> tuple[Call, Call] | None:
        """Two calls that cannot both have run as tagged, or None: the tags describe a possible execution.

        PyTorch runs one module call at a time. So within every call, its own nodes and the calls that it makes, taken
        as wholes and in the order of their indexes, can be put into one order in which data flows forward only. A node
        with the tag of another place usually breaks that: data would leave a call before it has begun, or come back to
        it after it has returned.
        """
        flows: dict[Frame | None, dict[Frame | ir.Node, set[Frame | ir.Node]]] = {}
        for value, readers in self._readers.items():
            producer = value.producer()
            if producer is None:
                continue
            source = self._stacks[producer]
            for reader in readers:
                target = self._stacks[reader]
                depth = common_depth(source, target)
                before = source[depth] if len(source) > depth else producer
                after = target[depth] if len(target) > depth else reader
                flows.setdefault(source[depth - 1] if depth else None, {}).setdefault(after, set()).add(before)
        for parent, flow in flows.items():
            siblings = self._calls[parent].children if parent else self.roots
            for earlier, later in pairwise(siblings):
                flow.setdefault(later.frame, set()).add(earlier.frame)
            try:
                TopologicalSorter(flow).prepare()
            except CycleError as error:
                involved = [item if isinstance(item, Frame) else self._stacks[item][-1] for item in error.args[1]]
                distinct = list(dict.fromkeys(frame for frame in involved))
                return self._calls[distinct[0]], self._calls[distinct[-1]]
        return None

    def _add(self, node: ir.Node) -> None:
        parent: Call | None = None
        for frame in self._stacks[node]:
            call = self._calls.get(frame)
            if call is None:
                call = self._calls[frame] = Call(frame, parent)
                (parent.children if parent else self.roots).append(call)
            call.nodes.append(node)
            parent = call
        if parent is not None:
            parent.own.append(node)

    def _find_boundaries(self) -> None:
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        for node in self._graph:
            for value in dict.fromkeys(reads(node)):
                if not value.is_initializer():
                    self._readers.setdefault(value, []).append(node)
        returned = set(self._graph.outputs)
        for value in (*self._graph.inputs, *(value for node in self._graph for value in node.outputs)):
            producer = value.producer()
            source = self._stacks[producer] if producer is not None else ()
            shared = len(source)
            entered: dict[Frame, None] = {}
            for reader in self._readers.get(value, ()):
                target = self._stacks[reader]
                depth = common_depth(source, target)
                shared = min(shared, depth)
                entered.update(dict.fromkeys(target[depth:]))
            for frame in entered:
                self._calls[frame].entering.append(value)
            for frame in source[0 if value in returned else shared :]:
                self._calls[frame].leaving.append(value)
        for call in self.roots:
            position = {value: index for index, value in enumerate(self._graph.outputs)}
            call.leaving.sort(key=lambda value: position.get(value, -1))


def common_depth(one: Stack, other: Stack) -> int:
    """How many calls, from the root on, two stacks share."""
    depth = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        depth += 1
    return depth


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads: its inputs, and what its bodies read from the graph around them."""
    yield from (value for value in node.inputs if value is not None)
    bodies = list(_bodies(node))
    if bodies:
        inside = set(_defined(bodies))
        for body in bodies:
            for inner in ir.traversal.RecursiveGraphIterator(body):
                yield from (value for value in inner.inputs if value is not None and value not in inside)
            yield from (value for value in body.outputs if value not in inside)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _defined(bodies: Iterable[ir.Graph]) -> Iterator[ir.Value]:
    for body in bodies:
        yield from body.inputs
        yield from body.initializers.values()
        for node in body:
            yield from node.outputs
            yield from _defined(_bodies(node))
