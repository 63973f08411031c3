"""Repositories themselves: create, delete, move, settings, branches, tags, squashing history."""

import re
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from .access import Identity, check_owner, find_repo, org_role, signed_in
from .attributes import DEFAULT_GITATTRIBUTES
from .errors import NO_SUCH_REPO_ANONYMOUS, HubError, bad_request, forbidden, repo_not_found, revision_not_found
from .git import MAIN, REGULAR_MODE, GitRepo
from .records import Org, Repo, User
from .routing import Call, Router
from .webhooks import Event, owner_id, ref_update

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
KINDS = ("model", "dataset", "space")
REPO_NAME = re.compile(r"(?:[\w-][\w.-]{0,95}/)?[\w-][\w.-]{0,95}")
REF_NAME = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*")


def make_repo(hub: "Hub", kind: str, name: str, author: str, *, private: bool = False) -> Repo:
    """An empty repository: its first commit holds the Hub's default .gitattributes."""
    if kind not in KINDS or not REPO_NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise bad_request(f"Invalid repository: {kind} {name}")
    repo = Repo(kind, name, private=private)
    git = hub.git(repo)
    tree = {".gitattributes": (git.add_blob(DEFAULT_GITATTRIBUTES), REGULAR_MODE)}
    git.set_ref(MAIN, git.commit(None, tree, "initial commit", "", author))
    hub.records.save(repo)
    hub.webhooks.publish(repo, Event("repo", "create"))
    return repo


def _named(hub: "Hub", identity: Identity, body: dict[str, Any]) -> tuple[str, str]:
    """Kind and full name of the repository that a request body names; the namespace must be the caller's."""
    kind, namespace = body.get("type") or "model", body.get("organization") or identity.user.name
    if not isinstance(body.get("name"), str) or kind not in KINDS:
        raise bad_request("Expected a `name` and a known `type`")
    return kind, f"{namespace}/{body['name']}"


def _check_namespace(hub: "Hub", identity: Identity, name: str) -> None:
    namespace = name.split("/")[0]
    token = identity.token
    if token.resource is not None:  # huggingface_hub expects 401 for "a JWT token without create repo scope"
        raise HubError(401, NO_SUCH_REPO_ANONYMOUS)
    scoped = token.role != "fineGrained" or any(
        "repo.write" in scope["permissions"] and scope["entity"]["name"] in (namespace, name)
        for scope in token.permissions.get("scoped", [])
    )
    role = org_role(hub.records, identity.user.name, namespace)
    if token.role == "read" or not scoped or role not in ("admin", "write", "contributor"):
        raise forbidden(f'You don\'t have the rights to create a model under the namespace "{namespace}"')


@router.add("POST", "/api/repos/create", writes=True)
async def create_repo(hub: "Hub", call: Call) -> Response:
    identity = signed_in(call)
    body = await call.json()
    kind, name = _named(hub, identity, body)
    _check_namespace(hub, identity, name)
    url = call.base_url + Repo(kind, name).web_path
    if hub.repo(kind, name):
        message = f"You already created this {kind} repo"
        raise HubError(409, message, body={"error": message, "url": url})
    private = body.get("visibility") == "private" or bool(body.get("private"))
    repo = make_repo(hub, kind, name, identity.user.name, private=private)
    return JSONResponse({"url": url, "name": name, "id": repo.id})


def _own(hub: "Hub", call: Call, kind: str, name: str) -> Repo:
    """A repository named in a body, if the caller may write to it."""
    repo = hub.repo(kind, name)
    if repo is None:
        raise repo_not_found(call.identity is not None)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    return repo


@router.add("DELETE", "/api/repos/delete", writes=True)
async def delete_repo(hub: "Hub", call: Call) -> Response:
    identity = signed_in(call)
    kind, name = _named(hub, identity, await call.json())
    repo = _own(hub, call, kind, name)
    hub.webhooks.publish(repo, Event("repo", "delete"))
    hub.delete_repo(repo)
    return JSONResponse({})


@router.add("POST", "/api/repos/move", writes=True)
async def move_repo(hub: "Hub", call: Call) -> Response:
    identity = signed_in(call)
    body = await call.json()
    kind, target = body.get("type") or "model", str(body.get("toRepo"))
    repo = _own(hub, call, kind, str(body.get("fromRepo")))
    _check_namespace(hub, identity, target)
    if not REPO_NAME.fullmatch(target):
        raise bad_request(f"Invalid repository: {target}")
    if hub.repo(kind, target):
        raise HubError(409, f"{target} already exists")
    rename_repo(hub, repo, target)
    return JSONResponse({"url": call.base_url + repo.web_path})


def rename_repo(hub: "Hub", repo: Repo, target: str) -> None:
    """Move a repository and tell the webhooks that watch its old name."""
    owner = {"id": owner_id(hub, target.split("/")[0])}
    hub.webhooks.publish(repo, Event("repo", "move", moved_to={"name": target, "owner": owner}))
    hub.rename(repo, target)


@router.add("PUT", "/api/{kind}/{repo}/settings", writes=True)
async def settings(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    body = await call.json()
    changes: dict[str, Any] = {}
    if "visibility" in body or "private" in body:
        changes["private"] = body.get("visibility") == "private" or bool(body.get("private"))
    if "gated" in body:
        if body["gated"] not in (False, "auto", "manual"):
            raise bad_request("`gated` must be auto, manual or false")
        changes["gated"] = body["gated"]
    if "discussionsDisabled" in body:
        changes["discussions"] = not body["discussionsDisabled"]
    apply_settings(hub, repo, changes)
    return JSONResponse({"private": repo.private, "gated": repo.gated, "discussionsDisabled": not repo.discussions})


def apply_settings(hub: "Hub", repo: Repo, changes: dict[str, Any]) -> None:
    """Change a repository's settings. The webhook names only what the Hub supports there: `private`."""
    for name, value in changes.items():
        setattr(repo, name, value)
    hub.records.save(repo)
    updated = {"private": repo.private} if "private" in changes else {}
    hub.webhooks.publish(repo, Event("repo.config", "update", updated_config=updated))


# branches, tags, history


def _start(git: GitRepo, revision: str) -> str:
    commit = git.resolve(revision)
    if commit is None:
        raise revision_not_found(revision)
    return commit


def _ref_name(name: str) -> str:
    if not REF_NAME.fullmatch(name) or ".." in name or name.startswith("refs/"):
        raise bad_request(f"Invalid ref name: {name}")
    return name


@router.add("POST", "/api/{kind}/{repo}/branch/{branch}", writes=True)
async def create_branch(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    git, ref = hub.git(repo), f"refs/heads/{_ref_name(call.params['branch'])}"
    start = _start(git, str((await call.json()).get("startingPoint") or "main"))
    if git.ref(ref):
        raise HubError(409, f"Reference already exists: {ref}")
    git.set_ref(ref, start)
    hub.webhooks.publish(repo, ref_update(ref, None, start))
    return JSONResponse({})


@router.add("DELETE", "/api/{kind}/{repo}/branch/{branch}", writes=True)
async def delete_branch(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    git, ref = hub.git(repo), f"refs/heads/{call.params['branch']}"
    old = git.ref(ref)
    if old is None:
        raise revision_not_found(call.params["branch"])
    if ref == MAIN:
        raise forbidden("Cannot delete the default branch")
    git.delete_ref(ref)
    hub.webhooks.publish(repo, ref_update(ref, old, None))
    return JSONResponse({})


@router.add("POST", "/api/{kind}/{repo}/tag/{revision}", writes=True)
async def create_tag(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    identity = check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    body = await call.json()
    git, name = hub.git(repo), _ref_name(str(body.get("tag")))
    commit = _start(git, call.params["revision"])
    if git.ref(f"refs/tags/{name}"):
        raise HubError(409, f"Tag reference exists already: {name}")
    git.tag(name, commit, body.get("message"), identity.user.name)
    hub.webhooks.publish(repo, ref_update(f"refs/tags/{name}", None, commit))
    return JSONResponse({})


@router.add("DELETE", "/api/{kind}/{repo}/tag/{tag}", writes=True)
async def delete_tag(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    git, ref = hub.git(repo), f"refs/tags/{call.params['tag']}"
    old = git.ref(ref)
    if old is None:
        raise revision_not_found(call.params["tag"])
    git.delete_ref(ref)
    hub.webhooks.publish(repo, ref_update(ref, old, None))
    return JSONResponse({})


@router.add("POST", "/api/{kind}/{repo}/super-squash/{branch}", writes=True)
async def super_squash(hub: "Hub", call: Call) -> Response:
    """Replace a branch's history by one commit with the same files."""
    repo = find_repo(hub, call)
    identity = check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    git, ref = hub.git(repo), f"refs/heads/{call.params['branch']}"
    old = git.ref(ref)
    if old is None:
        raise revision_not_found(call.params["branch"])
    message = str((await call.json()).get("message") or "Super-squash")
    sha = git.commit(None, git.tree(old), message, "", identity.user.name)
    git.set_ref(ref, sha)
    hub.webhooks.publish(repo, ref_update(ref, old, sha))
    return JSONResponse({})


def ensure_namespace(hub: "Hub", name: str) -> None:
    """For seeding: an organisation of that name, unless there is a user or an organisation already."""
    if hub.records.get(User, name) is None and hub.records.get(Org, name) is None:
        hub.records.save(Org(name))
