"""What an export costs is known before it is paid."""

import json
import struct
from pathlib import Path

import pytest

from modelexport.contract import Cost, estimate, memory_limit, parse_size, require_fits
from modelexport.contract import cost as module
from modelexport.contract.errors import TooLargeError, UnsupportedArchitectureError, UsageError
from modelexport_bot import policy
from tests.bot.world import CONFIG, World


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


# --- before the download ---------------------------------------------------------------------------------------------


def safetensors(dtype: str, width: int, parameters: int) -> bytes:
    """A file with one tensor of zeros."""
    tensor = {"dtype": dtype, "shape": [parameters], "data_offsets": [0, width * parameters]}
    header = json.dumps({"weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(width * parameters)


def limit_for(exported: int) -> int:
    """The memory that exactly fits an export of so many bytes."""
    return estimate(exported).memory


def assert_nothing_was_downloaded(world: World) -> None:
    routes = {entry["route"] for entry in world.hub.journal() if entry["repo"] == world.repo}
    assert "repo_info" in routes
    assert not [route for route in routes if route and "resolve" in route]
    assert world.writes() == []


@pytest.mark.parametrize(("dtype", "width"), [("F32", 4), ("F16", 2), ("BF16", 2)])
def test_what_does_not_fit_is_refused_before_anything_is_downloaded(world: World, dtype: str, width: int) -> None:
    world.hub.push(world.repo, {"model.safetensors": safetensors(dtype, width, 1_000_000)}, message="New weights")
    world.hub.clear_journal()
    with pytest.raises(TooLargeError, match=f"{world.repo} takes about 0.7 GB of memory"):
        world.run(max_memory=limit_for(4_000_000) - 1)
    assert_nothing_was_downloaded(world)
    assert world.run(max_memory=limit_for(4_000_000)).outcome == "created"


def test_half_precision_that_is_kept_takes_the_memory_of_the_float32_it_is_held_against(world: World) -> None:
    card = "---\nmodelexport:\n  dtype: source\n---\n"
    weights = safetensors("F16", 2, 1_000_000)
    world.hub.push(world.repo, {"model.safetensors": weights, "README.md": card}, message="New weights")
    with pytest.raises(TooLargeError):
        world.run(max_memory=limit_for(4_000_000) - 1)
    assert world.run(max_memory=limit_for(4_000_000)).outcome == "created"


def test_an_architecture_that_nothing_exports_is_refused_before_anything_is_downloaded(world: World) -> None:
    world.hub.push(world.repo, {"config.json": b'{"model_type": "mystery", "architectures": ["Mystery"]}'}, message="?")
    world.hub.clear_journal()
    with pytest.raises(UnsupportedArchitectureError, match="'mystery'"):
        world.run()
    assert_nothing_was_downloaded(world)


def test_without_a_listing_of_dtypes_the_size_of_the_files_counts(world: World) -> None:
    size = len(world.hub.files(world.repo)["model.safetensors"])
    with pytest.raises(TooLargeError):
        world.run(max_memory=limit_for(size) - 1)
    assert world.run(max_memory=limit_for(size)).outcome == "created"


def test_the_download_needs_disk_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(world.hub.files(world.repo)["model.safetensors"])
    needed = estimate(size).disk + size + len(CONFIG) + len(b"# A model\n")

    monkeypatch.setattr(policy, "_free", lambda path: needed - 1)
    world.hub.clear_journal()
    with pytest.raises(TooLargeError, match="of disk"):
        world.run()
    assert_nothing_was_downloaded(world)
    monkeypatch.setattr(policy, "_free", lambda path: needed)
    assert world.run().outcome == "created"


def test_where_nothing_is_to_be_exported_nothing_has_to_fit(world: World) -> None:
    world.opened()
    assert world.run(max_memory=1).outcome == "unchanged"
