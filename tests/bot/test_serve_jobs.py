"""Durable jobs, in this process: real dbos on SQLite, the real job against the local Hub, with a fabricated export.

What takes a process of its own (SIGKILL, SIGTERM, other code after a restart) is in ``tests/e2e/test_serve.py``.
"""

import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dbos import DBOS

from modelexport.contract.errors import ExporterCrashedError, ParityFailedError
from modelexport_bot import scratch
from modelexport_bot.credentials import Token
from modelexport_bot.resolve import Plan
from modelexport_bot.result import Result
from modelexport_bot.server import recorded
from modelexport_bot.server.jobs import Jobs, Retries
from tests.bot import postgres
from tests.bot.world import PublishingJob, World

Json = dict[str, Any]
STEPS = ["fetch", "export", "publish"]


@dataclass
class JobWithHooks(PublishingJob):
    """What a test does in the middle of a step, by the step's name; shared by all jobs of a test."""

    before: ClassVar[dict[str, Callable[[Plan], object]]] = {}
    steps: ClassVar[list[str]] = []

    def _begins(self, step: str, plan: Plan) -> None:
        self.steps.append(step)
        self.before.pop(step, lambda _: None)(plan)

    def fetch(self, plan: Plan, folder: Path) -> Path:
        self._begins("fetch", plan)
        return super().fetch(plan, folder)

    def export(self, plan: Plan, snapshot: Path, folder: Path) -> Path:
        self._begins("export", plan)
        return super().export(plan, snapshot, folder)

    def publish(self, plan: Plan, folder: Path | None) -> Result:
        self._begins("publish", plan)
        return super().publish(plan, folder)


@dataclass
class Server:
    """Jobs on a data directory."""

    world: World
    directory: Path
    retries: Retries = field(default_factory=lambda: Retries(attempts=3, first_wait=0.01))
    database_url: str | None = None
    kept: timedelta = timedelta(days=30)
    clearing: timedelta = timedelta(days=1)
    running: Jobs | None = None

    def start(self, **changes: Any) -> Jobs:
        settings = replace(self.world.settings, **changes)
        self.running = Jobs(
            settings,
            self.directory,
            database_url=self.database_url,
            kept=self.kept,
            retries=self.retries,
            polling=0.02,
            clearing=self.clearing,
            job=JobWithHooks,
        )
        self.running.start()
        return self.running

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None

    def restart(self, **changes: Any) -> Jobs:
        self.stop()
        return self.start(**changes)

    def finished(self, count: int = 1) -> list[Json]:
        """The jobs, newest first, once none is left to do."""
        assert self.running is not None
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            found = self.running.recent()
            if len(found) >= count and all(job["finished"] for job in found):
                return found
            time.sleep(0.02)
        raise AssertionError(f"not finished: {self.running.recent()}")


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[Server]:
    JobWithHooks.before.clear()
    JobWithHooks.steps.clear()
    found = Server(world, tmp_path / "data")
    yield found
    found.stop()


def head(world: World) -> str:
    return str(world.hub.commits(world.repo)[0]["sha"])


def test_a_job_ends_in_a_pull_request_and_leaves_nothing_on_disk(server: Server, world: World) -> None:
    submitted = server.start().export(world.repo, head(world), private=False)
    (job,) = server.finished()
    assert submitted.new
    assert submitted.job == job["job"] == f"{world.repo}@{head(world)}"
    assert (job["repo"], job["state"], job["code"]) == (world.repo, "created", None)
    assert job["url"].endswith("/discussions/1")
    world.assert_right("refs/pr/1")
    assert list((server.directory / "jobs").iterdir()) == []


def test_one_push_is_one_job_however_often_it_is_told(server: Server, world: World) -> None:
    jobs = server.start()
    first = jobs.export(world.repo, head(world), private=False)
    second = jobs.export(world.repo, head(world), private=False)
    server.finished()
    third = jobs.export(world.repo, head(world), private=False)
    assert [one.new for one in (first, second, third)] == [True, False, False]
    assert len({one.job for one in (first, second, third)}) == 1
    assert JobWithHooks.steps.count("export") == 1


def test_a_job_that_failed_is_done_anew_when_it_is_told_again(server: Server, world: World) -> None:
    def fail(plan: Plan) -> None:
        raise ParityFailedError("last_hidden_state differs by 0.5.")

    jobs = server.start()
    JobWithHooks.before["export"] = fail
    first = jobs.export(world.repo, head(world), private=False)
    (job,) = server.finished()
    assert (job["state"], job["code"]) == ("failed", "parity_failed")
    assert job["reason"] == "last_hidden_state differs by 0.5."
    assert world.pull_requests() == []
    assert list((server.directory / "jobs").iterdir()) == []

    second = jobs.export(world.repo, head(world), private=False)
    assert second.new
    assert second.job != first.job
    newest, _ = server.finished(2)
    assert newest["state"] == "created"
    assert not jobs.export(world.repo, head(world), private=False).new


def test_a_merge_of_our_pull_request_is_a_job_that_finds_nothing_to_do(server: Server, world: World) -> None:
    jobs = server.start()
    jobs.export(world.repo, head(world), private=False)
    server.finished()
    world.merge(1)
    JobWithHooks.steps.clear()
    jobs.export(world.repo, head(world), private=False)
    newest, _ = server.finished(2)
    assert newest["state"] == "unchanged"
    assert JobWithHooks.steps == ["publish"]


def test_pushes_to_one_repo_are_taken_in_turn_and_the_latest_is_what_is_published(server: Server, world: World) -> None:
    first = head(world)
    jobs = server.start()

    def push_again(plan: Plan) -> None:
        pushed = world.push_weights("second")
        delivery = threading.Thread(target=jobs.export, args=(world.repo, pushed), kwargs={"private": False})
        delivery.start()
        delivery.join()

    JobWithHooks.before["export"] = push_again
    jobs.export(world.repo, first, private=False)
    later, earlier = server.finished(2)
    assert earlier["state"] == "created"
    assert later["state"] == "unchanged"
    assert len(world.pull_requests()) == 1
    assert world.manifest_at("refs/pr/1").source.sha == head(world)
    assert JobWithHooks.steps.count("export") == 2  # the first export was of a source that had moved


def test_a_hub_that_is_away_for_a_while_is_waited_for(server: Server, world: World) -> None:
    world.hub.inject("status", code=503, route="repo_info", times=7)  # more than the patience of one request
    server.start().export(world.repo, head(world), private=False)
    (job,) = server.finished()
    assert job["state"] == "created"


def test_a_hub_that_stays_away_ends_the_job(server: Server, world: World) -> None:
    world.hub.inject("status", code=503, route="repo_info", times=None)
    server.start().export(world.repo, head(world), private=False)
    (job,) = server.finished()
    assert (job["state"], job["code"]) == ("failed", "hub_unavailable")


@pytest.mark.parametrize("step", STEPS)
def test_a_job_goes_on_after_a_restart_in_any_step(server: Server, world: World, step: str) -> None:
    interrupted_at(server, world, step)
    JobWithHooks.steps.clear()
    server.restart()
    (job,) = server.finished()
    assert job["state"] == "created"
    assert JobWithHooks.steps == STEPS[STEPS.index(step) :]
    world.assert_right("refs/pr/1")
    assert len(world.pull_requests()) == 1
    assert list((server.directory / "jobs").iterdir()) == []


@pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL on this machine")
def test_postgresql_keeps_the_jobs_of_several_servers_apart(server: Server, world: World, tmp_path: Path) -> None:
    binaries = postgres.binaries()
    assert binaries is not None
    with postgres.running(binaries) as server.database_url:
        interrupted_at(server, world, "export")
        server.stop()
        other = Server(world, tmp_path / "other", database_url=server.database_url)
        jobs = other.start()
        time.sleep(2)
        assert [job["state"] for job in jobs.recent()] == ["running"]  # not its own: somebody may be at it
        other.stop()
        server.start()
        (job,) = server.finished()
        assert job["state"] == "created"
        world.assert_right("refs/pr/1")
        server.stop()


def test_folders_that_were_lost_in_between_are_made_again(server: Server, world: World) -> None:
    interrupted_at(server, world, "publish")
    server.stop()
    shutil.rmtree(server.directory / "jobs")
    JobWithHooks.steps.clear()
    server.start()
    (job,) = server.finished()
    assert job["state"] == "created"
    assert JobWithHooks.steps == ["fetch", "export", "publish"]
    world.assert_right("refs/pr/1")


def test_folders_that_nobody_owns_are_removed_at_the_start(server: Server) -> None:
    abandoned = server.directory / "jobs" / "0123456789abcdef01234567"
    abandoned.mkdir(parents=True)
    server.start()
    assert not abandoned.exists()


def test_what_a_bug_left_on_disk_is_removed_while_the_server_runs(server: Server, world: World) -> None:
    def break_down(plan: Plan) -> None:
        raise ZeroDivisionError

    JobWithHooks.before["export"] = break_down
    server.clearing = timedelta(seconds=0.2)
    server.start().export(world.repo, head(world), private=False)
    server.finished()
    until(lambda: not list((server.directory / "jobs").iterdir()))


def test_downloads_lie_in_the_folder_of_their_job_and_end_with_it(server: Server, world: World) -> None:
    """Also those of a command, whose run is no workflow of its own."""
    downloads: list[Path] = []

    def look(plan: Plan) -> None:
        downloads.extend(path for path in server.directory.rglob("model.safetensors") if "snapshots" in path.parts)

    jobs = server.start()
    JobWithHooks.before["publish"] = look
    jobs.export(world.repo, head(world), private=False)
    server.finished()
    world.comment(1, "@modelexport-bot rebuild")
    JobWithHooks.before["publish"] = look
    jobs.reply(world.repo, 1, "c1", private=False)
    assert server.finished(2)[0]["state"] == "answered"
    assert len(downloads) == 2
    assert all(path.is_relative_to(server.directory / "jobs") for path in downloads)
    assert list((server.directory / "jobs").iterdir()) == []


def test_an_interrupted_download_goes_on_after_a_restart(server: Server, world: World) -> None:
    interrupted_at(server, world, "export")
    shutil.rmtree(next((server.directory / "jobs").glob("*/0/snapshot")))  # as if the step had not ended
    world.hub.clear_journal()
    server.restart()
    (job,) = server.finished()
    assert job["state"] == "created"
    assert "resolve" not in {entry["route"] for entry in world.hub.journal() if "model.safetensors" in entry["path"]}


def test_what_a_killed_command_left_in_the_cache_is_removed_at_the_start(server: Server, world: World) -> None:
    jobs = world.settings.cache / "jobs"
    (jobs / "0123456789ab").mkdir(parents=True)
    (jobs / "0123456789ab.lock").touch()
    with scratch.for_job(world.settings.cache) as alive:
        (jobs / "ba9876543210").mkdir()
        (jobs / "ba9876543210.lock").touch()
        server.start()
        assert {entry for entry in jobs.iterdir() if entry.is_dir()} == {alive}


def test_jobs_that_ended_long_ago_are_forgotten(server: Server, world: World) -> None:
    server.start().export(world.repo, head(world), private=False)
    server.finished()
    assert len(server.restart().recent()) == 1
    server.kept = timedelta(0)
    assert server.restart().recent() == []
    server.stop()
    with contextlib.closing(sqlite3.connect(server.directory / "jobs.sqlite")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(row) for name in tables for row in database.execute(f'SELECT * FROM "{name}"')]
    assert not [row for row in rows if world.repo in row]


def test_a_failed_job_is_forgotten_as_well(server: Server, world: World) -> None:
    def fail(plan: Plan) -> None:
        raise ZeroDivisionError

    JobWithHooks.before["export"] = fail
    server.start().export(world.repo, head(world), private=False)
    server.finished()
    server.kept = timedelta(0)
    assert server.restart().recent() == []


def test_jobs_are_forgotten_while_the_server_runs_but_none_that_is_not_done(server: Server, world: World) -> None:
    server.kept, server.clearing = timedelta(0), timedelta(seconds=0.1)
    begun, go_on = threading.Event(), threading.Event()

    def wait(plan: Plan) -> None:
        begun.set()
        assert go_on.wait(30)

    jobs = server.start()
    JobWithHooks.before["export"] = wait
    running = jobs.export(world.repo, head(world), private=False).job
    waiting = jobs.export(world.repo, world.push_weights("second"), private=False).job
    assert begun.wait(30)
    time.sleep(0.5)  # several looks
    assert [job["job"] for job in jobs.recent()] == [waiting, running]
    assert len(list((server.directory / "jobs").iterdir())) == 1
    go_on.set()
    until(lambda: not jobs.recent())
    world.assert_right("refs/pr/1")
    assert world.manifest_at("refs/pr/1").source.sha == head(world)


def test_what_counts_is_when_a_job_ended_and_not_when_it_began(server: Server, world: World) -> None:
    interrupted_at(server, world, "export")
    server.stop()
    with contextlib.closing(sqlite3.connect(server.directory / "jobs.sqlite")) as database, database:
        database.execute("UPDATE workflow_status SET created_at = 0")
    server.start()
    server.finished()
    assert [job["state"] for job in server.restart().recent()] == ["created"]


def test_a_delivery_whose_job_is_forgotten_at_that_moment_is_a_job(
    server: Server, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = server.start()
    jobs.export(world.repo, head(world), private=False)
    server.finished()
    look = DBOS.list_workflows

    def too_late(**what: Any) -> list[Any]:
        monkeypatch.setattr(DBOS, "list_workflows", look)
        DBOS.delete_workflows(what["workflow_ids"])
        return look(**what)

    monkeypatch.setattr(DBOS, "list_workflows", too_late)
    assert jobs.export(world.repo, head(world), private=False).new
    (job,) = server.finished()
    assert job["state"] == "unchanged"


def test_a_job_that_was_cancelled_by_hand_is_shown_as_failed(server: Server, world: World) -> None:
    interrupted_at(server, world, "export")
    assert server.running is not None
    (job,) = server.running.recent()
    DBOS.cancel_workflow(job["job"])
    (job,) = server.running.recent()
    assert job["state"] == "failed"


def test_a_token_changed_between_two_starts_is_the_one_that_is_used(server: Server, world: World) -> None:
    interrupted_at(server, world, "export")
    assert world.settings.token is not None
    world.hub.expire_token(world.settings.token.reveal())
    server.restart(token=Token(world.hub.create_token(world.bot)))
    (job,) = server.finished()
    assert job["state"] == "created"


def test_no_token_is_on_record(server: Server, world: World) -> None:
    token = world.settings.token
    assert token is not None

    def leak(plan: Plan) -> None:
        raise ParityFailedError(f"Authorization: Bearer {token.reveal()}, they said.")

    jobs = server.start()
    jobs.export(world.repo, head(world), private=False)
    server.finished()
    world.push_weights("second")
    JobWithHooks.before["export"] = leak
    jobs.export(world.repo, head(world), private=False)
    newest, _ = server.finished(2)
    assert "***" in newest["reason"]
    server.stop()
    for file in server.directory.rglob("*"):
        if file.is_file():
            assert token.reveal().encode() not in file.read_bytes(), file


def test_of_a_private_repo_nothing_is_shown_but_that_there_is_one(server: Server, world: World) -> None:
    server.start().export(world.repo, head(world), private=True)
    (job,) = server.finished()
    assert job.keys() == {"private", "state", "code", "received", "finished"}
    assert job["state"] == "created"


@pytest.mark.parametrize("by_command", [False, True])
def test_an_exporter_that_is_stopped_together_with_us_has_not_failed(
    server: Server, world: World, by_command: bool
) -> None:
    stopped: list[Plan] = []

    def both_are_stopped(plan: Plan) -> None:
        assert server.running is not None
        threading.Timer(0.2, server.running.expect_stop).start()
        stopped.append(plan)
        raise ExporterCrashedError("The exporter ended without a result (signal SIGTERM).")

    if by_command:
        world.comment(world.opened(), "@modelexport-bot rebuild")
    said = world.texts(1) if by_command else []
    jobs = server.start()
    JobWithHooks.before["export"] = both_are_stopped
    if by_command:
        jobs.reply(world.repo, 1, "c1", private=False)
    else:
        jobs.export(world.repo, head(world), private=False)
    while not stopped:
        time.sleep(0.01)
    time.sleep(0.5)
    assert [job["state"] for job in jobs.recent()] == ["running"]
    assert (world.texts(1) if by_command else []) == said
    server.restart()
    (job,) = server.finished()
    assert job["state"] == ("answered" if by_command else "created")


def test_a_bug_of_ours_is_a_failed_job_that_can_be_done_anew(server: Server, world: World) -> None:
    def break_down(plan: Plan) -> None:
        raise ZeroDivisionError("hf_abcdefghijklmnop")

    jobs = server.start()
    JobWithHooks.before["export"] = break_down
    jobs.export(world.repo, head(world), private=False)
    (job,) = server.finished()
    assert (job["state"], job["code"], job["reason"]) == ("failed", None, None)
    assert jobs.export(world.repo, head(world), private=False).new
    newest, _ = server.finished(2)
    assert newest["state"] == "created"


def test_a_command_in_the_thread_is_carried_out_and_answered_once(server: Server, world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot rebuild")
    jobs = server.start()
    assert jobs.reply(world.repo, num, "a1", private=False).new
    assert not jobs.reply(world.repo, num, "a1", private=False).new
    (job,) = server.finished()
    assert job["state"] == "answered"
    said = len(world.texts(num))
    jobs.reply(world.repo, num, "a2", private=False)
    newest, _ = server.finished(2)
    assert newest["reason"] == f"0 commands answered in #{num}."
    assert len(world.texts(num)) == said


def test_a_comment_in_somebody_elses_thread_is_none_of_our_business(server: Server, world: World) -> None:
    world.hub.create_user("mallory")
    num = foreign_pull_request(world)
    server.start().reply(world.repo, num, "b1", private=False)
    (job,) = server.finished()
    assert job["state"] == "skipped"


def test_errors_are_recorded_as_code_and_message() -> None:
    serializer = recorded.JsonSerializer()
    text = serializer.serialize(ParityFailedError("The token hf_abcdefghijklmnop is no secret."))
    again = serializer.deserialize(text)
    assert isinstance(again, ParityFailedError)
    assert again.message == "The token *** is no secret."
    assert isinstance(serializer.deserialize(serializer.serialize(ValueError("x"))), recorded.RecordedError)
    with pytest.raises(TypeError):
        serializer.serialize(Token("hf_abcdefghijklmnop"))


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupted_at(server: Server, world: World, step: str) -> None:
    """A job whose process went away in the middle of a step: its thread is left hanging, and records nothing more."""
    reached: list[Plan] = []

    def hang(plan: Plan) -> None:
        reached.append(plan)
        raise KeyboardInterrupt  # not recorded by dbos, as little as a process that is gone

    JobWithHooks.before[step] = hang
    server.start().export(world.repo, head(world), private=False)
    deadline = time.monotonic() + 30
    while not reached:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def foreign_pull_request(world: World) -> int:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=world.hub.url, token=world.hub.create_token("mallory"))
    return int(api.create_pull_request(world.repo, "Mine", description="Not yours").num)
