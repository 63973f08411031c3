"""Per-module parity passes on what is right; every kind of wrong tag or number makes it fail at the right place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelexport import module_parity, weights
from modelexport.check_folder import check_folder
from modelexport.contract.errors import ErrorCode, NoTagsError
from modelexport.contract.manifest import MANIFEST_NAME
from modelexport.htp.branches import Branch
from modelexport.htp.calls import CallTree
from modelexport.htp.tags import CALL, Tag, all_nodes
from modelexport.module_parity import ModuleParity, comparison, difference
from modelexport.module_parity.reference import record
from tests.exporter.htp_models import MODELS, exported, module_parities


@pytest.mark.parametrize("name", MODELS)
def test_every_compared_module_agrees_and_nearly_all_are_compared(name: str, tmp_path: Path) -> None:
    for result in module_parities(name, tmp_path):
        assert result.first_problem is None
        assert result.share >= 0.9
        assert len(result.calls) > 15


# --- wrong tags ------------------------------------------------------------------------------------------------------

Change = Callable[[ir.Model], None]


def judged(change: Change, folder: Path, name: str = "bert") -> ModuleParity:
    """Per-module parity of a good graph after ``change``."""
    subject = exported(name)
    model = subject.load()
    change(model)
    weights.write(model, file := folder / "changed.onnx")
    plan, case = subject.plans["model"], subject.cases["model"][-1]
    (calls := folder / "calls").mkdir()
    recording = record(plan, case, subject.hierarchy, calls)
    return module_parity.compare(Branch("", ir.load(file)), file, case.name, recording, 1e-4)


def nodes_of(model: ir.Model, module: str) -> list[ir.Node]:
    return [node for node in all_nodes(model) if (tag := Tag.read(node)) and tag.module == module]


def tag_of(model: ir.Model, module: str) -> Tag:
    tag = Tag.read(nodes_of(model, module)[0])
    assert tag is not None
    return tag


def retag(node: ir.Node, tag: Tag) -> None:
    tag.write(node)


SELF = "encoder.layer.0.attention.self"


def swap_query_and_key(model: ir.Model) -> None:
    query, key = nodes_of(model, f"{SELF}.query"), nodes_of(model, f"{SELF}.key")
    query_tag, key_tag = tag_of(model, f"{SELF}.query"), tag_of(model, f"{SELF}.key")
    for node in query:
        retag(node, key_tag)
    for node in key:
        retag(node, query_tag)


def first_node_to(module: str, other: str) -> Change:
    def change(model: ir.Model) -> None:
        retag(nodes_of(model, module)[0], tag_of(model, other))

    return change


def last_node_to(module: str, other: str) -> Change:
    def change(model: ir.Model) -> None:
        retag(nodes_of(model, module)[-1], tag_of(model, other))

    return change


@pytest.mark.parametrize(
    "change",
    [
        swap_query_and_key,
        last_node_to(f"{SELF}.query", f"{SELF}.key"),  # a sibling
        first_node_to(f"{SELF}.query", f"{SELF}.key"),
        first_node_to(f"{SELF}.key", f"{SELF}.query"),
        last_node_to(f"{SELF}.key", f"{SELF}.query"),
        last_node_to(f"{SELF}.value", ""),  # a fallback to the root
        first_node_to(f"{SELF}.value", ""),
        first_node_to("encoder.layer.1.output.dense", ""),
        last_node_to(f"{SELF}.query", SELF),  # a fallback to the parent
        first_node_to(f"{SELF}.query", SELF),
        first_node_to("encoder.layer.0.output.dense", "encoder.layer.1.output.dense"),  # another layer
        first_node_to("encoder.layer.1.output.dense", "encoder.layer.0.output.dense"),
        last_node_to("encoder.layer.1.intermediate.dense", "encoder.layer.0.intermediate.dense"),
        first_node_to("encoder.layer.0.intermediate.intermediate_act_fn", "encoder.layer.0.intermediate.dense"),
        last_node_to("embeddings.LayerNorm", "embeddings"),
    ],
)
def test_a_wrong_tag_is_caught(change: Change, tmp_path: Path) -> None:
    assert judged(change, tmp_path).first_problem is not None


def test_every_single_node_that_falls_back_to_the_root_is_caught(tmp_path: Path) -> None:
    """One node at a time, of every leaf of a layer: it then reads and hands on what PyTorch passed nowhere."""
    model = exported("bert").load()
    leaves = [
        (number, node)
        for number, node in enumerate(all_nodes(model))
        if (tag := Tag.read(node)) and tag.module.startswith("encoder.layer.0.") and tag.module != SELF
    ]
    for number, _ in leaves:

        def change(copy: ir.Model, number: int = number) -> None:
            retag(list(all_nodes(copy))[number], tag_of(copy, ""))

        (folder := tmp_path / str(number)).mkdir()
        assert judged(change, folder).first_problem is not None, number


def test_the_two_calls_of_a_repeated_layer_are_told_apart(tmp_path: Path) -> None:
    query = "encoder.albert_layer_groups.0.albert_layers.0.attention.query"

    def swap(model: ir.Model) -> None:
        nodes = nodes_of(model, query)
        tags = [tag for tag in map(Tag.read, nodes) if tag]
        first, second = dict.fromkeys(tags)
        for node, tag in zip(nodes, tags, strict=True):
            retag(node, second if tag == first else first)

    problem = judged(swap, tmp_path, "albert").first_problem
    assert problem is not None
    assert problem.frame.path.startswith(query)


def test_a_module_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    def change(model: ir.Model) -> None:
        tag = tag_of(model, f"{SELF}.query")
        wrong = replace(tag.stack[-1], path=f"{SELF}.questions")
        for node in nodes_of(model, f"{SELF}.query"):
            retag(node, replace(tag, module=wrong.path, stack=(*tag.stack[:-1], wrong)))

    problem = judged(change, tmp_path).first_problem
    assert problem is not None
    assert (problem.frame.path, problem.problem) == (f"{SELF}.questions", "is no module of the PyTorch model")


def test_tags_that_cannot_have_run_are_found_without_running_anything() -> None:
    model = exported("bert").load()
    assert CallTree(model.graph).disorder() is None
    first_node_to("encoder.layer.0.output.dense", "encoder.layer.1.output.dense")(model)
    found = CallTree(model.graph).disorder()
    assert found is not None


# --- wrong numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    ["embeddings.word_embeddings", f"{SELF}.key", "encoder.layer.0.output.LayerNorm", "encoder.layer.1.output.dense"],
)
def test_a_wrong_weight_is_found_in_the_very_module(module: str, tmp_path: Path) -> None:
    def change(model: ir.Model) -> None:
        value = next(
            value for node in nodes_of(model, module) for value in node.inputs if value and value.is_initializer()
        )
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)

    result = judged(change, tmp_path)
    assert result.first_problem is not None
    assert result.first_problem.frame.path == module
    assert "returned something else" in str(result.first_problem.problem)


def test_a_difference_counts_relative_to_large_values_and_masks() -> None:
    big = np.array([1000.0, 0.0], np.float32)
    assert difference(big + np.float32(0.01), big)[1] == pytest.approx(1e-5, rel=0.05)
    lowest = np.array([np.finfo(np.float32).min, 1.0], np.float32)
    assert difference(lowest, lowest) == (0.0, 0.0)
    assert difference(np.array([0.0, 1.0], np.float32), lowest)[1] == pytest.approx(1.0)
    infinite = np.array([-np.inf, np.nan])
    assert difference(infinite, infinite) == (0.0, 0.0)
    assert difference(np.array([0.0, 0.0]), infinite)[1] == np.inf
    assert difference(np.array([1, 2]), np.array([1, 3])) == (1.0, np.inf)


# --- a router --------------------------------------------------------------------------------------------------------

GATE = "model.layers.1.mlp.gate"


def leaving(model: ir.Model, module: str) -> list[ir.Value]:
    """The indices that a router returns, and their weights."""
    return next(call.leaving for call in CallTree(model.graph).finished() if call.frame.path == module)


def choice(model: ir.Model) -> ir.Node:
    """The ``TopK`` whose indices leave the router."""
    (node,) = (n for value in leaving(model, GATE) if (n := value.producer()) and n.op_type == "TopK")
    return node


def choose_the_worst(model: ir.Model) -> None:
    choice(model).attributes["largest"] = ir.AttrInt64("largest", 0)


def put_the_weights_into_another_order(model: ir.Model) -> None:
    (weights,) = (value for value in leaving(model, GATE) if value.producer() is not choice(model))
    add_behind(model, weights, "Gather", ir.tensor(np.array([2, 0, 1])), axis=-1)


def name_another_expert(model: ir.Model) -> None:
    indices = choice(model).outputs[1]
    add_behind(model, indices, "Mod", ir.tensor(np.array(11)))


def add_behind(model: ir.Model, value: ir.Value, op: str, constant: ir.TensorProtocol, **attributes: int) -> None:
    """Let everybody outside the router who reads ``value`` read ``op`` of it; the new node belongs to the router."""
    readers = [
        (node, index)
        for node, index in value.uses()
        if (tag := Tag.read(node)) is not None and not tag.module.startswith(GATE)
    ]
    assert readers
    second = ir.Value(name=f"{value.name}_second", const_value=constant)
    model.graph.register_initializer(second)
    node = ir.node(op, [value, second], attributes=dict(attributes), name=f"{value.name}_wrong")
    node.outputs[0].name = f"{value.name}_wrong"
    retag(node, tag_of(model, GATE))
    model.graph.insert_after(value.producer(), node)
    for reader, index in readers:
        reader.replace_input_with(index, node.outputs[0])


def test_a_router_names_its_choice_in_another_order_than_pytorch(tmp_path: Path) -> None:
    """Without the rule that allows it, a right router would be found wrong."""
    assert judged(lambda _: None, tmp_path, "deepseek_v3").first_problem is None

    def sort(model: ir.Model) -> None:
        choice(model).attributes["sorted"] = ir.AttrInt64("sorted", 1)

    (folder := tmp_path / "sorted").mkdir()
    problem = judged(sort, folder, "deepseek_v3").first_problem
    assert problem is not None
    assert problem.frame.path == GATE


@pytest.mark.parametrize("change", [choose_the_worst, put_the_weights_into_another_order, name_another_expert])
def test_a_wrong_router_is_caught(change: Change, tmp_path: Path) -> None:
    problem = judged(change, tmp_path, "deepseek_v3").first_problem
    assert problem is not None
    assert problem.frame.path == GATE


def test_an_order_is_found_only_where_it_is_the_only_difference() -> None:
    got, want = np.array([[3, 1, 2], [0, 5, 4]]), np.array([[1, 2, 3], [4, 0, 5]])
    order = comparison._order(got, want)
    assert order is not None
    assert np.array_equal(np.take_along_axis(got, order, -1), want)
    assert comparison._order(got, np.array([[1, 2, 3], [4, 0, 6]])) is None  # another entry
    assert comparison._order(np.array([[1, 1]]), np.array([[1, 1]])) is None  # one entry twice


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_check_of_a_folder_compares_modules(bert: Path, exported_bert: Path) -> None:
    findings = check_folder(exported_bert, task=None, against=str(bert), atol=None, modules=True)
    assert findings.problem is None
    assert findings.compared is not None
    (graph,) = json.loads(json.dumps(findings.to_dict()))["modules"]
    assert graph["share"] == 1.0


def test_the_check_points_at_the_first_module_that_diverges(bert: Path, exported_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(exported_bert, folder)
    (folder / MANIFEST_NAME).unlink()
    model = ir.load(folder / "model.onnx")
    bias = model.graph.initializers["encoder.layer.1.attention.output.dense.bias"]
    assert bias.const_value is not None
    bias.const_value = ir.Tensor(bias.const_value.numpy() + np.float32(0.1), name=bias.name)
    weights.write(model, folder / "model.onnx")
    problem = check_folder(folder, task=None, against=str(bert), atol=None, modules=True).problem
    assert problem is not None
    assert problem.code is ErrorCode.PARITY_FAILED
    assert "encoder.layer.1.attention.output.dense (Linear)" in problem.message


def test_a_file_without_calls_is_refused(bert: Path, exported_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(exported_bert, folder)
    (folder / MANIFEST_NAME).unlink()
    proto = onnx.load(folder / "model.onnx")
    for node in proto.graph.node:
        kept = [item for item in node.metadata_props if item.key != CALL]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(proto, folder / "model.onnx")
    with pytest.raises(NoTagsError, match="not which call"):
        check_folder(folder, task=None, against=str(bert), atol=None, modules=True)
