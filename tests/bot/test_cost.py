"""What an export costs is known before it is paid."""

from pathlib import Path

import pytest

from modelexport.contract import Cost, estimate, memory_limit, parse_size, require_fits
from modelexport.contract import cost as module
from modelexport.contract.errors import TooLargeError, UsageError


def test_the_estimate_is_a_straight_line_above_the_size_of_the_weights() -> None:
    small, large = estimate(1_000_000_000), estimate(3_000_000_000)
    assert small.memory > 1_000_000_000 and small.disk > 1_000_000_000
    assert large.memory - small.memory == pytest.approx(2 * (estimate(2_000_000_000).memory - small.memory))


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    cost = Cost(memory=8_000_000_000, disk=4_000_000_000)
    require_fits(cost, 8_000_000_000, 4_000_000_000, "acme/model")
    with pytest.raises(TooLargeError, match=r"acme/model takes about 8.0 GB of memory, and there are 7.5 GB") as raised:
        require_fits(cost, 7_500_000_000, 4_000_000_000, "acme/model")
    assert "--max-memory" in raised.value.message
    with pytest.raises(TooLargeError, match=r"4.0 GB of disk, and 1.0 GB are free"):
        require_fits(cost, 8_000_000_000, 1_000_000_000, "acme/model")


@pytest.mark.parametrize(("content", "expected"), [("2000000000", 2_000_000_000), ("max", None), ("", None)])
def test_the_limit_of_the_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: int | None
) -> None:
    (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(module, "_CGROUP_LIMITS", (str(tmp_path / "absent"), str(tmp_path / "memory.max")))
    machine = memory_limit()
    assert machine == expected or (expected is None and machine > 100_000_000)
    assert memory_limit(100_000_000) == 100_000_000


@pytest.mark.parametrize(
    ("text", "expected"), [("8GB", 8 * 10**9), ("500 MiB", 500 * 2**20), ("1.5g", 1_500_000_000), ("1000", 1000)]
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "eight", "8 parsecs", "1.2.3GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)
