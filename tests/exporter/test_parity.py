"""The gate itself: what counts as a difference, and what a failure says."""

from dataclasses import asdict

import numpy as np
import pytest

from modelexport.contract.errors import ParityFailedError
from modelexport.contract.manifest import ParityResult
from modelexport.parity.numbers import ReferenceFile, Sample, Tolerance, compare, difference, require, run, tolerance


def test_equal_infinities_and_nans_are_no_difference() -> None:
    masked = np.array([1.0, -np.inf, np.nan], np.float32)
    assert difference(masked, masked.copy()) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_infinitely_far_off(wrong: float) -> None:
    assert difference(np.array([wrong, 2.0]), np.array([1.0, 2.0]))[0] == np.inf


def test_agreeing_on_nothing_but_nan_proves_nothing() -> None:
    nothing = np.full((2, 3), np.nan, np.float32)
    assert difference(nothing, nothing.copy())[0] == np.inf


def test_another_shape_is_infinitely_far_off_even_where_it_would_broadcast() -> None:
    assert difference(np.zeros((1, 3)), np.zeros((3,)))[0] == np.inf


def test_the_relative_difference_is_to_the_largest_value() -> None:
    assert difference(np.array([100.1, 0.0]), np.array([100.0, 0.0])) == pytest.approx((0.1, 0.001))


def test_half_precision_is_compared_without_overflow() -> None:
    assert difference(np.array([60000.0], np.float16), np.array([-60000.0], np.float16))[0] == pytest.approx(
        119_968, rel=1e-2
    )


class Doubling:
    """A session that returns twice its input."""

    def run(self, output_names: list[str], input_feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [input_feed["x"] * 2 for _ in output_names]


def doubled(sample: Sample) -> list[ParityResult]:
    """What the gate says of a case that such a session answers."""
    actual = run(Doubling(), "model.onnx", sample)
    return compare(actual, "model.onnx", sample, Tolerance(1e-4), "float32", "bfloat16")


def test_the_worst_failure_is_named_with_its_numbers() -> None:
    feeds = {"x": np.ones((2, 7), np.float32)}
    good = doubled(Sample("fine", feeds, {"y": feeds["x"] * 2}))
    bad = doubled(Sample("odd", feeds, {"y": feeds["x"] * 2 + 0.25}))
    require(good)
    with pytest.raises(ParityFailedError) as raised:
        require([*good, *bad])
    for part in ("'y'", "model.onnx", "'odd'", "x [2, 7]", "0.25", "0.0001", "1 of 2"):
        assert part in raised.value.message


def test_cases_survive_the_way_over_the_disk(tmp_path) -> None:  # type: ignore[no-untyped-def]
    also = {"a|b": np.full(3, 0.5)}
    cases = [
        Sample(f"case {n}", {"past_key_values.0.key": np.full((n, 2), n, np.float32)}, {"a|b": np.arange(n)}, also)
        for n in range(12)
    ]
    file = ReferenceFile(tmp_path / "cases.npz")
    file.save(cases)
    for sample, again in zip(cases, file.load(), strict=True):
        np.testing.assert_equal(asdict(sample), asdict(again))


def test_a_tolerance_says_why() -> None:
    values = np.array([0.5, -40.0, np.inf], np.float32)
    assert tolerance("float32", None).at(values) == 1e-4
    assert tolerance("float16", None).at(values) == pytest.approx(40 * 4 * 2**-10)
    assert tolerance("float16", None).at(values[:1]) == 1e-2
    assert tolerance("float16", 0.3) == Tolerance(0.3, reason="asked for with --atol")
    assert all(tolerance(dtype, None).reason.startswith(dtype) for dtype in ("float64", "float32", "float16"))


def test_another_arithmetic_may_differ_as_far_as_pytorch_from_itself_and_no_further() -> None:
    feeds = {"x": np.ones((2, 7), np.float32)}
    exact, rounded = {"y": feeds["x"] * 2}, {"y": feeds["x"] * 2.125}
    same, other = doubled(Sample("c", feeds, exact, rounded))
    assert (same.arithmetic, same.max_abs, same.tolerance) == ("float32", 0.0, 1e-4)
    assert (other.arithmetic, other.max_abs, other.passed) == ("bfloat16", 0.125, True)
    assert other.tolerance == pytest.approx(0.1251)
    assert "bfloat16 are 0.125 apart" in other.reason
    wrong = {"y": feeds["x"] * 2.25}
    results = doubled(Sample("c", feeds, wrong, rounded))
    assert [result.passed for result in results] == [False, True]
