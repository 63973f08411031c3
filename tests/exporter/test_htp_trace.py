"""Which call a node is tagged with, on the models that defeat reading the exporter's names."""

from collections import Counter

import onnx_ir as ir
import pytest

from modelexport.htp.tags import Origin, Tag, all_nodes, owned_nodes
from tests.exporter.htp_models import MODELS, exported


def tags(name: str, stem: str | None = None) -> list[tuple[ir.Node, Tag]]:
    files = exported(name).files
    model = ir.load(files[stem] if stem else next(iter(files.values())))
    return [(node, tag) for node in all_nodes(model) if (tag := Tag.read(node)) is not None]


@pytest.mark.parametrize("name", MODELS)
def test_every_node_has_a_tag_and_almost_all_are_traced(name: str) -> None:
    for file in exported(name).files.values():
        nodes = list(all_nodes(ir.load(file)))
        found = [Tag.read(node) for node in nodes]
        assert None not in found
        assert sum(tag is not None and tag.origin is Origin.TRACED for tag in found) / len(nodes) >= 0.99


@pytest.mark.parametrize("name", MODELS)
def test_a_stack_ends_in_the_module_of_the_node_and_its_indexes_grow(name: str) -> None:
    for file in exported(name).files.values():
        for node in all_nodes(ir.load(file)):
            tag = Tag.read(node)
            assert tag is not None
            assert tag.stack[-1].path == tag.module
            indexes = [frame.index for frame in tag.stack]
            assert indexes == sorted(set(indexes))


def test_albert_calls_one_layer_twice_and_the_calls_stay_apart() -> None:
    path = "encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    calls = Counter(tag.stack[-1] for _, tag in tags("albert") if tag.module == path)
    assert len(calls) == 2
    assert len(set(calls.values())) == 1


def test_deberta_keeps_the_modules_of_scripted_functions() -> None:
    assert {tag.origin for _, tag in tags("deberta-v2")} == {Origin.TRACED}
    owners = [(node, owner) for node, owner in owned_nodes(exported("deberta-v2").load()) if owner is not None]
    for node, owner in owners:  # bodies of If
        mine, theirs = Tag.read(node), Tag.read(owner)
        assert mine is not None
        assert theirs is not None
        assert mine.module == theirs.module


def test_resnet_calls_its_sequential() -> None:
    paths = [[frame.path for frame in tag.stack] for _, tag in tags("resnet")]
    inside = next(path for path in paths if path[-1] == "resnet.encoder.stages.0.layers.0.layer.0.convolution")
    assert inside[-3:] == [
        "resnet.encoder.stages.0.layers.0.layer",
        "resnet.encoder.stages.0.layers.0.layer.0",
        "resnet.encoder.stages.0.layers.0.layer.0.convolution",
    ]


def test_resnet_keeps_convolution_and_normalisation_apart() -> None:
    kinds = {(node.op_type, tag.module.rpartition(".")[2]) for node, tag in tags("resnet")}
    assert ("Conv", "convolution") in kinds
    assert ("BatchNormalization", "normalization") in kinds


def test_wav2vec2_computes_its_normed_weight_in_the_parametrisation() -> None:
    modules = {tag.module for _, tag in tags("wav2vec2")}
    assert any("pos_conv_embed.conv" in module for module in modules)
    assert {tag.origin for _, tag in tags("wav2vec2")} == {Origin.TRACED}


def test_t5_names_the_shared_embedding_as_each_part_holds_it() -> None:
    assert any(node.op_type == "Gather" and tag.module == "encoder.embed_tokens" for node, tag in tags("t5"))
    decoder = tags("t5", "decoder_model_merged")
    assert any(node.op_type == "Gather" and tag.module == "decoder.embed_tokens" for node, tag in decoder)


def test_bart_tags_each_of_its_attentions_by_path() -> None:
    found = {tag.hierarchy for _, tag in tags("bart", "decoder_model_merged") if "BartAttention" in tag.hierarchy}
    assert {tag.rpartition("/")[2] for tag in found} == {"BartAttention.self_attn", "BartAttention.encoder_attn"}


def test_slice_assignments_are_traced() -> None:
    assert any(node.op_type == "ScatterND" for node, _ in tags("swin"))
    assert {tag.origin for _, tag in tags("swin")} == {Origin.TRACED}


def test_nodes_in_both_branches_of_a_merged_decoder_are_tagged() -> None:
    model = ir.load(exported("t5").files["decoder_model_merged"])
    inside = [node for node, owner in owned_nodes(model) if owner is not None]
    assert len(inside) > 100
    assert all(Tag.read(node) for node in inside)
