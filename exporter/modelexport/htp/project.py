"""Carry the recorded module calls onto the nodes of an ONNX graph.

:class:`ProjectCalls` runs on the graph as torch exported it, :class:`InferTags` after every rewrite that may have made
nodes of its own.
"""

from dataclasses import replace

import onnx_ir as ir

from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.tags import Origin, Tag, owned_nodes
from modelexport.htp.trace import Trace


class ProjectCalls(ir.passes.InPlacePass):
    """Tag each node with the module call in which its operation was executed.

    1. A node for which the trace knows the innermost call gets that call, origin ``traced``.
    2. A node inside the body of a node that is tagged so runs in the same call: it gets its owner's tag, ``traced``,
       unless rule 1 knows better.
    3. Every other node is left alone, for :class:`InferTags`.
    """

    def __init__(self, trace: Trace, hierarchy: Hierarchy) -> None:
        super().__init__()
        self._trace = trace
        self._hierarchy = hierarchy

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node, owner in owned_nodes(model):
            tag = self._tag_of(node, owner)
            if tag is not None:
                tag.write(node)
                modified = True
        return ir.passes.PassResult(model, modified)

    def _tag_of(self, node: ir.Node, owner: ir.Node | None) -> Tag | None:
        call = self._trace.call_of(node.name or "")
        if call is not None:
            return Tag(self._hierarchy.infos[call.path].tag, call.path, Origin.TRACED, self._trace.stack_of(call))
        return Tag.read(owner) if owner is not None else None


class InferTags(ir.passes.InPlacePass):
    """Tag every node that has no tag yet from its neighbours in the data flow, origin ``inferred``.

    1. The call of the producer that ran last among its inputs, if any input has a tagged producer.
    2. Else the call of its first tagged consumer.
    3. Else, inside a body, the call of the node that owns the body.
    4. The rules repeat until nothing changes. A node that is connected to no tagged node at all stays untagged, and
       the caller refuses the graph: the root is never a fallback.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        owners = dict(owned_nodes(model))
        order = {node: position for position, node in enumerate(owners)}
        pending = [node for node in order if Tag.read(node) is None]
        while pending:
            left = []
            for node in pending:
                neighbour = self._neighbour(node, order) or owners[node]
                tag = Tag.read(neighbour) if neighbour is not None else None
                if tag is None:
                    left.append(node)
                else:
                    replace(tag, origin=Origin.INFERRED).write(node)
            if len(left) == len(pending):
                break
            modified, pending = True, left
        return ir.passes.PassResult(model, modified)

    @staticmethod
    def _neighbour(node: ir.Node, order: dict[ir.Node, int]) -> ir.Node | None:
        producers = [value.producer() for value in node.inputs if value is not None]
        tagged = [producer for producer in producers if producer is not None and Tag.read(producer)]
        if tagged:
            return max(tagged, key=order.__getitem__)
        consumers = [consumer for value in node.outputs for consumer in value.consumers() if Tag.read(consumer)]
        if consumers:
            return min(consumers, key=order.__getitem__)
        return None
