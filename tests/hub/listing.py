"""What is in a repository: its tree, single paths, refs and commits."""

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from .access import find_repo
from .errors import entry_not_found
from .git import CommitInfo, GitRepo
from .info import commit_of, next_link
from .records import iso
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
EXPANDED_PAGE = 50


@router.add("GET", "/api/{kind}/{repo}/tree/{revision}(?:/{path})?")
async def tree(hub: "Hub", call: Call) -> Response:
    """The files and folders below a path, with `recursive` all the way down; paged by `Link`."""
    repo = find_repo(hub, call)
    git = hub.git(repo)
    commit = commit_of(hub, repo, call.params["revision"])
    folder = call.params.get("path", "").strip("/")
    listing = git.listing(commit)
    if folder and folder not in listing.folders:
        raise entry_not_found(commit, f"{folder} does not exist on {call.params['revision']}")
    prefix = f"{folder}/" if folder else ""
    paths = sorted(
        path
        for path in (*listing.folders, *listing.files)
        if path.startswith(prefix) and (call.flag("recursive") or "/" not in path.removeprefix(prefix))
    )
    expand = call.flag("expand")
    size = min(call.integer("limit", hub.settings.tree_page), EXPANDED_PAGE if expand else hub.settings.tree_page)
    start = call.integer("cursor", 0)
    page = paths[start : start + size]
    headers = next_link(call, start + size) if start + size < len(paths) else {}
    return JSONResponse(_entries(git, commit, page, expand), headers=headers | {"X-Repo-Commit": commit})


@router.add("POST", "/api/{kind}/{repo}/paths-info/{revision}")
async def paths_info(hub: "Hub", call: Call) -> Response:
    """The same entries for paths by name; those that do not exist are left out."""
    repo = find_repo(hub, call)
    commit = commit_of(hub, repo, call.params["revision"])
    if "json" in call.headers.get("content-type", ""):
        body = await call.json()
        paths, expand = [str(path) for path in body.get("paths", [])], bool(body.get("expand"))
    else:
        form = parse_qs((await call.body()).decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    listing = hub.git(repo).listing(commit)
    known = [path for path in paths if path in listing.files or path in listing.folders]
    return JSONResponse(_entries(hub.git(repo), commit, known, expand))


def _entries(git: GitRepo, commit: str, paths: list[str], expand: bool) -> list[dict[str, Any]]:
    listing = git.listing(commit)
    last = _last_commits(git, commit, paths) if expand else {}
    entries = []
    for path in paths:
        if file := listing.files.get(path):
            entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
            if file.lfs:
                entry["lfs"] = {"oid": file.lfs.sha256, "size": file.lfs.size, "pointerSize": file.blob_size}
            if expand:
                entry["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
        else:
            entry = {"type": "directory", "oid": listing.folders[path], "size": 0, "path": path}
        if path in last:
            entry["lastCommit"] = {"id": last[path].sha, "title": last[path].title, "date": iso(last[path].time)}
        entries.append(entry)
    return entries


def _last_commits(git: GitRepo, head: str, paths: list[str]) -> dict[str, CommitInfo]:
    """The latest commit that changed each path."""

    def ids(commit: str) -> dict[str, str]:
        listing = git.listing(commit)
        return listing.folders | {path: file.blob for path, file in listing.files.items()}

    current = ids(head)
    found: dict[str, CommitInfo] = {}
    for commit in git.history(head):
        before = ids(commit.parent) if commit.parent else {}
        for path in paths:
            if path not in found and before.get(path) != current[path]:
                found[path] = commit
        if len(found) == len(set(paths)):
            break
    return found


@router.add("GET", "/api/{kind}/{repo}/refs")
async def refs(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    git = hub.git(repo)

    def group(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(f"{prefix}/"), "ref": ref, "targetCommit": sha}
            for ref, sha in git.refs(prefix).items()
        ]

    found = {"branches": group("refs/heads"), "converts": group("refs/convert"), "tags": group("refs/tags")}
    if call.flag("include_prs"):
        pull_requests = git.refs("refs/pr")
        found["pullRequests"] = [
            {"name": ref, "ref": ref, "targetCommit": pull_requests[ref]}
            for ref in sorted(pull_requests, key=lambda ref: int(ref.rsplit("/", 1)[-1]))
        ]
    return JSONResponse(found)


@router.add("GET", "/api/{kind}/{repo}/commits/{revision}")
async def commits(hub: "Hub", call: Call) -> Response:
    """Newest first; paged by `Link`."""
    repo = find_repo(hub, call)
    git = hub.git(repo)
    history = list(git.history(commit_of(hub, repo, call.params["revision"])))
    size = min(call.integer("limit", hub.settings.commits_page), hub.settings.commits_page)
    start = call.integer("cursor", 0)
    formatted = "formatted" in call.query.get("expand[]", []) + call.query.get("expand", [])
    page = [_commit(commit, formatted) for commit in history[start : start + size]]
    headers = next_link(call, start + size) if start + size < len(history) else {}
    return JSONResponse(page, headers=headers | {"X-Total-Count": str(len(history))})


def _commit(commit: CommitInfo, formatted: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": commit.sha,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": name, "avatar": f"/avatars/{name}.svg"} for name in commit.authors],
        "date": iso(commit.time),
    }
    if formatted:
        found["formatted"] = {"title": f"<p>{commit.title}</p>", "message": f"<p>{commit.message}</p>"}
    return found
