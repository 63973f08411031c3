"""The tags as text on nodes."""

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelexport.htp.tags import CALL, ORIGIN, Frame, Origin, Stack, Tag, format_stack, parse_stack

NAMES = st.text(st.characters(exclude_characters=".", exclude_categories=("Cs",)), min_size=1, max_size=6)
PATHS = st.lists(NAMES, max_size=4).map(".".join)
FRAMES = st.builds(Frame, PATHS, st.integers(0, 10**6))


@given(st.lists(FRAMES, min_size=1, max_size=6).map(tuple))
def test_every_stack_survives_being_written(stack: Stack) -> None:
    assert parse_stack(format_stack(stack)) == stack


def test_paths_are_relative_to_the_caller() -> None:
    stack = (Frame("", 0), Frame("encoder", 7), Frame("encoder.layer.0", 8))
    assert format_stack(stack) == ":0/encoder:7/layer.0:8"


def test_a_module_outside_its_caller_is_written_whole() -> None:
    stack = (Frame("encoder", 0), Frame("shared", 1), Frame("shared.inner", 2))
    assert format_stack(stack) == "encoder:0/=shared:1/inner:2"


@pytest.mark.parametrize("text", ["", "encoder", "encoder:x", "a:1/b"])
def test_other_text_is_no_stack(text: str) -> None:
    assert parse_stack(text) == ()


def test_a_tag_survives_the_node() -> None:
    node = ir.Node("", "Relu", [ir.Value(name="x")])
    assert Tag.read(node) is None
    tag = Tag("/A/B.0", "b.0", Origin.TRACED, (Frame("", 0), Frame("b.0", 3)))
    tag.write(node)
    assert Tag.read(node) == tag


def test_half_a_tag_is_none() -> None:
    node = ir.Node("", "Relu", [ir.Value(name="x")])
    Tag("/A", "", Origin.TRACED, (Frame("", 0),)).write(node)
    node.metadata_props[ORIGIN] = "guessed"
    assert Tag.read(node) is None


def test_a_file_that_lost_its_calls_still_has_its_modules() -> None:
    node = ir.Node("", "Relu", [ir.Value(name="x")])
    Tag("/A", "", Origin.TRACED, (Frame("", 0),)).write(node)
    del node.metadata_props[CALL]
    tag = Tag.read(node)
    assert tag is not None
    assert tag.stack == ()
