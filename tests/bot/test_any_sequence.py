"""Random sequences of what can happen to a repo: whatever the order, the promises hold."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modelexport.contract import ModelExportError
from modelexport_bot.hub.transport import PatientClient
from modelexport_bot.settings import Overrides
from tests.bot.test_fault_matrix import FAULTS, QUICK
from tests.bot.world import World
from tests.hub.client import LocalHub

SEEDS = st.sampled_from(["first", "second", "third"])
REQUEST = st.integers(min_value=1, max_value=30)
FAULT = st.sampled_from([name for name in FAULTS if name != "token expires" and "in time" not in name])


class Repo(RuleBasedStateMachine):
    """A repo, its owner, passers-by, and a bot that runs again and again, often not to the end."""

    hub: LocalHub

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.pushed_by_others: set[int] = set()

    @initialize()
    def a_new_repo(self) -> None:
        self.world = World.new(self.hub, Path(self.directory.name))
        self.world.settings = replace(self.world.settings, patience=QUICK)

    def teardown(self) -> None:
        self.hub.clear_faults()
        self.directory.cleanup()

    # the owner and others

    @rule(seed=SEEDS)
    def new_weights(self, seed: str) -> None:
        self.world.push_weights(seed)

    @rule()
    def a_better_readme(self) -> None:
        self.world.hub.push(self.world.repo, {"README.md": f"# {os.urandom(4).hex()}\n"})

    @precondition(lambda self: self.status("open"))
    @rule()
    def the_owner_closes(self) -> None:
        self.world.close(self.status("open")[0])

    @precondition(lambda self: self.status("open"))
    @rule()
    def the_owner_merges(self) -> None:
        with suppress(OSError):  # it conflicts with what was pushed to main
            self.world.merge(self.status("open")[0])

    @precondition(lambda self: self.status("open"))
    @rule()
    def somebody_pushes_to_the_pull_request(self) -> None:
        num = self.status("open")[0]
        self.pushed_by_others.add(num)
        self.world.hub.push(self.world.repo, {"onnx/config.json": b"{}"}, revision=f"refs/pr/{num}", author="alice")

    @rule()
    def somebody_removes_the_folder(self) -> None:
        if self.world.folder("main"):
            self.world.hub.push(self.world.repo, delete=["onnx"])

    # the bot

    @rule(reopen=st.booleans(), dtype=st.sampled_from([None, "source"]))
    def a_run(self, reopen: bool, dtype: Any) -> None:
        changes: dict[str, Any] = {"reopen": reopen, "overrides": Overrides(dtype=dtype)}
        first = self.world.run(**changes)
        self.world.hub.clear_journal()
        second = self.world.run(**changes)
        assert second.outcome not in ("created", "updated"), (first, second)
        assert self.world.writes() == [], (first, second)

    @rule(request=REQUEST, fault=FAULT, reopen=st.booleans())
    def a_run_that_meets_a_fault(self, request: int, fault: str, reopen: bool) -> None:
        self.world.hub.clear_journal()
        self.world.hub.inject(index=request, **FAULTS[fault])
        with suppress(ModelExportError):
            self.world.run(reopen=reopen)
        self.world.hub.clear_faults()

    @rule(request=REQUEST, reopen=st.booleans())
    def a_run_that_is_killed(self, request: int, reopen: bool) -> None:
        pid = os.fork()
        if pid == 0:
            sent = 0
            send = PatientClient.send

            def deadly(client: PatientClient, message: Any, **options: Any) -> Any:
                nonlocal sent
                sent += 1
                response = send(client, message, **options)
                if sent == request:
                    os.kill(os.getpid(), signal.SIGKILL)
                return response

            PatientClient.send = deadly  # type: ignore[method-assign]
            try:
                self.world.run(reopen=reopen)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    # what always holds

    @invariant()
    def one_live_pull_request_at_most_and_what_is_open_is_right(self) -> None:
        found = self.ours()
        assert len([pr for pr in found if pr["status"] in ("open", "draft")]) <= 1
        for pr in found:
            if pr["status"] == "open" and pr["num"] not in self.pushed_by_others:
                self.world.assert_right(pr["ref"])

    @invariant()
    def what_others_pushed_is_still_there(self) -> None:
        for num in self.pushed_by_others:
            assert self.world.folder(f"refs/pr/{num}")["onnx/config.json"] == b"{}"

    def ours(self) -> list[dict[str, Any]]:
        return self.world.pull_requests() if hasattr(self, "world") else []

    def status(self, status: str) -> list[int]:
        return [pr["num"] for pr in self.ours() if pr["status"] == status]


@pytest.fixture
def quiet_hub(hub: LocalHub) -> Iterator[LocalHub]:
    yield hub
    hub.clear_faults()


def test_whatever_the_order(quiet_hub: LocalHub) -> None:
    class OnThisHub(Repo):
        hub = quiet_hub

    run_state_machine_as_test(
        OnThisHub,
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
