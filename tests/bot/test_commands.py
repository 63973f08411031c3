"""Commands in the thread, ``status`` and ``sweep``."""

from dataclasses import replace

import pytest

from modelexport.contract.errors import UnauthorizedError, UsageError
from modelexport_bot import commands
from modelexport_bot.commands import Verb
from modelexport_bot.credentials import Token
from modelexport_bot.hub import Comment
from modelexport_bot.job import Job
from modelexport_bot.progress import Silent
from modelexport_bot.sweep import Row, sweep
from tests.bot.world import CONFIG, PublishingJob, World, weights


def _reply(world: World, num: int) -> list[Verb | None]:
    return commands.reply(world.repo, num, world.settings, Silent(), job=PublishingJob)


@pytest.mark.parametrize(
    ("text", "verb", "argument"),
    [
        ("@modelexport-bot rebuild", Verb.REBUILD, ""),
        ("Thanks!\n  @ModelExport-bot Close.\nBye", Verb.CLOSE, ""),
        ("@export-bot task=fill-mask", Verb.TASK, "fill-mask"),
        ("@modelexport-bot task=../../etc", None, "../../etc"),
        ("@modelexport-bot make me a sandwich", None, ""),
        ("@modelexport-bot", None, ""),
    ],
)
def test_a_command_is_the_first_line_that_begins_with_our_name(text: str, verb: Verb | None, argument: str) -> None:
    command = commands.read(Comment("1", "alice", text), {"modelexport-bot", "export-bot"})
    assert command is not None
    assert (command.verb, command.argument) == (verb, argument)


@pytest.mark.parametrize(
    "text", ["Nice, modelexport-bot rebuild", "> @modelexport-bot close", "@modelexport-bottle close"]
)
def test_anything_else_is_no_command(text: str) -> None:
    assert commands.read(Comment("1", "alice", text), {"modelexport-bot"}) is None


def test_help_is_answered_once(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot help")
    assert _reply(world, num) == [Verb.HELP]
    assert _reply(world, num) == []
    assert len(world.texts(num)) == 3
    assert "task=<task>" in world.texts(num)[-1]


def test_task_exports_for_another_task_and_later_runs_remember_it(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot task=fill-mask")
    assert _reply(world, num) == [Verb.TASK]
    assert world.manifest_at(f"refs/pr/{num}").task == "fill-mask"
    assert world.run().outcome == "unchanged"
    world.push_weights("second")
    assert world.run().outcome == "updated"
    assert world.manifest_at(f"refs/pr/{num}").task == "fill-mask"


def test_rebuild_of_the_same_bytes_changes_nothing_and_says_so(world: World) -> None:
    num = world.opened()
    head = world.pull_request(num)["head"]
    world.comment(num, "@modelexport-bot rebuild")
    assert _reply(world, num) == [Verb.REBUILD]
    assert world.pull_request(num)["head"] == head
    assert "unchanged" in world.texts(num)[-1]


def test_rebuild_in_a_closed_pull_request_brings_it_back(world: World) -> None:
    num = world.opened()
    world.close(num)
    assert world.run().outcome == "declined"
    world.comment(num, "@modelexport-bot rebuild")
    _reply(world, num)
    assert world.pull_request(num)["status"] == "open"
    assert len(world.pull_requests()) == 1
    world.assert_right(f"refs/pr/{num}")


def test_close_counts_as_the_persons_no(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot close")
    assert _reply(world, num) == [Verb.CLOSE]
    assert world.pull_request(num)["status"] == "closed"
    assert world.run().outcome == "declined"
    world.push_weights("second")
    assert world.run(reopen=True).outcome == "updated"


def test_ignore_is_for_good(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot ignore")
    _reply(world, num)
    world.push_weights("second")
    assert world.run(reopen=True).outcome == "declined"
    assert len(world.pull_requests()) == 1


def test_ignore_holds_after_a_merge_too(world: World) -> None:
    num = world.opened()
    world.merge(num)
    world.comment(num, "@modelexport-bot ignore")
    _reply(world, num)
    world.push_weights("second")
    assert world.run().outcome == "declined"


def test_strangers_are_told_so_once(world: World) -> None:
    num = world.opened()
    world.hub.create_user("mallory")
    for _ in range(2):
        world.comment(num, "@modelexport-bot close", user="mallory")
        assert _reply(world, num) == []
    assert world.pull_request(num)["status"] == "open"
    assert sum("write access" in text for text in world.texts(num)) == 1 + 1  # the body names it as well


def _in_an_organisation(world: World, **members: str) -> tuple[World, int]:
    """A repo of an organisation of its own, and our pull request on it."""
    org = f"org-{world.repo.rpartition('-')[2]}"
    for name in members:
        world.hub.create_user(name)
    world.hub.create_org(org, members)
    world.hub.seed_repo(f"{org}/model", world.hub.files(world.repo))
    there = replace(world, repo=f"{org}/model", owner=next(iter(members)))
    return there, there.opened()


@pytest.mark.parametrize(("role", "heard"), [("admin", True), ("write", True), ("contributor", False), ("read", False)])
def test_in_an_organisation_that_tells_us_roles_they_count(world: World, role: str, heard: bool) -> None:
    there, num = _in_an_organisation(world, bob=role)
    there.hub.create_org(there.repo.partition("/")[0], {there.bot: "read"})
    there.hub.push(there.repo, {"notes.txt": "merged from a pull request"}, message="Notes", author="bob")
    there.comment(num, "@modelexport-bot help", user="bob")
    assert _reply(there, num) == ([Verb.HELP] if heard else [])


def test_where_roles_are_not_told_a_member_must_have_committed(world: World) -> None:
    there, num = _in_an_organisation(world, bob="write", carol="read")
    there.hub.push(there.repo, {"notes.txt": "of mine"}, message="Notes", author="bob")
    there.hub.create_user("dave")
    there.hub.push(there.repo, {"more.txt": "of a stranger's"}, message="Merged", author="dave")
    for user in ("carol", "dave"):
        there.comment(num, "@modelexport-bot close", user=user)
        assert _reply(there, num) == []
    there.comment(num, "@modelexport-bot help", user="bob")
    assert _reply(there, num) == [Verb.HELP]
    assert there.pull_request(num)["status"] == "open"


def test_what_we_do_not_understand_is_answered_with_the_list(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot please <b>do</b> something")
    assert _reply(world, num) == [None]
    assert "do not know" in world.texts(num)[-1]


def test_a_lost_answer_does_not_make_two(world: World) -> None:
    num = world.opened()
    world.comment(num, "@modelexport-bot help")
    world.hub.inject("reset_after", route="comment")
    assert _reply(world, num) == [Verb.HELP]
    assert len(world.texts(num)) == 3


def test_only_our_own_pull_requests_take_commands(world: World) -> None:
    from huggingface_hub import HfApi

    other = HfApi(endpoint=world.hub.url, token=world.hub.create_token(world.owner)).create_discussion(
        world.repo, "Hello"
    )
    with pytest.raises(UsageError):
        _reply(world, other.num)


def test_status_says_what_a_run_would_do_and_writes_nothing(world: World) -> None:
    world.hub.clear_journal()
    job = Job(world.settings)
    assert (job.status(world.repo).outcome, world.writes()) == ("created", [])
    num = world.opened()
    assert Job(world.settings).status(world.repo).outcome == "unchanged"
    world.close(num)
    assert Job(world.settings).status(world.repo).outcome == "declined"


def test_sweep_goes_through_an_owners_models(world: World) -> None:
    owner = f"owner-{world.repo.rpartition('-')[2]}"
    world.hub.create_user(owner)
    for name, files in {
        "good": {"config.json": CONFIG, "model.safetensors": weights("good")},
        "empty": {"config.json": CONFIG},
        "done": {"config.json": CONFIG, "model.safetensors": weights("done"), "onnx/model.onnx": weights("x")},
    }.items():
        world.hub.seed_repo(f"{owner}/{name}", files)

    def through(**changes: object) -> dict[str, str]:
        rows: list[Row] = list(sweep(owner, replace(world.settings, **changes), Silent(), job=PublishingJob))  # type: ignore[arg-type]
        return {row.repo.partition("/")[2]: row.outcome for row in rows}

    assert through(dry_run=True) == {"good": "created", "empty": "repo_empty", "done": "skipped"}
    assert world.hub.pull_requests(f"{owner}/good") == []
    assert through() == {"good": "created", "empty": "repo_empty", "done": "skipped"}
    assert through() == {"good": "unchanged", "empty": "repo_empty", "done": "skipped"}


def test_sweep_stops_at_what_would_fail_for_all(world: World) -> None:
    with pytest.raises(UnauthorizedError):
        list(sweep(world.owner, replace(world.settings, token=Token("hf_nosuchtoken")), Silent(), job=PublishingJob))
