"""Webhooks, received by a real little HTTP server."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, WebhookPayload
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from .conftest import World


@dataclass
class Receiver:
    """What arrived: headers and payload; `status` is what it answers."""

    url: str = ""
    status: int = 200
    received: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received.append((dict(self.headers), json.loads(body)))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    yield found
    server.shutdown()
    server.server_close()


class Hooked:
    """A world with one webhook of the bot's on the owner's repositories."""

    def __init__(self, world: World, receiver: Receiver, secret: str | None = "s3cret"):
        self.world, self.receiver = world, receiver
        self.hook = world.bot_api.create_webhook(
            url=receiver.url, watched=[{"type": "user", "name": world.owner}], secret=secret
        )

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """`scope:action` and payload of everything since the last look."""
        self.world.hub.deliveries(wait=True)
        found = [payload for _, payload in self.receiver.received]
        self.receiver.received.clear()
        for payload in found:
            assert payload["webhook"] == {"id": self.hook.id, "version": 3}
            WebhookPayload.model_validate(payload)
        return [(f"{payload['event']['scope']}:{payload['event']['action']}", payload) for payload in found]


@pytest.fixture
def hooked(world: World, receiver: Receiver) -> Hooked:
    return Hooked(world, receiver)


def names(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [name for name, _ in events]


def test_opening_a_pull_request_by_commit_tells_of_the_ref_and_of_the_discussion(hooked: Hooked) -> None:
    world = hooked.world
    commit = world.bot_api.create_commit(
        world.repo,
        [CommitOperationAdd("onnx/config.json", b"{}")],
        commit_message="Add ONNX",
        commit_description="Verified.",
        create_pr=True,
    )
    headers = hooked.receiver.received[0][0] if hooked.receiver.received else None
    (first, content), (second, created) = hooked.events()
    assert (first, second) == ("repo.content:update", "discussion:create")
    assert content["updatedRefs"] == [{"ref": "refs/pr/1", "oldSha": None, "newSha": commit.oid}]
    assert content["repo"]["headSha"] == world.bot_api.model_info(world.repo).sha
    assert "transformers" in content["repo"]["tags"]
    assert "headSha" not in created["repo"]
    assert created["repo"]["name"] == world.repo
    assert created["repo"]["url"]["api"] == f"{world.hub.url}/api/models/{world.repo}"
    discussion = created["discussion"]
    assert (discussion["num"], discussion["title"], discussion["status"]) == (1, "Add ONNX", "open")
    assert discussion["isPullRequest"] is True
    assert discussion["changes"] == {"base": "refs/heads/main"}
    assert discussion["url"]["web"] == commit.pr_url
    assert discussion["author"]["id"] == world.bot_api.whoami()["id"]
    assert (created["comment"]["content"], created["comment"]["hidden"]) == ("Verified.", False)
    assert headers is None or headers["X-Webhook-Secret"] == "s3cret"


def test_the_secret_travels_in_its_header(world: World, receiver: Receiver) -> None:
    for secret in ("s3cret", None):
        hooked = Hooked(world, receiver, secret)
        world.hub.push(world.repo, {"notes.txt": secret or "none"})
        world.hub.deliveries(wait=True)
        headers, _ = receiver.received[-1]
        assert headers["Content-Type"] == "application/json"
        assert headers.get("X-Webhook-Secret") == secret
        world.bot_api.delete_webhook(hooked.hook.id)


def test_a_draft_pull_request_is_announced_the_same_way(hooked: Hooked) -> None:
    hooked.world.bot_api.create_pull_request(hooked.world.repo, "Add ONNX", description="Soon")
    (first, content), (second, created) = hooked.events()
    assert (first, second) == ("repo.content:update", "discussion:create")
    assert content["updatedRefs"][0]["oldSha"] is None
    assert (created["discussion"]["status"], created["comment"]["content"]) == ("draft", "Soon")


def test_an_upstream_push_names_old_and_new_head(hooked: Hooked) -> None:
    old = hooked.world.bot_api.model_info(hooked.world.repo).sha
    new = hooked.world.hub.push(hooked.world.repo, {"model.safetensors": b"\0new weights"})
    ((name, payload),) = hooked.events()
    assert name == "repo.content:update"
    assert payload["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": old, "newSha": new}]
    assert payload["repo"]["headSha"] == new


def test_comments_edits_and_hiding_are_comment_events(hooked: Hooked) -> None:
    world = hooked.world
    number = world.pull_request()
    hooked.events()
    comment = world.bot_api.comment_discussion(world.repo, number, "Frist")
    world.bot_api.edit_discussion_comment(world.repo, number, comment.id, "First")
    with pytest.warns(UserWarning, match="irreversible"):
        world.bot_api.hide_discussion_comment(world.repo, number, comment.id)
    events = hooked.events()
    assert names(events) == ["discussion.comment:create"] + ["discussion.comment:update"] * 2
    assert [payload["comment"].get("content") for _, payload in events] == ["Frist", "First", None]
    assert {payload["comment"]["id"] for _, payload in events} == {comment.id}
    assert events[-1][1]["comment"]["hidden"] is True


def test_renaming_closing_and_reopening_update_the_discussion(hooked: Hooked) -> None:
    world = hooked.world
    number = world.pull_request()
    hooked.events()
    world.bot_api.rename_discussion(world.repo, number, "Better title")
    world.owner_api.change_discussion_status(world.repo, number, "closed", comment="No")
    world.owner_api.change_discussion_status(world.repo, number, "open")
    events = hooked.events()
    assert names(events) == ["discussion:update", "discussion:update", "discussion.comment:create", "discussion:update"]
    updates = [payload["discussion"] for name, payload in events if name == "discussion:update"]
    assert [(update["title"], update["status"]) for update in updates] == [
        ("Better title", "open"),
        ("Better title", "closed"),
        ("Better title", "open"),
    ]


def test_a_merge_tells_of_the_branch_and_of_the_merge_commit(hooked: Hooked) -> None:
    world = hooked.world
    number = world.pull_request()
    hooked.events()
    world.owner_api.merge_pull_request(world.repo, number)
    (first, content), (second, update) = hooked.events()
    assert (first, second) == ("repo.content:update", "discussion:update")
    assert content["updatedRefs"][0]["ref"] == "refs/heads/main"
    assert update["discussion"]["status"] == "merged"
    assert update["discussion"]["changes"]["mergeCommitId"] == content["updatedRefs"][0]["newSha"]


def test_refs_settings_and_the_repository_itself_have_their_events(hooked: Hooked) -> None:
    world, api = hooked.world, hooked.world.owner_api
    api.create_branch(world.repo, branch="dev")
    api.create_tag(world.repo, tag="v1")
    api.delete_branch(world.repo, branch="dev")
    api.super_squash_history(world.repo)
    events = hooked.events()
    assert names(events) == ["repo.content:update"] * 4
    assert [payload["updatedRefs"][0]["ref"] for _, payload in events] == [
        "refs/heads/dev",
        "refs/tags/v1",
        "refs/heads/dev",
        "refs/heads/main",
    ]
    assert events[2][1]["updatedRefs"][0]["newSha"] is None

    api.create_repo(f"{world.owner}/second")
    api.update_repo_settings(f"{world.owner}/second", private=False)
    api.update_repo_settings(f"{world.owner}/second", gated="auto")
    api.move_repo(f"{world.owner}/second", f"{world.owner}/third")
    api.delete_repo(f"{world.owner}/third")
    events = hooked.events()
    assert names(events) == ["repo:create", "repo.config:update", "repo.config:update", "repo:move", "repo:delete"]
    assert [events[1][1]["updatedConfig"], events[2][1]["updatedConfig"]] == [{"private": False}, {}]
    assert events[3][1]["movedTo"]["name"] == f"{world.owner}/third"


def test_events_of_private_repositories_reach_only_their_people(world: World, receiver: Receiver) -> None:
    stranger = Hooked(world, receiver)
    watched = [{"type": "user", "name": world.owner}]
    world.owner_api.create_webhook(url=receiver.url, watched=watched, domains=["repo"])
    world.hub.set_repo(world.repo, private=True)
    world.hub.deliveries(wait=True)
    receiver.received.clear()
    world.hub.push(world.repo, {"notes.txt": b"secret"})
    world.hub.deliveries(wait=True)
    assert len(receiver.received) == 1
    assert receiver.received[0][1]["webhook"]["id"] != stranger.hook.id


def test_a_webhook_hears_only_of_its_domains_and_of_what_it_watches(world: World, receiver: Receiver) -> None:
    api = world.bot_api
    api.create_webhook(url=receiver.url, watched=[{"type": "model", "name": world.repo}], domains=["discussion"])
    other = f"{world.owner}/other"
    world.hub.seed_repo(other)
    api.create_discussion(other, "Unwatched")
    world.hub.push(world.repo, {"notes.txt": b"unwatched"})
    api.create_discussion(world.repo, "Watched")
    world.hub.deliveries(wait=True)
    assert [payload["discussion"]["title"] for _, payload in receiver.received] == ["Watched"]


def test_a_failed_delivery_is_logged_and_not_repeated(world: World, receiver: Receiver) -> None:
    receiver.status = 500
    hooked = Hooked(world, receiver)
    world.hub.clear_deliveries()
    world.hub.push(world.repo, {"notes.txt": b"x"})
    delivery = next(item for item in world.hub.deliveries() if item["webhook"] == hooked.hook.id)
    assert (delivery["status"], delivery["error"]) == (500, None)
    assert len(receiver.received) == 1
    receiver.status = 200
    world.hub.replay(delivery["id"])
    world.hub.deliveries(wait=True)
    assert len(receiver.received) == 2, "only when somebody presses the button"


def test_nobody_listening_is_logged_too(world: World) -> None:
    hook = world.bot_api.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "model", "name": world.repo}])
    world.hub.push(world.repo, {"notes.txt": b"x"})
    delivery = next(item for item in world.hub.deliveries() if item["webhook"] == hook.id)
    assert delivery["status"] is None
    assert "Connection" in delivery["error"]


def test_the_order_of_events_can_be_turned_around(hooked: Hooked) -> None:
    hooked.world.hub.configure(webhook_order="reversed")
    hooked.world.pull_request()
    assert names(hooked.events()) == ["discussion:create", "repo.content:update"]


def test_webhooks_are_managed_by_their_owner(world: World, receiver: Receiver) -> None:
    api = world.bot_api
    hook = api.create_webhook(url=receiver.url, watched=[{"type": "model", "name": world.repo}], secret="one")
    assert api.get_webhook(hook.id) == hook
    assert api.list_webhooks() == [hook]
    assert world.owner_api.list_webhooks() == []
    changed = api.update_webhook(hook.id, secret="two", watched=[{"type": "user", "name": world.owner}])
    assert (changed.secret, changed.watched[0].name) == ("two", world.owner)
    assert api.disable_webhook(hook.id).disabled is True
    world.hub.push(world.repo, {"notes.txt": b"unheard"})
    assert api.enable_webhook(hook.id).disabled is False
    world.hub.push(world.repo, {"notes.txt": b"heard"})
    world.hub.deliveries(wait=True)
    assert len(receiver.received) == 1
    with pytest.raises(HfHubHTTPError) as error:
        world.owner_api.get_webhook(hook.id)
    assert error.value.response.status_code == 404
    with pytest.raises(BadRequestError):
        api.create_webhook(url=receiver.url, watched=[{"type": "planet", "name": "x"}])
    api.delete_webhook(hook.id)
    assert api.list_webhooks() == []
