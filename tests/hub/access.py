"""Who is asking, and what they may do: users, organisation roles, tokens, private, gated and disabled repositories."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import (
    BAD_CREDENTIALS,
    DISABLED,
    NEEDS_PULL_REQUEST,
    NO_SUCH_REPO_ANONYMOUS,
    READ_TOKEN,
    HubError,
    MovedError,
    forbidden,
    repo_not_found,
)
from .records import Discussion, Org, Records, Repo, Token, User
from .routing import Call

if TYPE_CHECKING:
    from .hub import Hub


@dataclass(frozen=True)
class Identity:
    """A user, acting through one token."""

    user: User
    token: Token


def identify(records: Records, authorization: str | None) -> Identity | None:
    """Whose token this is; `None` without a header. Raises 401 for a token that is unknown or past its time."""
    if authorization is None:
        return None
    scheme, _, value = authorization.partition(" ")
    token = records.get(Token, value.strip()) if scheme.lower() == "bearer" else None
    user = records.get(User, token.user) if token else None
    if token is None or user is None or (token.expires is not None and token.expires <= time.time()):
        raise HubError(401, BAD_CREDENTIALS)
    return Identity(user, token)


def signed_in(call: Call) -> Identity:
    if call.identity is None:
        raise HubError(401, NO_SUCH_REPO_ANONYMOUS)
    return call.identity


def org_role(records: Records, user: str, namespace: str) -> str | None:
    """`admin` in one's own namespace, one's role in an organisation, `None` elsewhere."""
    if user == namespace:
        return "admin"
    org = records.get(Org, namespace)
    return org.members.get(user) if org else None


def _granted(token: Token, repo: Repo, permission: str) -> bool:
    """Whether a fine-grained token carries a permission for this repository."""
    if permission in token.permissions.get("global", []):
        return True
    return any(
        permission in scope["permissions"] and scope["entity"]["name"] in (repo.name, repo.namespace)
        for scope in token.permissions.get("scoped", [])
    )


def can_read(records: Records, identity: Identity | None, repo: Repo) -> bool:
    if not repo.private:
        return True
    if identity is None:
        return False
    token = identity.token
    if token.resource is not None:
        return token.resource == repo.key
    if org_role(records, identity.user.name, repo.namespace) is None:
        return False
    if token.role == "fineGrained":
        return _granted(token, repo, "repo.content.read") or _granted(token, repo, "repo.write")
    return True


def can_write(records: Records, identity: Identity | None, repo: Repo) -> bool:
    if identity is None or identity.token.role == "read":
        return False
    token = identity.token
    if token.resource is not None:
        return token.resource == repo.key
    if org_role(records, identity.user.name, repo.namespace) not in ("admin", "write"):
        return False
    return token.role == "write" or _granted(token, repo, "repo.write")


def may_discuss(identity: Identity, repo: Repo) -> bool:
    """Whether the token may open pull requests and comment; whoever may write with it may discuss as well."""
    token = identity.token
    if token.resource is not None:
        return token.resource == repo.key and token.role == "write"
    if token.role == "fineGrained":
        return _granted(token, repo, "discussion.write") or _granted(token, repo, "repo.write")
    return token.role == "write"


def find_repo(hub: "Hub", call: Call) -> Repo:
    """The repository that a request names, if the caller may know of it.

    Raises 401/404 `RepoNotFound` when missing or private, 307 when it has another name now, 403 when disabled.
    """
    name = call.params["repo"]
    repo = hub.repo(call.kind, name)
    if repo is None:
        moved = hub.redirect(call.kind, name)
        if moved is None or not can_read(hub.records, call.identity, moved):
            raise repo_not_found(call.identity is not None)
        raise MovedError(_elsewhere(call, moved.name))
    if not can_read(hub.records, call.identity, repo):
        raise repo_not_found(call.identity is not None)
    if repo.disabled:
        raise forbidden(DISABLED)
    return repo


def _elsewhere(call: Call, new: str) -> str:
    """The same request under the repository's new name: path only, so that every client follows it."""
    match = call.route.pattern.fullmatch(call.raw_path)
    assert match is not None
    start, end = match.span("repo")
    path = call.raw_path[:start] + new + call.raw_path[end:]
    query = call.request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def check_gate(hub: "Hub", call: Call, repo: Repo) -> None:
    """Files of a gated repository, and writing to it, are for its people and for those who were let in."""
    if not repo.gated:
        return
    if call.identity is None:
        raise HubError(
            401, f"Access to model {repo.name} is restricted. You must be authenticated to access it.", "GatedRepo"
        )
    name, token = call.identity.user.name, call.identity.token
    if token.resource == repo.key:
        return
    granted = token.permissions.get("canReadGatedRepos") or any(
        _granted(token, repo, permission) for permission in ("repo.content.read", "repo.write")
    )
    if token.role == "fineGrained" and not granted:
        raise HubError(
            403,
            "Please enable access to public gated repositories in your fine-grained token settings"
            " to view this repository.",
            "GatedRepo",
        )
    if name not in repo.let_in and org_role(hub.records, name, repo.namespace) is None:
        raise HubError(
            403,
            f"Access to model {repo.name} is restricted and you are not in the authorized list."
            f" Visit {call.base_url}{repo.web_path} to ask for access.",
            "GatedRepo",
        )


def check_writer(call: Call, repo: Repo) -> Identity:
    """The caller, if the token may write anything at all and the repository accepts it."""
    if call.identity is None:
        raise HubError(401, NO_SUCH_REPO_ANONYMOUS, "RepoNotFound")
    if call.identity.token.role == "read":
        raise forbidden(READ_TOKEN)
    if repo.archived:
        raise forbidden("This repository is archived and cannot be changed.")
    return call.identity


def check_owner(hub: "Hub", call: Call, repo: Repo, message: str = NEEDS_PULL_REQUEST) -> Identity:
    """The caller, if they may change branches and settings of the repository."""
    identity = check_writer(call, repo)
    if not can_write(hub.records, identity, repo):
        raise forbidden(message)
    return identity


def check_ref(hub: "Hub", call: Call, repo: Repo, ref: str, message: str = NEEDS_PULL_REQUEST) -> Identity:
    """The caller, if they may push to this ref: writers everywhere they like, authors to their own open pull request.

    Nobody pushes to a pull request that is closed or merged.
    """
    identity = check_writer(call, repo)
    discussion = pull_request_of(hub, repo, ref)
    if discussion is None:
        return check_owner(hub, call, repo, message)
    check_discussions(repo)
    if discussion.status in ("closed", "merged"):
        raise forbidden(f"Forbidden: pull request {discussion.num} is {discussion.status}.")
    own = discussion.author == identity.user.name and may_discuss(identity, repo)
    if not own and not can_write(hub.records, identity, repo):
        raise forbidden(message)
    return identity


def check_discuss(hub: "Hub", call: Call, repo: Repo) -> Identity:
    """The caller, if they may open discussions and pull requests and comment."""
    check_gate(hub, call, repo)
    identity = check_writer(call, repo)
    check_discussions(repo)
    if not may_discuss(identity, repo):
        raise forbidden("Forbidden: this token may not write discussions (permission discussion.write).")
    return identity


def check_discussions(repo: Repo) -> None:
    if not repo.discussions:
        raise forbidden("Discussions are disabled for this repo")


def pull_request_of(hub: "Hub", repo: Repo, ref: str) -> Discussion | None:
    num = ref.removeprefix("refs/pr/")
    return hub.discussion(repo, int(num)) if ref.startswith("refs/pr/") and num.isdigit() else None


def author_json(records: Records, name: str) -> dict[str, Any]:
    """A user as the API shows authors."""
    user = records.get(User, name)
    return {
        "_id": user.id if user else None,
        "avatarUrl": f"/avatars/{name}.svg",
        "fullname": user.fullname if user else name,
        "name": name,
        "type": "user",
        "isPro": False,
        "isHf": False,
        "isMod": False,
    }
