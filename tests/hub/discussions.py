"""Discussions and pull requests: list, read, open, comment, edit, hide, rename, close and reopen, merge."""

import html
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from . import merging
from .access import (
    author_json,
    can_write,
    check_discuss,
    check_discussions,
    check_owner,
    find_repo,
    signed_in,
)
from .errors import HubError, bad_request, forbidden
from .git import MAIN
from .records import Discussion, Repo, Status, iso, new_id
from .routing import Call, Router
from .webhooks import Event, owner_id, ref_update

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
MAX_COMMENT = 65_536
HIDDEN = "This comment has been hidden"


# events


def _event(kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"id": new_id(), "author": author, "createdAt": iso(time.time()), "type": kind, "data": data}


def commit_event(author: str, sha: str, subject: str) -> dict[str, Any]:
    return _event("commit", author, {"subject": subject, "oid": sha})


def comment_event(author: str, content: str) -> dict[str, Any]:
    latest = {"raw": content, "html": _html(content), "updatedAt": iso(time.time()), "author": author}
    data = {"edited": False, "hidden": False, "latest": latest, "history": [], "numEdits": 0, "reactions": []}
    return _event("comment", author, data)


def _html(content: str) -> str:
    return f"<p>{html.escape(content)}</p>"


def event_json(hub: "Hub", event: dict[str, Any]) -> dict[str, Any]:
    """An event as the API shows it: with whole authors instead of names."""
    shown = event | {"author": author_json(hub.records, event["author"])}
    if event["type"] == "comment":
        latest = event["data"]["latest"]
        latest = latest | {"author": author_json(hub.records, latest["author"])}
        shown["data"] = event["data"] | {"latest": latest, "numEdits": len(event["data"]["history"])}
    return shown


# reading


def summary_json(hub: "Hub", repo: Repo, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "author": author_json(hub.records, discussion.author),
        "repo": {"name": repo.name, "type": repo.kind},
        "title": discussion.title,
        "status": discussion.status,
        "createdAt": iso(discussion.created),
        "isPullRequest": discussion.is_pull_request,
        "numComments": sum(event["type"] == "comment" for event in discussion.events),
        "topReactions": [],
        "numReactionUsers": 0,
        "pinned": False,
        "repoOwner": {"name": repo.namespace, "id": owner_id(hub, repo.namespace)},
    }


def details_json(hub: "Hub", repo: Repo, discussion: Discussion, diff: bool) -> dict[str, Any]:
    shown = summary_json(hub, repo, discussion) | {
        "events": [event_json(hub, event) for event in discussion.events],
        "locked": False,
        "filesWithConflicts": None,
    }
    if not discussion.is_pull_request:
        return shown
    git = hub.git(repo)
    shown["changes"] = {"base": discussion.base}
    if discussion.merge_commit:
        shown["changes"]["mergeCommitId"] = discussion.merge_commit
    shown["filesWithConflicts"] = [] if discussion.status == "merged" else merging.conflicts(git, discussion)
    if diff:
        shown["diff"] = merging.diff(git, discussion)
    return shown


def find_discussion(hub: "Hub", call: Call) -> tuple[Repo, Discussion]:
    repo = find_repo(hub, call)
    check_discussions(repo)
    discussion = hub.discussion(repo, int(call.params["num"]))
    if discussion is None:
        raise HubError(404, "Discussion not found")
    return repo, discussion


@router.add("GET", "/api/{kind}/{repo}/discussions")
async def list_discussions(hub: "Hub", call: Call) -> Response:
    """Newest first, one page. `status=open` includes drafts, `closed` includes merged ones."""
    repo = find_repo(hub, call)
    check_discussions(repo)
    kind, status, author = call.text("type") or "all", call.text("status") or "all", call.text("author")
    statuses = {"open": ("open", "draft"), "closed": ("closed", "merged"), "all": None}
    if kind not in ("all", "discussion", "pull_request") or status not in statuses:
        raise bad_request("Invalid type or status")
    everything = [
        discussion
        for discussion in reversed(list(hub.records.discussions(repo)))
        if (kind == "all" or discussion.is_pull_request == (kind == "pull_request"))
        and (author is None or discussion.author == author)
    ]
    found = [item for item in everything if (wanted := statuses[status]) is None or item.status in wanted]
    size = hub.settings.discussions_page
    start = call.integer("p", 0) * size
    page = [summary_json(hub, repo, discussion) for discussion in found[start : start + size]]
    closed = sum(item.status in ("closed", "merged") for item in everything)
    return JSONResponse({"discussions": page, "count": len(found), "start": start, "numClosedDiscussions": closed})


@router.add("GET", "/api/{kind}/{repo}/discussions/{num}")
async def discussion_details(hub: "Hub", call: Call) -> Response:
    repo, discussion = find_discussion(hub, call)
    return JSONResponse(details_json(hub, repo, discussion, diff=call.flag("diff")))


# opening


def open_discussion(
    hub: "Hub",
    repo: Repo,
    title: str,
    description: str,
    author: str,
    *,
    pull_request: bool,
    status: Status,
    base: str = MAIN,
) -> tuple[Discussion, dict[str, Any]]:
    """Number and record a discussion. Returns it and its first comment, the description."""
    repo.last_num += 1
    hub.records.save(repo)
    comment = comment_event(author, description)
    discussion = Discussion(repo.key, repo.last_num, title, author, pull_request, status, base, events=[comment])
    hub.records.save(discussion)
    return discussion, comment


@router.add("POST", "/api/{kind}/{repo}/discussions", writes=True)
async def create_discussion(hub: "Hub", call: Call) -> Response:
    """A discussion, or a pull request: a draft without changes, to be pushed to and then opened."""
    repo = find_repo(hub, call)
    identity = check_discuss(hub, call, repo)
    body = await call.json()
    title, description = _text(body, "title"), _text(body, "description")
    pull_request = bool(body.get("pullRequest"))
    status: Status = "draft" if pull_request else "open"
    discussion, comment = open_discussion(
        hub, repo, title, description, identity.user.name, pull_request=pull_request, status=status
    )
    events = [Event("discussion", "create", discussion, comment)]
    if pull_request and (head := hub.head(repo)):
        hub.git(repo).set_ref(discussion.ref, head)
        events.insert(0, ref_update(discussion.ref, None, head))
    hub.webhooks.publish(repo, *events)
    url = f"{call.base_url}{repo.web_path}/discussions/{discussion.num}"
    return JSONResponse({"num": discussion.num, "url": url, "pullRequest": pull_request})


def _text(body: dict[str, Any], name: str) -> str:
    """A required text of a request. Raises 400 when it is missing, empty or too long."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_COMMENT:
        raise bad_request(f"`{name}` must be a text of 1 to {MAX_COMMENT} characters")
    return value


# changing


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/comment", writes=True)
async def comment(hub: "Hub", call: Call) -> Response:
    repo, discussion = find_discussion(hub, call)
    author = check_discuss(hub, call, repo).user.name
    event = comment_event(author, _text(await call.json(), "comment"))
    discussion.events.append(event)
    hub.records.save(discussion)
    hub.webhooks.publish(repo, Event("discussion.comment", "create", discussion, event))
    return JSONResponse({"newMessage": event_json(hub, event)})


def _find_comment(call: Call, discussion: Discussion) -> dict[str, Any]:
    for event in discussion.events:
        if event["type"] == "comment" and event["id"] == call.params["comment"]:
            return event
    raise HubError(404, "Comment not found")


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/comment/{comment}/edit", writes=True)
async def edit_comment(hub: "Hub", call: Call) -> Response:
    """Only its author edits a comment."""
    repo, discussion = find_discussion(hub, call)
    author = check_discuss(hub, call, repo).user.name
    event = _find_comment(call, discussion)
    if event["author"] != author:
        raise forbidden("Forbidden: you can only edit your own comments.")
    if event["data"]["hidden"]:
        raise bad_request("A hidden comment cannot be edited.")
    content = _text(await call.json(), "content")
    data = event["data"]
    data["history"].append(data["latest"])
    latest = {"raw": content, "html": _html(content), "updatedAt": iso(time.time()), "author": author}
    data |= {"edited": True, "latest": latest}
    hub.records.save(discussion)
    hub.webhooks.publish(repo, Event("discussion.comment", "update", discussion, event))
    return JSONResponse({"updatedComment": event_json(hub, event)})


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/comment/{comment}/hide", writes=True)
async def hide_comment(hub: "Hub", call: Call) -> Response:
    """For ever: its text is forgotten. Authors hide their own comments, writers of the repository any."""
    repo, discussion = find_discussion(hub, call)
    identity = check_discuss(hub, call, repo)
    event = _find_comment(call, discussion)
    if event["author"] != identity.user.name and not can_write(hub.records, identity, repo):
        raise forbidden("Forbidden: you can only hide your own comments.")
    latest = {"raw": HIDDEN, "html": HIDDEN, "updatedAt": iso(time.time()), "author": identity.user.name}
    event["data"] |= {"hidden": True, "hiddenBy": identity.user.name, "latest": latest, "history": []}
    hub.records.save(discussion)
    hub.webhooks.publish(repo, Event("discussion.comment", "update", discussion, event))
    return JSONResponse({"updatedComment": event_json(hub, event)})


def _check_editor(hub: "Hub", call: Call, repo: Repo, discussion: Discussion) -> str:
    """Title and status are for the author and for writers of the repository. Returns the caller's name."""
    identity = check_discuss(hub, call, repo)
    if identity.user.name != discussion.author and not can_write(hub.records, identity, repo):
        raise forbidden("Forbidden: only its author and the repository's writers may change a discussion.")
    return identity.user.name


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/title", writes=True)
async def rename(hub: "Hub", call: Call) -> Response:
    repo, discussion = find_discussion(hub, call)
    author = _check_editor(hub, call, repo, discussion)
    title = _text(await call.json(), "title").strip()
    event = _event("title-change", author, {"from": discussion.title, "to": title})
    discussion.title = title
    discussion.events.append(event)
    hub.records.save(discussion)
    hub.webhooks.publish(repo, Event("discussion", "update", discussion))
    return JSONResponse({"newTitle": event_json(hub, event)})


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/status", writes=True)
async def change_status(hub: "Hub", call: Call) -> Response:
    """`open` (a draft, or something closed) or `closed`; nothing goes back to draft, and merged is for ever."""
    repo, discussion = find_discussion(hub, call)
    author = _check_editor(hub, call, repo, discussion)
    body = await call.json()
    status = body.get("status")
    if status not in ("open", "closed"):
        raise bad_request("`status` must be open or closed")
    if discussion.status == "merged":
        raise bad_request("A merged pull request cannot change its status.")
    if discussion.status == status:
        raise bad_request(f"The discussion is already {status}.")
    events = _comment_along(discussion, author, body)
    discussion.status = status
    event = _event("status-change", author, {"status": status})
    discussion.events.append(event)
    hub.records.save(discussion)
    hub.webhooks.publish(repo, Event("discussion", "update", discussion), *events)
    return JSONResponse({"newStatus": event_json(hub, event)})


def _comment_along(discussion: Discussion, author: str, body: dict[str, Any]) -> list[Event]:
    """The comment that comes with a change of status or a merge, if one does."""
    if not body.get("comment"):
        return []
    event = comment_event(author, _text(body, "comment"))
    discussion.events.append(event)
    return [Event("discussion.comment", "create", discussion, event)]


@router.add("POST", "/api/{kind}/{repo}/discussions/{num}/merge", writes=True)
async def merge(hub: "Hub", call: Call) -> Response:
    """Squashes a pull request onto its base branch. 400 for a draft or a closed one, 409 for conflicts."""
    repo, discussion = find_discussion(hub, call)
    author = check_owner(hub, call, repo, "Forbidden: you need write access to merge a pull request.").user.name
    body = await call.json()
    if not discussion.is_pull_request:
        raise bad_request("Only a pull request can be merged.")
    if discussion.status == "draft":
        raise bad_request("A draft cannot be merged: open it first.")
    if discussion.status != "open":
        raise bad_request(f"This pull request is {discussion.status}.")
    git = hub.git(repo)
    if files := merging.conflicts(git, discussion):
        raise HubError(409, f"This pull request has conflicts in: {', '.join(files)}")
    events = _comment_along(discussion, author, body)
    old = git.ref(discussion.base)
    sha = merging.merge(git, discussion, author)
    discussion.status, discussion.merge_commit = "merged", sha
    discussion.events.append(_event("status-change", author, {"status": "merged"}))
    hub.records.save(discussion)
    hub.webhooks.publish(
        repo, ref_update(discussion.base, old, sha), Event("discussion", "update", discussion), *events
    )
    return JSONResponse({"success": True, "mergeCommitId": sha, "author": signed_in(call).user.name})
