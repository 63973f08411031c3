"""The module tree and its tags."""

import pytest
import torch
from torch import nn

from modelexport.htp.hierarchy import Hierarchy
from tests.exporter.htp_models import MODELS, build


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(2, 2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.cross_attn = Attention()
        self.norm = nn.LayerNorm(2)


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.heads = nn.ModuleDict({"a": Attention(), "b": nn.Linear(2, 2)})
        self.stem = nn.Sequential(Attention(), nn.ReLU(), Attention())
        self.shared = nn.Linear(2, 2)
        self.layers[1].self_attn.extra = self.shared


def tag(path: str) -> str:
    return Hierarchy(Root()).infos[path].tag


def test_the_root_is_its_class() -> None:
    assert tag("") == "/Root"


def test_entries_of_lists_carry_their_index() -> None:
    assert tag("layers.1") == "/Root/Layer.1"
    assert tag("heads.a") == "/Root/Attention.a"


def test_lists_themselves_have_no_tag_for_nobody_calls_them() -> None:
    assert "layers" not in Hierarchy(Root()).infos


def test_siblings_of_one_class_carry_their_attribute() -> None:
    assert tag("layers.0.self_attn") == "/Root/Layer.0/Attention.self_attn"
    assert tag("layers.0.cross_attn") == "/Root/Layer.0/Attention.cross_attn"


def test_leaves_of_torch_have_the_tag_of_the_module_around_them() -> None:
    assert tag("layers.0.norm") == "/Root/Layer.0"
    assert tag("layers.0.self_attn.dense") == "/Root/Layer.0/Attention.self_attn"


def test_a_sequential_is_a_module_like_any_other() -> None:
    assert tag("stem") == "/Root/Sequential"
    assert tag("stem.0") == "/Root/Sequential/Attention.0"
    assert tag("stem.2") == "/Root/Sequential/Attention.2"


def test_a_shared_module_is_known_by_the_path_inside_its_caller() -> None:
    root = Root()
    hierarchy = Hierarchy(root)
    assert hierarchy.path_of(root.shared) == "layers.1.self_attn.extra"
    assert hierarchy.path_of(root.shared, "layers.1") == "layers.1.self_attn.extra"
    assert hierarchy.path_of(root.shared, "stem") == hierarchy.path_of(root.shared)


def test_a_stranger_has_no_path() -> None:
    assert Hierarchy(Root()).path_of(nn.Linear(1, 1)) is None


def test_bart_tells_its_attentions_apart() -> None:
    infos = Hierarchy(build("bart")[0]).infos
    layer = "/BartForConditionalGeneration/BartModel/BartDecoder/BartDecoderLayer.0"
    assert infos["model.decoder.layers.0.self_attn"].tag == f"{layer}/BartAttention.self_attn"
    assert infos["model.decoder.layers.0.encoder_attn"].tag == f"{layer}/BartAttention.encoder_attn"


@pytest.mark.parametrize("name", MODELS)
def test_no_two_modules_share_a_tag(name: str) -> None:
    model = build(name)[0]
    modules = dict(model.named_modules(remove_duplicate=False))
    tags: dict[str, torch.nn.Module] = {}
    for info in Hierarchy(model):
        module = modules[info.path]
        leaf = type(module).__module__.startswith("torch.nn") and not list(module.children())
        if not leaf:
            assert tags.setdefault(info.tag, module) is module, info
