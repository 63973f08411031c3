"""What the server answers to a delivery, before any job runs: who is believed, what is understood, what acted upon."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from modelexport.contract.errors import UsageError
from modelexport_bot.credentials import Token
from modelexport_bot.server import app, config
from modelexport_bot.server.router import Submitted
from modelexport_bot.server.webhook import LARGEST_BODY, SECRET_HEADER

SECRET = "correct horse battery staple"
OLD, NEW = "0" * 40, "1" * 40


@dataclass
class Desk:
    """Takes note of the jobs that are handed in; hands out the same job twice for the same."""

    jobs: list[str] = field(default_factory=list)

    def export(self, repo: str, sha: str, *, private: bool) -> Submitted:
        return self._note(f"{repo}@{sha}{' private' if private else ''}")

    def reply(self, repo: str, num: int, comment: str, *, private: bool) -> Submitted:
        return self._note(f"{repo}#{num}/{comment}")

    def _note(self, job: str) -> Submitted:
        new = job not in self.jobs
        self.jobs += [job] if new else []
        return Submitted(job, new)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(app.create(Token(SECRET), desk, lambda: [{"job": job} for job in desk.jobs]))


def push(ref: str = "refs/heads/main", new: str | None = NEW, old: str | None = OLD, **repo: Any) -> dict[str, Any]:
    """A delivery as the Hub writes it."""
    return {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": "acme/bert",
            "id": "6366c000a2abcdf2fd69a080",
            "private": False,
            "url": {"web": "https://huggingface.co/acme/bert", "api": "https://huggingface.co/api/models/acme/bert"},
            "owner": {"id": "61d2000c3c2083e1c08af22d"},
            "headSha": "2" * 40,
            "tags": ["transformers"],
            **repo,
        },
        "updatedRefs": [{"ref": ref, "oldSha": old, "newSha": new}],
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }


def comment(
    text: str = "@modelexport-bot rebuild", *, on_pull_request: bool = True, hidden: bool = False
) -> dict[str, Any]:
    return {
        "event": {"action": "create", "scope": "discussion.comment"},
        "repo": {"type": "model", "name": "acme/bert", "id": "6366c000a2abcdf2fd69a080", "private": False},
        "discussion": {"id": "639885d811ae2bad2b7ba461", "num": 3, "isPullRequest": on_pull_request, "status": "open"},
        "comment": {"id": "6398872887bfcfb93a306f18", "author": {"id": "61d2"}, "hidden": hidden, "content": text},
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }


def deliver(client: TestClient, payload: Any, secret: str | None = SECRET) -> Any:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {"Content-Type": "application/json"} | ({SECRET_HEADER: secret} if secret is not None else {})
    return client.post("/webhooks/hub", content=body, headers=headers)


# --- who is believed


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET[:-1], SECRET + "x", "é"])
def test_without_the_secret_nothing_happens(client: TestClient, desk: Desk, secret: str | None) -> None:
    encoded = None if secret is None else secret.encode()
    headers = {} if encoded is None else {SECRET_HEADER.encode(): encoded}
    answer = client.post("/webhooks/hub", content=json.dumps(push()).encode(), headers=headers)
    assert answer.status_code == 401
    assert SECRET not in answer.text
    assert desk.jobs == []


@pytest.mark.parametrize("body", [b"{", b"x" * (LARGEST_BODY + 1)])
def test_the_secret_is_looked_at_before_the_body(client: TestClient, body: bytes) -> None:
    assert deliver(client, body, secret="wrong").status_code == 401


@pytest.mark.parametrize("environment", [{}, {config.SECRET_VARIABLE: ""}, {config.SECRET_VARIABLE: "  "}])
def test_without_a_secret_of_its_own_the_server_does_not_start(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=config.SECRET_VARIABLE):
        config.secret_from(environment)


# --- what is understood


@pytest.mark.parametrize(
    "body", [b"", b"{", b"not json", json.dumps(push()).encode()[:-1], b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_json_is_refused(client: TestClient, desk: Desk, body: bytes) -> None:
    assert deliver(client, body).status_code == 400
    assert desk.jobs == []


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        "push",
        {"event": push()["event"]},
        push() | {"event": "repo.content"},
        push() | {"repo": {"type": "model"}},
        push() | {"updatedRefs": {"ref": "refs/heads/main"}},
        push(name="../../etc/passwd"),
        push(name="acme/bert\n"),
        push(name="a" * 300),
        push(new="main"),
        push(new="1" * 39),
        push(new=NEW + "; rm"),
        comment() | {"comment": {"id": "../x", "content": "@x"}},
    ],
)
def test_json_that_is_no_delivery_is_refused(client: TestClient, desk: Desk, wrong: Any) -> None:
    answer = deliver(client, wrong)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert desk.jobs == []


def test_a_body_that_is_too_large_is_refused_by_its_length(client: TestClient, desk: Desk) -> None:
    large = push() | {"padding": "x" * LARGEST_BODY}
    assert deliver(client, large).status_code == 413
    assert desk.jobs == []


def test_a_body_that_is_too_large_is_refused_without_a_declared_length(client: TestClient, desk: Desk) -> None:
    chunks = iter([json.dumps(push()).encode()[:-1], *[b" " * 65536] * 17])
    answer = client.post("/webhooks/hub", content=chunks, headers={SECRET_HEADER: SECRET})
    assert answer.status_code == 413
    assert desk.jobs == []


def test_fields_that_the_hub_may_add_do_not_matter(client: TestClient) -> None:
    assert deliver(client, push() | {"movedTo": None, "future": {"x": 1}}).status_code == 202


# --- what is acted upon


def test_a_push_to_main_is_a_job_for_the_pushed_commit(client: TestClient, desk: Desk) -> None:
    answer = deliver(client, push())
    assert answer.status_code == 202
    assert answer.json() == {"job": f"acme/bert@{NEW}", "new": True, "reason": "Recorded."}
    assert desk.jobs == [f"acme/bert@{NEW}"]


def test_the_same_delivery_twice_is_one_job(client: TestClient, desk: Desk) -> None:
    deliver(client, push())
    answer = deliver(client, push())
    assert (answer.status_code, answer.json()["new"]) == (202, False)
    assert len(desk.jobs) == 1


def test_the_first_push_to_a_repo_and_a_legacy_name_are_a_job_too(client: TestClient, desk: Desk) -> None:
    assert deliver(client, push(old=None)).status_code == 202
    assert deliver(client, push(name="bert-base-uncased")).status_code == 202
    assert len(desk.jobs) == 2


def test_main_is_found_among_other_refs(client: TestClient, desk: Desk) -> None:
    payload = push("refs/tags/v1")
    payload["updatedRefs"].append({"ref": "refs/heads/main", "oldSha": OLD, "newSha": "3" * 40})
    assert deliver(client, payload).status_code == 202
    assert desk.jobs == [f"acme/bert@{'3' * 40}"]


@pytest.mark.parametrize(
    "payload",
    [
        push("refs/pr/1"),
        push("refs/pr/1", old=None),
        push("refs/heads/dev"),
        push("refs/tags/main"),
        push("refs/heads/main/x"),
        push(new=None),
        push(type="dataset"),
        push(type="space"),
        push() | {"updatedRefs": []},
        {key: value for key, value in push().items() if key != "updatedRefs"},
        push() | {"event": {"action": "create", "scope": "repo"}},
        push() | {"event": {"action": "delete", "scope": "repo"}},
        push() | {"event": {"action": "update", "scope": "repo.config"}},
        push() | {"event": {"action": "update", "scope": "discussion"}},
        comment() | {"event": {"action": "update", "scope": "discussion.comment"}},
        comment() | {"discussion": None},
        comment(on_pull_request=False),
        comment(hidden=True),
        comment("Thanks, looks good!"),
        comment("mail me at jo@example.org"),
    ],
)
def test_everything_else_is_taken_note_of_and_left_alone(client: TestClient, desk: Desk, payload: Any) -> None:
    answer = deliver(client, payload)
    assert answer.status_code == 200
    assert answer.json()["reason"].endswith(".")
    assert desk.jobs == []


def test_a_comment_that_addresses_somebody_is_a_job(client: TestClient, desk: Desk) -> None:
    assert deliver(client, comment("Hello,\n @modelexport-bot help")).status_code == 202
    assert desk.jobs == ["acme/bert#3/6398872887bfcfb93a306f18"]


# --- the other paths


def test_health_and_jobs_need_no_secret(client: TestClient) -> None:
    deliver(client, push())
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/jobs").json() == {"jobs": [{"job": f"acme/bert@{NEW}"}]}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/webhooks/hub"])
def test_there_is_nothing_else_to_see(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)
