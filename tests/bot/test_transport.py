"""What is repeated, how long is waited, and when it is given up. Against a small server over HTTP."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from modelexport.contract.errors import HubUnavailableError, RateLimitedError
from modelexport_bot.hub import transport
from modelexport_bot.hub.transport import PatientClient, Unsettled, asked_to_wait, jittered
from modelexport_bot.settings import Patience

PATIENCE = Patience(attempts=3, first_wait=0.01, longest_wait=0.02, total=2, connect=1, read=1)
Answer = tuple[int, dict[str, str]]


@dataclass
class Server:
    """Gives the answers in turn, the last one for ever; counts the requests."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [(200, {})])
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.seen.append(f"{self.command} {self.path}")
            status, headers = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            for name, value in {"Content-Length": "2", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


def test_a_read_is_repeated_until_it_succeeds(server: Server) -> None:
    server.answers = [(503, {}), (500, {}), (200, {})]
    assert PatientClient(PATIENCE).get(server.url).status_code == 200
    assert len(server.seen) == 3


def test_attempts_are_bounded(server: Server) -> None:
    server.answers = [(503, {})]
    with pytest.raises(HubUnavailableError, match="3 attempts"):
        PatientClient(PATIENCE).get(server.url)
    assert len(server.seen) == 3


def test_other_refusals_are_not_repeated(server: Server) -> None:
    server.answers = [(404, {})]
    assert PatientClient(PATIENCE).get(server.url).status_code == 404
    assert len(server.seen) == 1


@pytest.mark.parametrize("path", ["/api/models/a/b/commit/main", "/api/models/a/b/discussions/1/comment"])
def test_a_write_that_may_have_been_applied_is_not_repeated_blindly(server: Server, path: str) -> None:
    server.answers = [(502, {})]
    with pytest.raises(Unsettled):
        PatientClient(PATIENCE).post(server.url + path, json={})
    assert len(server.seen) == 1


def test_a_write_that_was_certainly_refused_is_repeated(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "0"}), (200, {})]
    assert PatientClient(PATIENCE).post(f"{server.url}/api/models/a/b/commit/main", json={}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/models/a/b/preupload/main",
        "/a/b.git/info/lfs/objects/batch",
        "/a/b.git/info/lfs/objects/verify",
        "/api/models/a/b/paths-info/main",
    ],
)
def test_posts_that_change_nothing_are_repeated(server: Server, path: str) -> None:
    server.answers = [(502, {}), (200, {})]
    assert PatientClient(PATIENCE).post(server.url + path, json={}).status_code == 200


def test_a_stream_is_not_sent_twice(server: Server) -> None:
    server.answers = [(503, {}), (200, {})]
    with pytest.raises(Unsettled):
        PatientClient(PATIENCE).put(server.url, content=iter([b"a", b"b"]))


def test_what_the_server_asks_for_is_waited_for(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "1"}), (200, {})]
    started = time.monotonic()
    PatientClient(PATIENCE).get(server.url)
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "120"}, {"RateLimit": '"api";r=0;t=120', "Retry-After": "0"}], ids=str
)
def test_a_wait_beyond_our_patience_is_a_typed_error_at_once(server: Server, headers: dict[str, str]) -> None:
    server.answers = [(429, headers)]
    started = time.monotonic()
    with pytest.raises(RateLimitedError, match="120 seconds"):
        PatientClient(PATIENCE).get(server.url)
    assert time.monotonic() - started < 1


def test_the_total_time_is_bounded(server: Server) -> None:
    server.answers = [(503, {"Retry-After": "1"})]
    started = time.monotonic()
    with pytest.raises(HubUnavailableError):
        PatientClient(replace(PATIENCE, attempts=100)).get(server.url)
    assert time.monotonic() - started < 3


def test_a_server_that_is_not_there(server: Server) -> None:
    with pytest.raises(HubUnavailableError, match="ConnectError"):
        PatientClient(PATIENCE).post("http://127.0.0.1:9/api/models/a/b/commit/main", json={})


def test_retry_after_may_be_a_date() -> None:
    response = httpx2.Response(503, headers={"Retry-After": formatdate(time.time() + 50, usegmt=True)})
    wait = asked_to_wait(response)
    assert wait is not None
    assert 45 < wait <= 50
    assert asked_to_wait(httpx2.Response(503, headers={"Retry-After": "soon"})) is None
    assert asked_to_wait(httpx2.Response(503)) is None


def test_waits_double_are_capped_and_differ() -> None:
    patience = Patience(first_wait=1, longest_wait=8)
    for attempt, full in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        waits = {jittered(patience, attempt) for _ in range(20)}
        assert all(full / 2 <= wait <= full for wait in waits)
        assert len(waits) > 1


def test_one_tls_context_serves_all_clients() -> None:
    assert transport._tls() is transport._tls()
