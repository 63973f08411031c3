"""Tags through rewrites, and tags from neighbours."""

import onnx_ir as ir

from modelexport import graph
from modelexport.htp.project import InferTags
from modelexport.htp.tags import CALL, HIERARCHY_TAG, MODULE, ORIGIN, Frame, Origin, Tag, all_nodes
from tests.exporter.htp_models import exported

ROOT, LEFT, RIGHT = (
    Tag("/M", "", Origin.TRACED, (Frame("", 0),)),
    Tag("/M/A", "a", Origin.TRACED, (Frame("", 0), Frame("a", 1))),
    Tag("/M/B", "b", Origin.TRACED, (Frame("", 0), Frame("b", 2))),
)


def chain(*tags: Tag | None) -> tuple[ir.Model, list[ir.Node]]:
    """A chain of Relu nodes with these tags."""
    value = start = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    nodes = []
    for tag in tags:
        node = ir.Node("", "Relu", [value])
        if tag is not None:
            tag.write(node)
        nodes.append(node)
        value = node.outputs[0]
    value.name = "y"
    value.type, value.shape = start.type, start.shape
    made = ir.Graph([start], [value], nodes=nodes, opset_imports={"": 18})
    return ir.Model(made, ir_version=10), nodes


def test_a_node_takes_the_tag_of_its_producer() -> None:
    model, nodes = chain(LEFT, None, RIGHT)
    InferTags()(model)
    tag = Tag.read(nodes[1])
    assert tag is not None
    assert (tag.module, tag.stack, tag.origin) == ("a", LEFT.stack, Origin.INFERRED)


def test_a_first_node_takes_the_tag_of_its_consumer() -> None:
    model, nodes = chain(None, None, RIGHT)
    InferTags()(model)
    assert [tag.module for node in nodes if (tag := Tag.read(node))] == ["b", "b", "b"]


def test_the_producer_that_ran_last_decides() -> None:
    model, nodes = chain(LEFT, RIGHT)
    both = ir.Node("", "Add", [nodes[0].outputs[0], nodes[1].outputs[0]])
    model.graph.append(both)
    InferTags()(model)
    tag = Tag.read(both)
    assert tag is not None
    assert tag.module == "b"


def test_nothing_falls_back_to_the_root() -> None:
    model, nodes = chain(None, None)
    ROOT.write(island := ir.Node("", "Relu", [ir.Value(name="z")]))
    model.graph.append(island)
    InferTags()(model)
    assert [Tag.read(node) for node in nodes] == [None, None]


def test_losing_some_tags_costs_nothing_but_their_origin() -> None:
    model = exported("bert").load()
    before = {node.name: Tag.read(node) for node in all_nodes(model)}
    lost = [node for number, node in enumerate(all_nodes(model)) if number % 10 == 5]
    for node in lost:
        for key in (HIERARCHY_TAG, MODULE, ORIGIN, CALL):
            del node.metadata_props[key]
    InferTags()(model)
    assert graph.untagged(model) == []
    for node in all_nodes(model):
        tag = Tag.read(node)
        assert tag is not None
        assert tag.origin is (Origin.INFERRED if node in lost else Origin.TRACED)
        assert node in lost or tag == before[node.name]


def test_tags_survive_cleaning_a_graph_again() -> None:
    model = exported("deberta-v2").load()
    count = len(list(all_nodes(model)))
    graph.clean(model)
    assert len(list(all_nodes(model))) == count
    assert graph.untagged(model) == []


def test_tags_survive_a_constant_that_becomes_an_initialiser_and_an_identity_that_goes() -> None:
    model, nodes = chain(LEFT, RIGHT)
    identity = ir.Node("", "Identity", [nodes[0].outputs[0]])
    LEFT.write(identity)
    model.graph.insert_before(nodes[1], identity)
    nodes[1].replace_input_with(0, identity.outputs[0])
    graph.clean(model)
    assert [tag.module for node in all_nodes(model) if (tag := Tag.read(node))] == ["a", "b"]
