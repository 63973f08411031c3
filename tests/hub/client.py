"""`LocalHub`: start the local Hub as a process of its own, and drive it. Needs nothing but the standard library.

with LocalHub(tmp_path / "hub") as hub:
    token = hub.create_user("alice")
    hub.seed_repo("acme/bert", {"config.json": b"{}"})
    HfApi(endpoint=hub.url, token=token).model_info("acme/bert")
"""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT = 30.0

Json = dict[str, Any]
Gated = Literal[False, "auto", "manual"]


class ControlError(Exception):
    """The control API refused; the message says why."""


class LocalHub:
    """A local Hub. The process dies with this one, whatever happens; its state stays in `root`.

    root: folder for the state. port: 0 for any free one, kept by `restart`. python: an interpreter that has
    dulwich, starlette, uvicorn and PyYAML.
    """

    def __init__(self, root: str | Path, *, port: int = 0, host: str = "127.0.0.1", python: str | None = None):
        self.root = Path(root)
        self.host = host
        self.python = python or os.environ.get("MODELEXPORT_HUB_PYTHON") or sys.executable
        self.port, self.storage_port = port, 0
        self.url = ""
        self.storage_url = ""
        self.process: subprocess.Popen[bytes] | None = None

    # the process

    def start(self) -> "LocalHub":
        """Start, and wait until it listens. Raises `RuntimeError` when it does not."""
        command = [self.python, "-m", "tests.hub", "--root", str(self.root), "--host", self.host, "--until-eof"]
        command += ["--port", str(self.port), "--storage-port", str(self.storage_port)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError("the local Hub did not start: see its output above")
        addresses = json.loads(line)
        self.url, self.storage_url = addresses["url"], addresses["storage_url"]
        self.port, self.storage_port = (urlsplit(url).port or 0 for url in (self.url, self.storage_url))
        return self

    def stop(self) -> None:
        """Stop in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop at once, in the middle of whatever it was doing."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill and start again, with the same state on the same ports."""
        self.kill()
        self.start()

    def pause_listening(self) -> None:
        """Close the listening sockets and every connection.

        Clients get "connection refused" until `resume_listening`.
        """
        self._signal(signal.SIGUSR1, listening=False)

    def resume_listening(self) -> None:
        self._signal(signal.SIGUSR2, listening=True)

    def __enter__(self) -> "LocalHub":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # a client holds a request open
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _signal(self, number: signal.Signals, listening: bool) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        deadline = time.monotonic() + START_TIMEOUT
        while self._accepts(self.port) != listening or self._accepts(self.storage_port) != listening:
            if time.monotonic() > deadline:
                raise RuntimeError("the local Hub did not react")
            time.sleep(0.005)

    def _accepts(self, port: int) -> bool:
        try:
            socket.create_connection((self.host, port), timeout=5).close()
        except OSError:
            return False
        return True

    def environment(
        self, home: str | Path, token: str | None = None, base: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The environment for a child process that is to use this Hub.

        `base` (default: ours) without its Hugging Face settings, plus HF_ENDPOINT, HF_HOME, HF_TOKEN and no Xet.
        """
        environment = dict(os.environ if base is None else base)
        for name in list(environment):
            if name.startswith(("HF_", "HUGGING")):
                del environment[name]
        environment |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if token is not None:
            environment["HF_TOKEN"] = token
        return environment

    # users, organisations, tokens

    def create_user(
        self,
        name: str,
        *,
        role: Literal["read", "write", "fineGrained"] = "write",
        permissions: Json | None = None,
        fullname: str | None = None,
    ) -> str:
        """A user (made if need be). Returns a new token of theirs."""
        body = {"name": name, "role": role, "permissions": permissions, "fullname": fullname}
        return str(self._post("users", body)["token"])

    def create_token(
        self,
        user: str,
        *,
        role: Literal["read", "write", "fineGrained"] = "write",
        permissions: Json | None = None,
        expires_in: float | None = None,
    ) -> str:
        """Another token. `permissions` of a fine-grained one: `{"global": [..], "scoped": [{"entity": {"name": ..},
        "permissions": [..]}]}`; `expires_in` in seconds."""
        body = {"user": user, "role": role, "permissions": permissions, "expires_in": expires_in}
        return str(self._post("tokens", body)["token"])

    def expire_token(self, token: str) -> None:
        self._post("tokens/expire", {"token": token})

    def create_org(self, name: str, members: Mapping[str, str] | None = None) -> None:
        """An organisation, or more members: user name -> `admin`, `write`, `contributor` or `read`."""
        self._post("orgs", {"name": name, "members": dict(members or {})})

    # repositories

    def seed_repo(
        self,
        repo_id: str,
        files: str | Path | Mapping[str, bytes | str] | None = None,
        *,
        repo_type: str = "model",
        private: bool = False,
        gated: Gated = False,
        let_in: Sequence[str] = (),
        author: str | None = None,
        message: str | None = None,
    ) -> str:
        """A new repository holding a folder's files or the given ones. Returns the head of `main`."""
        body: Json = {
            "repo_id": repo_id,
            "repo_type": repo_type,
            "private": private,
            "gated": gated,
            "let_in": list(let_in),
            "author": author,
            "message": message,
        }
        return str(self._post("repos", body | _contents(files))["sha"])

    def push(
        self,
        repo_id: str,
        files: str | Path | Mapping[str, bytes | str] | None = None,
        *,
        message: str | None = None,
        delete: Sequence[str] = (),
        revision: str = "main",
        author: str | None = None,
        repo_type: str = "model",
    ) -> str:
        """One commit of the repository's owner. Returns its sha."""
        body: Json = {
            "repo_id": repo_id,
            "repo_type": repo_type,
            "message": message,
            "delete": list(delete),
            "revision": revision,
            "author": author,
        }
        return str(self._post("repos/push", body | _contents(files))["sha"])

    def set_repo(
        self,
        repo_id: str,
        *,
        repo_type: str = "model",
        private: bool | None = None,
        gated: Gated | None = None,
        let_in: Sequence[str] = (),
        discussions: bool | None = None,
        disabled: bool | None = None,
        archived: bool | None = None,
        downloads: int | None = None,
        likes: int | None = None,
        moved_to: str | None = None,
    ) -> None:
        """Change settings; what is `None` stays. `let_in` adds users to those who may use a gated repository."""
        body = {
            "repo_id": repo_id,
            "repo_type": repo_type,
            "private": private,
            "gated": gated,
            "let_in": list(let_in),
            "discussions": discussions,
            "disabled": disabled,
            "archived": archived,
            "downloads": downloads,
            "likes": likes,
            "moved_to": moved_to,
        }
        self._post("repos/set", body)

    def files(self, repo_id: str, revision: str = "main", *, repo_type: str = "model") -> dict[str, bytes]:
        """Every file's content at a branch, tag, `refs/pr/N` or commit."""
        found = self._get("repos/files", repo_id=repo_id, repo_type=repo_type, revision=revision)
        return {path: base64.b64decode(text) for path, text in found.items()}

    def commits(self, repo_id: str, revision: str = "main", *, repo_type: str = "model") -> list[Json]:
        """Newest first: `sha, tree, parent, title, message, authors, time, changed` (paths)."""
        found: list[Json] = self._get("repos/commits", repo_id=repo_id, repo_type=repo_type, revision=revision)
        return found

    def pull_requests(self, repo_id: str, *, repo_type: str = "model") -> list[Json]:
        """Oldest first: the API's details (`num, title, status, author, events, changes, filesWithConflicts, ..`) plus
        `ref` and `head`."""
        found: list[Json] = self._get("repos/pull-requests", repo_id=repo_id, repo_type=repo_type)
        return found

    # trusted publishers

    def trust_publisher(
        self,
        claims: Mapping[str, str],
        *,
        repo_id: str | None = None,
        repo_type: str = "model",
        user: str | None = None,
        read_only: bool = False,
    ) -> None:
        """Let CI jobs with these claims write to a repository, or read the gated repositories of a user."""
        body = {
            "claims": dict(claims),
            "repo_id": repo_id,
            "repo_type": repo_type,
            "user": user,
            "read_only": read_only,
        }
        self._post("publishers", body)

    def github_job(self, claims: Mapping[str, str]) -> dict[str, str]:
        """Environment variables of a GitHub Actions job whose identity token carries these claims."""
        found: dict[str, str] = self._post("github-job", {"claims": dict(claims)})
        return found

    # behaviour

    def configure(self, **settings: Any) -> Json:
        """Change `Settings` (records.py): `tree_page=2` or `rate_limits={"api": [3, 300]}`. Returns all of them."""
        found: Json = self._post("settings", settings) if settings else self._get("settings")
        return found

    def inject(self, kind: str, **fault: Any) -> Json:
        """Add a fault; the arguments are the fields of `faults.Fault`. Returns it with its id."""
        found: Json = self._post("faults", {"kind": kind, **fault})
        return found

    def faults(self) -> list[Json]:
        """The faults as they stand, with `fired` counted."""
        found: list[Json] = self._get("faults")
        return found

    def clear_faults(self) -> None:
        self._send("DELETE", "faults")

    def expire_urls(self) -> None:
        """Make every signed storage URL given out so far invalid."""
        self._post("expire-urls", {})

    # what happened

    def journal(self) -> list[Json]:
        """Every request since `clear_journal`: `index, method, path, query, route, repo, user, authorization, status,
        wrote, fault, time, seconds`."""
        found: list[Json] = self._get("journal")
        return found

    def clear_journal(self) -> None:
        """Forget the journal; the next request has index 1."""
        self._send("DELETE", "journal")

    def deliveries(self, *, wait: bool = True) -> list[Json]:
        """Webhook deliveries: `id, webhook, url, payload, status, error, done, time`. Waits for those under way."""
        found: list[Json] = self._get("deliveries", wait="1" if wait else "0")
        return found

    def clear_deliveries(self) -> None:
        self._send("DELETE", "deliveries")

    def replay(self, delivery: str) -> None:
        """Send a webhook delivery again."""
        self._post("deliveries/replay", {"id": delivery})

    def _get(self, path: str, **query: str) -> Any:
        return self._send("GET", f"{path}?{urlencode(query)}" if query else path)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._send("POST", path, json.dumps(body).encode())

    def _send(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}/_control/{path}", data=body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ControlError(f"{method} {path}: {error.code} {error.headers.get('X-Error-Message')}") from None


def _contents(files: str | Path | Mapping[str, bytes | str] | None) -> Json:
    """Files as the control API takes them: a folder by name, anything else by value."""
    if files is None:
        return {}
    if isinstance(files, str | Path):
        return {"folder": str(Path(files).resolve())}
    encoded = {path: content.encode() if isinstance(content, str) else content for path, content in files.items()}
    return {"files": {path: base64.b64encode(content).decode() for path, content in encoded.items()}}
