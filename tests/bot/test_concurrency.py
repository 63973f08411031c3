"""Two runs at once on one repo end with one pull request, on one machine and on two."""

import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.bot.world import World
from tests.hub.client import LocalHub


def _in_another_process(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return pid


def _ended_well(*pids: int) -> bool:
    return all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in pids)


def _live(world: World) -> list[dict[str, object]]:
    return [found for found in world.pull_requests() if found["status"] in ("open", "draft")]


def test_two_runs_on_one_machine_take_turns(world: World) -> None:
    assert _ended_well(*(_in_another_process(world.run) for _ in range(2)))
    assert [(found["num"], found["status"]) for found in world.pull_requests()] == [(1, "open")]
    world.assert_sound()


def test_runs_on_several_machines_end_with_one_pull_request(world: World, tmp_path: Path) -> None:
    """Each has a cache of its own, so that no lock is between them; they publish at the same moment."""
    start = time.time() + 1.5

    def at_the_same_moment() -> None:
        time.sleep(max(0.0, start - time.time()))

    pids = []
    for number in range(3):
        elsewhere = replace(world, settings=replace(world.settings, cache=tmp_path / f"machine-{number}"))
        pids.append(_in_another_process(lambda machine=elsewhere: machine.run(before_publishing=at_the_same_moment)))
    assert _ended_well(*pids)
    assert [found["status"] for found in _live(world)] == ["open"]
    world.assert_sound()
    assert world.run().outcome == "unchanged"


def test_a_second_draft_of_ours_is_closed_by_whoever_sees_it(world: World) -> None:
    """What is left when a racing run is killed between opening its draft and looking around."""
    num = world.opened()
    from huggingface_hub import HfApi

    assert world.settings.token is not None
    ours = HfApi(endpoint=world.hub.url, token=world.settings.token.reveal())
    ours.create_pull_request(world.repo, "Add ONNX export", description=world.texts(num)[0])
    world.push_weights("second")
    assert world.run().outcome == "updated"
    assert [found["num"] for found in _live(world)] == [num]
    assert "stays" in world.texts(2)[-1]


def test_jobs_in_several_threads_share_one_client(hub: LocalHub, tmp_path: Path) -> None:
    """As the server runs them."""
    worlds = [World.new(hub, tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda world: world.run().outcome, worlds))
    assert outcomes == ["created"] * 6
