"""The admin API under `/_control/`: what tests and the demo do to the Hub that no client could. Not journalled."""

import base64
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from . import oidc
from .commits import commit_files
from .discussions import details_json
from .errors import HubError, bad_request
from .git import MAIN
from .info import commit_of
from .records import Org, Repo, Token, TokenRole, User
from .repos import apply_settings, ensure_namespace, make_repo, rename_repo
from .routing import Call, Router
from .webhooks import Delivery

if TYPE_CHECKING:
    from .hub import Hub

router = Router()


def _find(hub: "Hub", body: dict[str, Any]) -> Repo:
    repo = hub.repo(body.get("repo_type", "model"), body["repo_id"])
    if repo is None:
        raise HubError(404, f"No such repository: {body['repo_id']}")
    return repo


def _named(hub: "Hub", call: Call) -> Repo:
    """The repository that the query names."""
    return _find(hub, {"repo_id": call.text("repo_id"), "repo_type": call.text("repo_type", "model")})


# users, organisations, tokens


def _make_token(hub: "Hub", user: str, role: TokenRole, permissions: dict[str, Any], expires_in: float | None) -> Token:
    expires = None if expires_in is None else time.time() + expires_in
    token = Token(f"hf_{secrets.token_hex(17)}", user, role, f"{user}-{role}", permissions, expires=expires)
    hub.records.save(token)
    return token


@router.add("POST", "/_control/users")
async def create_user(hub: "Hub", call: Call) -> Response:
    """A user (made if need be) and a new token of theirs."""
    body = await call.json()
    if org := hub.records.get(Org, body["name"]):
        if org.members:
            raise HubError(409, f"{body['name']} is an organisation")
        hub.records.delete(org)  # only the namespace of a seeded repository, until now
    if hub.records.get(User, body["name"]) is None:
        hub.records.save(User(body["name"], body.get("fullname") or body["name"]))
    token = _make_token(hub, body["name"], body.get("role", "write"), body.get("permissions") or {}, None)
    return JSONResponse({"token": token.value})


@router.add("POST", "/_control/tokens")
async def create_token(hub: "Hub", call: Call) -> Response:
    body = await call.json()
    if hub.records.get(User, body["user"]) is None:
        raise HubError(404, f"No such user: {body['user']}")
    permissions = body.get("permissions") or {}
    token = _make_token(hub, body["user"], body.get("role", "write"), permissions, body.get("expires_in"))
    return JSONResponse({"token": token.value})


@router.add("POST", "/_control/tokens/expire")
async def expire_token(hub: "Hub", call: Call) -> Response:
    token = hub.records.get(Token, (await call.json())["token"])
    if token is None:
        raise HubError(404, "No such token")
    token.expires = 0.0
    hub.records.save(token)
    return JSONResponse({})


@router.add("POST", "/_control/orgs")
async def create_org(hub: "Hub", call: Call) -> Response:
    """An organisation, or more members for one that exists."""
    body = await call.json()
    org = hub.records.get(Org, body["name"]) or Org(body["name"])
    org.members |= body.get("members") or {}
    hub.records.save(org)
    return JSONResponse({"name": org.name, "members": org.members})


# repositories


def _files(body: dict[str, Any]) -> dict[str, bytes | Path]:
    """Contents by path: from the request (base64), or of a folder on this machine."""
    files: dict[str, bytes | Path] = {path: base64.b64decode(text) for path, text in (body.get("files") or {}).items()}
    if body.get("folder"):
        folder = Path(body["folder"])
        if not folder.is_dir():
            raise bad_request(f"No such folder: {folder}")
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and ".git" not in name.split("/") and not name.startswith(".cache/"):
                files[name] = path
    return files


@router.add("POST", "/_control/repos")
async def seed_repo(hub: "Hub", call: Call) -> Response:
    """A new repository with files in it. Its namespace becomes an organisation unless there is one already."""
    body = await call.json()
    name, kind = body["repo_id"], body.get("repo_type", "model")
    if hub.repo(kind, name):
        raise HubError(409, f"{name} exists already")
    namespace = name.split("/")[0] if "/" in name else "hub"
    ensure_namespace(hub, namespace)
    author = body.get("author") or namespace
    repo = make_repo(hub, kind, name, author, private=bool(body.get("private")))
    repo.gated = body.get("gated") or False
    repo.let_in = list(body.get("let_in") or [])
    hub.records.save(repo)
    if files := _files(body):
        commit_files(hub, repo, MAIN, files, [], body.get("message") or "Upload model", author)
    return JSONResponse({"sha": hub.head(repo)})


@router.add("POST", "/_control/repos/push")
async def push(hub: "Hub", call: Call) -> Response:
    """One commit by the repository's owner, as by `git push`."""
    body = await call.json()
    repo = _find(hub, body)
    revision = body.get("revision") or "main"
    ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
    if hub.git(repo).ref(ref) is None:
        raise HubError(404, f"No such ref: {ref}")
    author = body.get("author") or repo.namespace
    title = body.get("message") or "Update"
    sha = commit_files(hub, repo, ref, _files(body), list(body.get("delete") or []), title, author)
    return JSONResponse({"sha": sha})


@router.add("POST", "/_control/repos/set")
async def set_repo(hub: "Hub", call: Call) -> Response:
    """Settings of a repository; `let_in` adds users who may use it while it is gated, `moved_to` renames it."""
    body = await call.json()
    repo = _find(hub, body)
    changes = {
        name: body[name]
        for name in ("private", "gated", "discussions", "disabled", "archived", "downloads", "likes")
        if body.get(name) is not None
    }
    if body.get("let_in"):
        changes["let_in"] = sorted({*repo.let_in, *body["let_in"]})
    if changes:
        apply_settings(hub, repo, changes)
    if body.get("moved_to"):
        if hub.repo(repo.kind, body["moved_to"]):
            raise HubError(409, f"{body['moved_to']} exists already")
        rename_repo(hub, repo, body["moved_to"])
    return JSONResponse({})


@router.add("GET", "/_control/repos/files")
async def files(hub: "Hub", call: Call) -> Response:
    """Every file's content at a revision, base64; LFS files as what they stand for."""
    repo = _named(hub, call)
    git = hub.git(repo)
    contents = {}
    for path, file in git.listing(commit_of(hub, repo, call.text("revision") or "main")).files.items():
        content = hub.lfs(repo).path(file.lfs.sha256).read_bytes() if file.lfs else git.read(file.blob)
        contents[path] = base64.b64encode(content).decode()
    return JSONResponse(contents)


@router.add("GET", "/_control/repos/commits")
async def commits(hub: "Hub", call: Call) -> Response:
    """Newest first, with the paths that each commit changed."""
    repo = _named(hub, call)
    git = hub.git(repo)
    found = []
    for commit in git.history(commit_of(hub, repo, call.text("revision") or "main")):
        after = git.tree(commit.sha)
        before = git.tree(commit.parent) if commit.parent else {}
        paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        found.append(asdict(commit) | {"changed": paths})
    return JSONResponse(found)


@router.add("GET", "/_control/repos/pull-requests")
async def pull_requests(hub: "Hub", call: Call) -> Response:
    """Every pull request as its details, with `head`, the commit its ref points to; oldest first."""
    repo = _named(hub, call)
    git = hub.git(repo)
    return JSONResponse(
        [
            details_json(hub, repo, discussion, diff=False) | {"head": git.ref(discussion.ref), "ref": discussion.ref}
            for discussion in hub.records.discussions(repo)
            if discussion.is_pull_request
        ]
    )


# trusted publishers


@router.add("POST", "/_control/publishers")
async def trust_publisher(hub: "Hub", call: Call) -> Response:
    """Trust CI jobs with these claims: to write to a repository, or to read a user's gated ones."""
    body = await call.json()
    publisher = {"claims": body["claims"], "read_only": bool(body.get("read_only"))}
    target: Repo | User | None = _find(hub, body) if body.get("repo_id") else hub.records.get(User, body["user"])
    if target is None:
        raise HubError(404, f"No such user: {body['user']}")
    target.publishers.append(publisher)
    hub.records.save(target)
    return JSONResponse({})


@router.add("POST", "/_control/github-job")
async def github_job(hub: "Hub", call: Call) -> Response:
    """The environment of a GitHub Actions job with these claims and `id-token: write`."""
    claims = (await call.json()).get("claims") or {}
    request_token = oidc.mint(hub, {"job": claims, "exp": time.time() + 6 * 3600})
    return JSONResponse(
        {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{call.base_url}/_github/id-token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": request_token,
        }
    )


# behaviour


@router.add("POST", "/_control/settings")
async def change_settings(hub: "Hub", call: Call) -> Response:
    body = await call.json()
    settings = hub.settings
    for name, value in body.items():
        if not hasattr(settings, name) or name == "key":
            raise bad_request(f"Unknown setting: {name}")
        setattr(settings, name, value)
    hub.records.save(settings)
    hub.limits.clear()
    return JSONResponse(asdict(settings))


@router.add("GET", "/_control/settings")
async def show_settings(hub: "Hub", call: Call) -> Response:
    return JSONResponse(asdict(hub.settings))


@router.add("POST", "/_control/faults")
async def inject(hub: "Hub", call: Call) -> Response:
    try:
        fault = hub.faults.inject(await call.json())
    except (TypeError, ValueError) as error:
        raise bad_request(str(error)) from error
    return JSONResponse(asdict(fault))


@router.add("GET", "/_control/faults")
async def list_faults(hub: "Hub", call: Call) -> Response:
    return JSONResponse(hub.faults.describe())


@router.add("DELETE", "/_control/faults")
async def clear_faults(hub: "Hub", call: Call) -> Response:
    hub.faults.clear()
    return JSONResponse({})


@router.add("POST", "/_control/expire-urls")
async def expire_urls(hub: "Hub", call: Call) -> Response:
    """Make every signed storage URL given out so far invalid."""
    hub.signer.expire_all()
    return JSONResponse({})


# what happened


@router.add("GET", "/_control/journal")
async def journal(hub: "Hub", call: Call) -> Response:
    return JSONResponse([asdict(entry) for entry in hub.journal.entries])


@router.add("DELETE", "/_control/journal")
async def clear_journal(hub: "Hub", call: Call) -> Response:
    hub.journal.clear()
    return JSONResponse({})


@router.add("GET", "/_control/deliveries")
async def deliveries(hub: "Hub", call: Call) -> Response:
    """Webhook deliveries in the order they were queued; with `wait`, once all of them are through."""
    if call.flag("wait"):
        await hub.webhooks.drained()
    return JSONResponse([asdict(delivery) for delivery in hub.webhooks.deliveries])


@router.add("DELETE", "/_control/deliveries")
async def clear_deliveries(hub: "Hub", call: Call) -> Response:
    hub.webhooks.clear()
    return JSONResponse({})


@router.add("POST", "/_control/deliveries/replay")
async def replay(hub: "Hub", call: Call) -> Response:
    """Send a delivery again, as the button in the webhook's settings does."""
    wanted = (await call.json())["id"]
    for delivery in hub.webhooks.deliveries:
        if delivery.id == wanted:
            hub.webhooks.send(Delivery(delivery.webhook, delivery.url, delivery.payload))
            return JSONResponse({})
    raise HubError(404, "No such delivery")


@router.add("GET", "/_control/ping")
async def ping(hub: "Hub", call: Call) -> Response:
    return JSONResponse({"url": hub.url, "storage_url": hub.storage_url})
