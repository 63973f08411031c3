"""Pull requests and discussions with the real client, from draft to merge."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DiscussionComment, DiscussionStatusChange
from huggingface_hub.community import DiscussionCommit, DiscussionTitleChange
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from huggingface_hub.utils import get_session

from .conftest import World


def push(world: World, number: int, path: str, content: bytes = b"{}", token: str | None = None) -> Any:
    return world.api(token or world.bot_token).create_commit(
        world.repo, [CommitOperationAdd(path, content)], commit_message=f"Add {path}", revision=f"refs/pr/{number}"
    )


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_a_commit_with_create_pr_opens_a_pull_request(world: World) -> None:
    commit = world.bot_api.create_commit(
        world.repo,
        [CommitOperationAdd("onnx/config.json", b"{}")],
        commit_message="Add ONNX",
        commit_description="Verified.",
        create_pr=True,
    )
    assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
    assert commit.pr_url == f"{world.hub.url}/{world.repo}/discussions/1"
    details = world.bot_api.get_discussion_details(world.repo, 1)
    assert (details.title, details.status, details.author) == ("Add ONNX", "open", world.bot)
    assert (details.is_pull_request, details.target_branch, details.conflicting_files) == (True, "refs/heads/main", [])
    first, second = details.events
    assert isinstance(first, DiscussionComment)
    assert (first.content, first.author) == ("Verified.", world.bot)
    assert isinstance(second, DiscussionCommit)
    assert (second.oid, second.summary) == (commit.oid, "Add ONNX")
    assert "onnx/config.json" not in world.hub.files(world.repo)
    assert world.hub.files(world.repo, "refs/pr/1")["onnx/config.json"] == b"{}"


def test_a_created_pull_request_is_a_draft_until_it_is_opened(world: World) -> None:
    api = world.bot_api
    created = api.create_pull_request(world.repo, "Add ONNX", description="First words")
    assert (created.status, created.num, created.git_reference) == ("draft", 1, "refs/pr/1")
    assert world.hub.commits(world.repo, "refs/pr/1") == world.hub.commits(world.repo)
    push(world, 1, "onnx/config.json")
    with pytest.raises(BadRequestError) as error:
        world.owner_api.merge_pull_request(world.repo, 1)
    assert status_of(error) == 400
    assert api.change_discussion_status(world.repo, 1, "open").new_status == "open"
    url = f"{world.hub.url}/api/models/{world.repo}/discussions/1/status"
    answer = get_session().post(url, json={"status": "draft"}, headers={"Authorization": f"Bearer {world.bot_token}"})
    assert answer.status_code == 400, "there is no way back"
    world.owner_api.merge_pull_request(world.repo, 1)


def test_the_diff_shows_new_changed_and_deleted_files(world: World) -> None:
    commit = world.bot_api.create_commit(
        world.repo,
        [
            CommitOperationAdd("notes.txt", b"one\ntwo\n"),
            CommitOperationAdd("config.json", b'{"model_type": "gpt2"}'),
            CommitOperationAdd("model.onnx", b"\0\1"),
            CommitOperationDelete("README.md"),
        ],
        commit_message="Change",
        create_pr=True,
    )
    assert commit.pr_num is not None
    diff = world.bot_api.get_discussion_details(world.repo, commit.pr_num).diff
    assert diff is not None
    assert "+++ b/notes.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n" in diff
    assert '+{"model_type": "gpt2"}\n\\ No newline at end of file\n' in diff
    assert "deleted file mode 100644" in diff
    assert "+oid sha256:" in diff


def test_discussions_are_listed_by_type_status_and_author_in_pages(world: World) -> None:
    bot, owner = world.bot_api, world.owner_api
    bot.create_discussion(world.repo, "A question", description="Why?")
    draft = bot.create_pull_request(world.repo, "A draft").num
    opened, closed, merged = (world.pull_request(f"{name}.txt") for name in ("opened", "closed", "merged"))
    bot.change_discussion_status(world.repo, closed, "closed")
    owner.merge_pull_request(world.repo, merged)
    owner.create_discussion(world.repo, "Mine")

    def numbers(**query: Any) -> list[int]:
        return [discussion.num for discussion in bot.get_repo_discussions(world.repo, **query)]

    assert numbers() == [6, 5, 4, 3, 2, 1]
    assert numbers(discussion_type="discussion") == [6, 1]
    assert numbers(discussion_type="pull_request", discussion_status="open") == [opened, draft]
    assert numbers(discussion_status="closed") == [merged, closed]
    assert numbers(author=world.owner) == [6]
    world.hub.configure(discussions_page=2)
    world.hub.clear_journal()
    assert numbers() == [6, 5, 4, 3, 2, 1]
    assert [entry["query"] for entry in world.hub.journal()] == ["p=0", "p=1", "p=2"]
    statuses = {discussion.num: discussion.status for discussion in bot.get_repo_discussions(world.repo)}
    assert statuses == {1: "open", 2: "draft", 3: "open", 4: "closed", 5: "merged", 6: "open"}


def test_comments_are_written_edited_by_their_author_and_hidden(world: World) -> None:
    number = world.pull_request()
    comment = world.bot_api.comment_discussion(world.repo, number, "Frist")
    edited = world.bot_api.edit_discussion_comment(world.repo, number, comment.id, "First")
    assert (edited.content, edited.edited, edited.number_of_edits) == ("First", True, 1)
    assert edited.last_edited_by == world.bot
    assert edited.rendered
    with pytest.raises(HfHubHTTPError) as error:
        world.owner_api.edit_discussion_comment(world.repo, number, comment.id, "Mine now")
    assert status_of(error) == 403
    stranger = world.api(world.hub.create_user(world.user("stranger")))
    with pytest.warns(UserWarning, match="irreversible"), pytest.raises(HfHubHTTPError) as error:
        stranger.hide_discussion_comment(world.repo, number, comment.id)
    assert status_of(error) == 403
    with pytest.warns(UserWarning, match="irreversible"):
        hidden = world.owner_api.hide_discussion_comment(world.repo, number, comment.id)
    assert hidden.hidden is True
    assert "First" not in hidden.content


def test_a_title_changes_for_its_author_and_for_writers(world: World) -> None:
    number = world.pull_request()
    change = world.bot_api.rename_discussion(world.repo, number, "Add ONNX (fp32)")
    assert isinstance(change, DiscussionTitleChange)
    assert (change.old_title, change.new_title) == ("Add ONNX", "Add ONNX (fp32)")
    world.owner_api.rename_discussion(world.repo, number, "Add ONNX weights")
    assert world.bot_api.get_discussion_details(world.repo, number).title == "Add ONNX weights"
    stranger = world.api(world.hub.create_user(world.user("stranger")))
    for refuse in (
        lambda: stranger.rename_discussion(world.repo, number, "Mine"),
        lambda: stranger.change_discussion_status(world.repo, number, "closed"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refuse()
        assert status_of(error) == 403


def test_a_pull_request_is_closed_with_a_comment_and_reopened(world: World) -> None:
    number = world.pull_request()
    change = world.owner_api.change_discussion_status(world.repo, number, "closed", comment="Not now")
    assert isinstance(change, DiscussionStatusChange)
    assert change.new_status == "closed"
    details = world.bot_api.get_discussion_details(world.repo, number)
    assert [event.content for event in details.events if isinstance(event, DiscussionComment)][-1] == "Not now"
    for token in (world.bot_token, world.owner_token):
        with pytest.raises(HfHubHTTPError) as error:
            push(world, number, "late.txt", token=token)
        assert status_of(error) == 403
    with pytest.raises(BadRequestError):
        world.owner_api.merge_pull_request(world.repo, number)
    world.bot_api.change_discussion_status(world.repo, number, "open")
    push(world, number, "again.txt")


def test_only_the_author_and_writers_push_to_a_pull_request(world: World) -> None:
    number = world.pull_request()
    push(world, number, "mine.txt")
    push(world, number, "owners.txt", token=world.owner_token)
    stranger = world.hub.create_user(world.user("stranger"))
    with pytest.raises(HfHubHTTPError) as error:
        push(world, number, "theirs.txt", token=stranger)
    assert status_of(error) == 403
    authors = [commit.authors for commit in world.bot_api.list_repo_commits(world.repo, revision=f"refs/pr/{number}")]
    assert authors[:2] == [[world.owner], [world.bot]]


def test_pushing_to_a_pull_request_names_its_ref_in_the_batch(world: World) -> None:
    number = world.pull_request()
    world.hub.clear_journal()
    push(world, number, "model.onnx", b"\0\1")
    paths = [entry["path"] for entry in world.hub.journal()]
    assert f"/api/models/{world.repo}/preupload/refs%2Fpr%2F{number}" in paths
    assert f"/api/models/{world.repo}/commit/refs%2Fpr%2F{number}" in paths


def test_merging_puts_the_changes_onto_the_branch_as_one_commit(world: World) -> None:
    number = world.pull_request("onnx/config.json")
    push(world, number, "onnx/model.onnx", b"\0\1")
    world.hub.push(world.repo, {"unrelated.txt": b"meanwhile"})
    with pytest.raises(HfHubHTTPError) as error:
        world.bot_api.merge_pull_request(world.repo, number)
    assert status_of(error) == 403
    world.owner_api.merge_pull_request(world.repo, number, comment="Thank you")
    files = world.hub.files(world.repo)
    assert {"onnx/config.json", "onnx/model.onnx", "unrelated.txt"} <= set(files)
    details = world.bot_api.get_discussion_details(world.repo, number)
    commit = world.bot_api.list_repo_commits(world.repo)[0]
    assert details.status == "merged"
    assert details.merge_commit_oid == commit.commit_id
    assert commit.title == f"Add ONNX (#{number})"
    assert commit.authors == [world.owner, world.bot]
    assert details.diff
    with pytest.raises(BadRequestError):
        world.owner_api.change_discussion_status(world.repo, number, "open")
    with pytest.raises(HfHubHTTPError) as error:
        push(world, number, "late.txt")
    assert status_of(error) == 403


def test_conflicts_are_listed_and_prevent_the_merge(world: World) -> None:
    number = world.pull_request("config.json", b'{"theirs": 1}')
    world.hub.push(world.repo, {"config.json": b'{"ours": 1}'})
    assert world.bot_api.get_discussion_details(world.repo, number).conflicting_files == ["config.json"]
    with pytest.raises(HfHubHTTPError) as error:
        world.owner_api.merge_pull_request(world.repo, number)
    assert status_of(error) == 409
    push(world, number, "config.json", b'{"ours": 1}')
    world.owner_api.merge_pull_request(world.repo, number)


def test_a_pull_request_that_deletes_what_main_changed_conflicts(world: World) -> None:
    world.bot_api.create_commit(
        world.repo, [CommitOperationDelete("config.json")], commit_message="Delete", create_pr=True
    )
    world.hub.push(world.repo, {"config.json": b"{}"})
    assert world.bot_api.get_discussion_details(world.repo, 1).conflicting_files == ["config.json"]


def test_a_discussion_has_no_branch_and_cannot_be_merged(world: World) -> None:
    discussion = world.bot_api.create_discussion(world.repo, "Question")
    assert discussion.status == "open"
    assert (discussion.git_reference, discussion.diff, discussion.conflicting_files) == (None, None, None)
    with pytest.raises(BadRequestError):
        world.owner_api.merge_pull_request(world.repo, discussion.num)
    assert world.bot_api.list_repo_refs(world.repo, include_pull_requests=True).pull_requests == []


def test_pull_requests_opened_at_the_same_time_get_numbers_of_their_own(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(world.pull_request, (f"{number}.txt" for number in range(16))))
    assert sorted(numbers) == list(range(1, 17))
    for number, request in enumerate(world.hub.pull_requests(world.repo), 1):
        assert len(world.hub.commits(world.repo, f"refs/pr/{number}")[0]["changed"]) == 1
        assert request["head"] == world.hub.commits(world.repo, f"refs/pr/{number}")[0]["sha"]


def test_a_discussion_that_does_not_exist_is_404(world: World) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        world.bot_api.get_discussion_details(world.repo, 99)
    assert status_of(error) == 404


def test_an_anonymous_reader_reads_discussions_and_writes_none(world: World) -> None:
    number = world.pull_request()
    assert world.anonymous.get_discussion_details(world.repo, number).title == "Add ONNX"
    with pytest.raises(HfHubHTTPError) as error:
        world.anonymous.comment_discussion(world.repo, number, "Hello")
    assert status_of(error) == 401
