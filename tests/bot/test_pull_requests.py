"""The behaviour table of docs/pull-requests.md, row by row, over HTTP against the local Hub."""

import re
from dataclasses import replace
from typing import Any

import pytest

from modelexport.contract import Options
from modelexport.contract.errors import (
    ForbiddenError,
    GatedError,
    HubUnavailableError,
    OptedOutError,
    OptionsInvalidError,
    PrsDisabledError,
    RepoDisabledError,
    RepoEmptyError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TooLargeError,
    UnauthorizedError,
)
from modelexport_bot.credentials import Token
from modelexport_bot.settings import Limits, Overrides
from tests.bot.world import CONFIG, HASTY, PublishingJob, World, weights


def test_a_repo_without_onnx_gets_a_pull_request(world: World) -> None:
    result = world.run()
    assert result.outcome == "created"
    (found,) = world.pull_requests()
    assert (found["num"], found["status"], found["author"]["name"]) == (result.pull_request, "open", world.bot)
    world.assert_right("refs/pr/1")
    assert set(world.folder("refs/pr/1")) == {file.path for file in result.files}
    assert world.texts(1) == [result.body]
    assert found["title"] == result.title
    assert not world.folder("main")


def test_nothing_outside_onnx_is_touched(world: World) -> None:
    world.opened()
    before, after = world.hub.files(world.repo), world.hub.files(world.repo, "refs/pr/1")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert {path for path in changed if not path.startswith("onnx/")} <= {".gitattributes"}


def test_the_pull_request_is_a_draft_until_it_is_filled(world: World) -> None:
    world.opened()
    routes = [
        entry["route"]
        for entry in world.hub.journal()
        if entry["wrote"] and entry["repo"] and world.repo in entry["repo"]
    ]
    assert routes.index("create_discussion") < routes.index("commit") < routes.index("change_status")


def test_running_again_writes_nothing(world: World) -> None:
    world.opened()
    world.hub.clear_journal()
    result = world.run()
    assert (result.outcome, result.pull_request) == ("unchanged", 1)
    assert world.writes() == []
    assert world.last_job.exports == 0


def test_a_commit_that_touches_no_input_changes_nothing(world: World) -> None:
    world.opened()
    world.hub.push(world.repo, {"README.md": "# A better model\n"})
    world.hub.clear_journal()
    assert world.run().outcome == "unchanged"
    assert world.writes() == []


def test_new_weights_update_the_open_pull_request(world: World) -> None:
    num = world.opened()
    sha = world.push_weights("second")
    result = world.run()
    assert (result.outcome, result.pull_request) == ("updated", num)
    (found,) = world.pull_requests()
    assert found["status"] == "open"
    assert found["title"].endswith(sha[:7])
    world.assert_right(f"refs/pr/{num}")
    assert world.manifest_at(f"refs/pr/{num}").source.sha == sha
    body, comment = world.texts(num)
    assert sha in body
    assert "the weights changed" in comment
    commits = [event for event in found["events"] if event["type"] == "commit"]
    assert len(commits) == 2


def test_new_options_update_it_and_files_that_fell_away_are_deleted(world: World) -> None:
    num = world.opened()
    world.run(overrides=Overrides(dtype="source"))
    assert "onnx/generation_config.json" in world.folder(f"refs/pr/{num}")
    result = world.run()
    assert result.outcome == "updated"
    assert "onnx/generation_config.json" not in world.folder(f"refs/pr/{num}")
    world.assert_right(f"refs/pr/{num}")
    assert "the export options changed" in world.texts(num)[-1]


def test_a_title_changed_by_a_person_does_not_hide_our_pull_request(world: World) -> None:
    num = world.opened()
    world.act(world.owner, num, "title", {"title": "Please have a look at this"})
    assert (world.run().outcome, len(world.pull_requests())) == ("unchanged", 1)


def test_after_the_merge_nothing_changes(world: World) -> None:
    world.merge(world.opened())
    world.hub.push(world.repo, {"README.md": "# Now with ONNX\n"})
    world.hub.clear_journal()
    assert world.run().outcome == "unchanged"
    assert world.writes() == []
    assert world.last_job.exports == 0


def test_after_the_merge_new_weights_make_a_new_pull_request(world: World) -> None:
    world.merge(world.opened())
    sha = world.push_weights("second")
    result = world.run()
    assert (result.outcome, result.pull_request) == ("created", 2)
    assert world.manifest_at("refs/pr/2").source.sha == sha
    assert world.pull_request(2)["title"].startswith("Update")
    world.assert_right("refs/pr/2")


def test_a_folder_removed_after_the_merge_is_not_brought_back(world: World) -> None:
    world.merge(world.opened())
    world.hub.push(world.repo, delete=["onnx"])
    assert world.run().outcome == "declined"


def test_a_closed_pull_request_is_not_reopened(world: World) -> None:
    num = world.opened()
    world.close(num)
    world.hub.clear_journal()
    for settings in ({}, {"reopen": True}):
        result = world.run(**settings)
        assert (result.outcome, result.pull_request) == ("declined", num)
    assert world.writes() == []


def test_a_closed_pull_request_stays_closed_for_new_weights_alone(world: World) -> None:
    world.close(world.opened())
    world.push_weights("second")
    assert world.run().outcome == "declined"


def test_a_closed_pull_request_comes_back_for_new_weights_with_reopen(world: World) -> None:
    num = world.opened()
    world.close(num)
    world.push_weights("second")
    result = world.run(reopen=True)
    assert (result.outcome, result.pull_request, len(world.pull_requests())) == ("updated", num, 1)
    assert world.pull_request(num)["status"] == "open"
    world.assert_right(f"refs/pr/{num}")


def test_a_push_by_somebody_else_blocks_us_and_is_answered_once(world: World) -> None:
    num = world.opened()
    world.hub.push(world.repo, {"onnx/config.json": b"{}"}, revision=f"refs/pr/{num}", author=world.owner)
    world.push_weights("second")
    head = world.pull_request(num)["head"]
    for _ in range(2):
        assert world.run().outcome == "blocked"
    assert world.pull_request(num)["head"] == head
    assert len(world.texts(num)) == 2


def test_an_onnx_folder_that_is_not_ours_is_left_alone(world: World) -> None:
    world.hub.push(world.repo, {"onnx/model.onnx": weights("theirs")})
    world.hub.clear_journal()
    result = world.run()
    assert result.outcome == "skipped"
    assert "--replace" in result.reason
    assert world.writes() == []


def test_replace_says_what_it_replaces(world: World) -> None:
    world.hub.push(world.repo, {"onnx/model.onnx": weights("theirs"), "onnx/model_q4.onnx": weights("small")})
    result = world.run(replace=True)
    assert result.outcome == "created"
    assert result.body is not None
    assert "onnx/model_q4.onnx" in result.body
    assert "onnx/model_q4.onnx" not in world.folder("refs/pr/1")
    world.assert_right("refs/pr/1")
    assert world.run().outcome == "unchanged"  # and it stays though the folder on main is still not ours


def test_an_overtaken_pull_request_is_closed_with_the_reason(world: World) -> None:
    num = world.opened()
    world.hub.push(world.repo, world.folder(f"refs/pr/{num}"))
    result = world.run()
    assert (result.outcome, world.pull_request(num)["status"]) == ("closed", "closed")
    assert "default branch has this export" in world.texts(num)[-1]
    assert world.run().outcome == "unchanged"


def test_a_pull_request_overtaken_by_another_export_is_closed(world: World) -> None:
    num = world.opened()
    world.hub.push(world.repo, {"onnx/model.onnx": weights("theirs")})
    assert (world.run().outcome, world.pull_request(num)["status"]) == ("closed", "closed")


def test_an_unfinished_draft_is_filled_and_no_second_one_is_opened(world: World) -> None:
    world.hub.inject("status", code=403, route="commit", times=1)
    world.hub.inject("status", code=503, path="/discussions/.*/status", times=None)
    with pytest.raises(ForbiddenError):
        world.run()
    world.hub.clear_faults()
    (draft,) = world.pull_requests()
    assert draft["status"] == "draft"
    result = world.run()
    assert (result.outcome, result.pull_request, len(world.pull_requests())) == ("created", draft["num"], 1)
    world.assert_right(draft["ref"])


def test_a_draft_that_cannot_be_filled_is_closed_with_the_reason(world: World) -> None:
    world.hub.inject("status", code=403, route="commit", message="You may not", times=None)
    with pytest.raises(ForbiddenError):
        world.run()
    (draft,) = world.pull_requests()
    assert draft["status"] == "closed"
    assert "withdraw" in world.texts(draft["num"])[-1]
    world.hub.clear_faults()
    assert world.run().outcome == "created"  # our own withdrawal is no refusal


def test_what_the_hub_holds_already_is_not_uploaded_again(world: World) -> None:
    world.hub.clear_journal()
    world.hub.inject("status", code=502, route="commit", times=HASTY.attempts)
    with pytest.raises(HubUnavailableError):
        world.run()
    assert world.run().outcome == "created"
    uploads = [entry for entry in world.hub.journal() if entry["route"] == "storage_put"]
    assert len(uploads) == 1


def test_weights_that_change_during_the_export_are_exported_again(world: World) -> None:
    result = world.run(before_publishing=lambda: world.push_weights("second"))
    assert (result.outcome, world.last_job.exports, len(world.pull_requests())) == ("created", 2, 1)
    world.assert_right("refs/pr/1")
    assert world.manifest_at("refs/pr/1").source.sha == world.hub.commits(world.repo)[0]["sha"]


def test_a_person_who_closes_it_while_we_upload_has_the_last_word(world: World) -> None:
    num = world.opened()
    world.push_weights("second")
    job = PublishingJob(world.settings)
    commit = job.hub.commit

    def close_first(*arguments: Any, **options: Any) -> str:
        if world.pull_request(num)["status"] == "open":
            world.close(num)
        return commit(*arguments, **options)

    job.hub.commit = close_first  # type: ignore[method-assign]
    assert job.run(world.repo).outcome == "declined"
    assert world.pull_request(num)["status"] == "closed"
    assert len(world.texts(num)) == 1


def test_somebody_forging_our_title_and_marker_changes_nothing(world: World) -> None:
    world.opened()
    genuine = world.pull_request(1)
    world.hub.create_user("mallory")
    from huggingface_hub import HfApi

    mallory = HfApi(endpoint=world.hub.url, token=world.hub.create_token("mallory"))
    mallory.create_pull_request(world.repo, genuine["title"], description=world.texts(1)[0])
    world.close(1)
    assert world.run().outcome == "declined"  # the forged one is not taken for ours
    assert world.pull_request(2)["status"] == "draft"


# --- the repo and its rules ------------------------------------------------------------------------------------------


def test_disabled_discussions_are_a_typed_error_before_any_export(world: World) -> None:
    world.hub.set_repo(world.repo, discussions=False)
    with pytest.raises(PrsDisabledError):
        world.run()
    assert world.last_job.exports == 0


def test_a_gated_repo_is_a_typed_error(world: World) -> None:
    world.hub.set_repo(world.repo, gated="manual")
    with pytest.raises(GatedError):
        world.run()


def test_an_archived_repo_is_a_typed_error(world: World) -> None:
    world.hub.set_repo(world.repo, archived=True)
    with pytest.raises(ForbiddenError):
        world.run()
    assert world.pull_requests() == []


def test_a_disabled_repo_is_a_typed_error(world: World) -> None:
    world.hub.set_repo(world.repo, disabled=True)
    with pytest.raises(RepoDisabledError):
        world.run()


def test_an_unknown_repo_and_a_private_one_are_not_found(world: World) -> None:
    with pytest.raises(RepoNotFoundError):
        World(world.hub, "alice/nothing-here", world.settings, world.owner, world.bot).run()
    world.hub.set_repo(world.repo, private=True)
    with pytest.raises(RepoNotFoundError):
        world.run()
    with pytest.raises(RepoNotFoundError, match="give a token"):
        world.run(token=None, dry_run=True)


def test_an_unknown_revision_is_a_typed_error(world: World) -> None:
    with pytest.raises(RevisionNotFoundError):
        world.run(revision="v99")


def test_a_renamed_repo_is_followed(world: World) -> None:
    moved = f"{world.repo}-renamed"
    world.hub.set_repo(world.repo, moved_to=moved)
    result = world.run()
    assert (result.outcome, result.repo) == ("created", moved)
    assert any(moved in warning for warning in result.warnings)


def test_a_repo_deleted_or_hidden_during_the_export_is_a_typed_error(world: World) -> None:
    with pytest.raises(RepoNotFoundError):
        world.run(before_publishing=lambda: world.hub.set_repo(world.repo, private=True))


def test_a_read_only_token_is_refused_before_any_export(world: World) -> None:
    with pytest.raises(ForbiddenError, match="can only read"):
        world.run(token=Token(world.hub.create_token(world.bot, role="read")))
    assert world.last_job.exports == 0


def test_a_token_for_discussions_alone_is_enough(world: World) -> None:
    token = world.hub.create_token(
        world.bot, role="fineGrained", permissions={"global": ["discussion.write"], "scoped": []}
    )
    assert world.run(token=Token(token)).outcome == "created"


def test_an_unknown_token_is_a_typed_error(world: World) -> None:
    with pytest.raises(UnauthorizedError):
        world.run(token=Token("hf_doesnotexistatall"))


def test_a_run_without_token_says_what_to_do(world: World) -> None:
    with pytest.raises(ForbiddenError, match="HF_TOKEN"):
        world.run(token=None)


def test_an_empty_repo_is_a_typed_error(world: World) -> None:
    world.hub.seed_repo(f"{world.repo}-empty", {"config.json": CONFIG})
    with pytest.raises(RepoEmptyError):
        replace(world, repo=f"{world.repo}-empty").run()


def test_a_mirror_is_warned_about_in_result_and_body(world: World) -> None:
    world.hub.push(world.repo, {"README.md": "# Mirrored\n"}, message="Sync from GitHub via hub-sync")
    result = world.run()
    assert any("hub-sync" in warning for warning in result.warnings)
    assert "hub-sync" in world.texts(1)[0]


# --- the repo's own say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "---\nmodelexport:\n  enabled: false\n---\n# No\n"},
        {"README.md": "---\nmodelexport: false\n---\n# No\n"},
        {".modelexport.yaml": "enabled: false\n"},
    ],
)
def test_a_repo_can_opt_out(world: World, files: dict[str, str]) -> None:
    world.hub.push(world.repo, files)
    with pytest.raises(OptedOutError):
        world.run()
    assert world.pull_requests() == []


def test_a_repo_sets_options_and_the_operator_overrides_them(world: World) -> None:
    world.hub.push(world.repo, {".modelexport.yaml": "task: fill-mask\nopset: 17\n"})
    world.run(overrides=Overrides(opset=18))
    assert world.manifest_at("refs/pr/1").options == Options(task="fill-mask", opset=18)


def test_invalid_options_are_reported_once_and_nothing_is_guessed(world: World) -> None:
    world.hub.push(world.repo, {".modelexport.yaml": "task: fill-mask\ninclude: [tokenizer.json]\n"})
    for _ in range(2):
        with pytest.raises(OptionsInvalidError, match="no key include"):
            world.run()
    from huggingface_hub import DiscussionComment, HfApi

    anybody = HfApi(endpoint=world.hub.url, token=False)
    (report,) = anybody.get_repo_discussions(world.repo)
    assert (report.is_pull_request, report.author) == (False, world.bot)
    (comment,) = anybody.get_discussion_details(world.repo, report.num).events
    assert isinstance(comment, DiscussionComment)
    assert "there is no key include. The keys are enabled, task, opset, dtype, atol." in comment.content


def test_invalid_options_are_reported_in_our_open_pull_request(world: World) -> None:
    num = world.opened()
    world.hub.push(world.repo, {".modelexport.yaml": "opset: high\n"})
    for _ in range(2):
        with pytest.raises(OptionsInvalidError):
            world.run()
    assert len(world.texts(num)) == 2
    assert "opset" in world.texts(num)[-1]


def test_the_operators_lists_come_first(world: World) -> None:
    assert world.run(limits=Limits(deny=("alice/*",))).outcome == "skipped"
    assert world.run(limits=Limits(allow=("acme/*",))).outcome == "skipped"
    assert world.run(limits=Limits(allow=("alice/*",))).outcome == "created"


def test_the_operators_size_limit(world: World) -> None:
    with pytest.raises(TooLargeError):
        world.run(limits=Limits(max_size=1000))


def test_so_many_pull_requests_a_day_and_no_more(world: World) -> None:
    limits = Limits(pull_requests_per_owner=1)
    assert world.run(limits=limits).outcome == "created"
    other = f"{world.repo}-other"
    world.hub.seed_repo(other, {"config.json": CONFIG, "model.safetensors": weights("other")})
    result = replace(world, repo=other).run(limits=limits)
    assert (result.outcome, "24 hours" in result.reason) == ("skipped", True)


# --- dry run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_writes_nothing(world: World) -> None:
    world.hub.clear_journal()
    result = world.run(dry_run=True, token=None)
    assert result.outcome == "dry_run"
    assert result.title is not None
    assert result.body is not None
    assert "refs/pr/N" in result.body
    assert [file.path for file in result.files if file.path.endswith(".onnx")] == ["onnx/model.onnx"]
    assert world.writes() == []


def test_a_dry_run_of_an_update_shows_the_update(world: World) -> None:
    world.hub.push(world.repo, {"onnx/model.onnx": weights("theirs")})
    result = world.run(dry_run=True, replace=True)
    assert result.title is not None
    assert result.body is not None
    assert result.title.startswith("Replace")
    assert "onnx/model.onnx" in result.body


def test_the_comment_about_an_update_is_made_once_though_the_run_was_interrupted(world: World) -> None:
    num = world.opened()
    world.push_weights("second")
    world.hub.inject("status", code=502, route="edit_comment", times=HASTY.attempts)
    with pytest.raises(HubUnavailableError):
        world.run()
    assert world.run().outcome == "updated"
    assert len(world.texts(num)) == 2
    assert world.run().outcome == "unchanged"


def test_the_body_tells_a_stranger_what_they_need(world: World) -> None:
    world.opened()
    (body,) = world.texts(1)
    assert 'revision="refs/pr/1"' in body
    code = re.search(r"```python\n(.*?)```", body, re.DOTALL)
    assert code is not None
    compile(code.group(1), "snippet", "exec")
    for phrase in ("I am a bot", "tolerance", "<details>", "Provenance", "decline for good", "@modelexport-bot"):
        assert phrase in body
