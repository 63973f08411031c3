"""Downloading: `resolve` redirects small files to the resolve cache and LFS files to a signed storage URL."""

import mimetypes
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import Response

from .access import check_gate, find_repo
from .errors import entry_not_found
from .git import File
from .info import commit_of
from .records import Repo
from .routing import Call, Router
from .storage import bytes_response

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
# The card of a gated repository is public, its files are not.
UNGATED = ("README.md", ".gitattributes")


def _find(hub: "Hub", call: Call) -> tuple[Repo, str, File]:
    repo = find_repo(hub, call)
    if call.params["path"] not in UNGATED:
        check_gate(hub, call, repo)
    commit = commit_of(hub, repo, call.params.get("revision") or call.params["commit"])
    file = hub.git(repo).listing(commit).files.get(call.params["path"])
    if file is None:
        raise entry_not_found(commit)
    return repo, commit, file


@router.add("GET", "/{prefix}{repo}/resolve/{revision}/{path}")
async def resolve(hub: "Hub", call: Call) -> Response:
    repo, commit, file = _find(hub, call)
    headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size), "Accept-Ranges": "bytes"}
    if file.lfs is None:
        path = quote(f"{repo.kind}s/{repo.name}/{commit}/{file.path}")
        headers |= {
            "ETag": f'"{file.blob}"',
            "Location": f"/api/resolve-cache/{path}?etag=%22{file.blob}%22",
        }
        return Response("Temporary Redirect", 307, headers, media_type="text/plain")
    url = hub.signer.sign("GET", f"/_storage/lfs/{repo.id}/{file.lfs.sha256}", hub.settings.download_url_lifetime)
    headers |= {
        "ETag": f'"{file.lfs.sha256}"',
        "X-Linked-ETag": f'"{file.lfs.sha256}"',
        "Location": hub.storage_url + url,
    }
    return Response("Found", 302, headers, media_type="text/plain")


@router.add("GET", "/api/resolve-cache/{kind}/{repo}/{commit}/{path}")
async def resolve_cache(hub: "Hub", call: Call) -> Response:
    """A small file's bytes at a commit, whole or a range."""
    repo, commit, file = _find(hub, call)
    name = file.path.rsplit("/", 1)[-1]
    headers = {
        "X-Repo-Commit": commit,
        "ETag": f'"{file.blob}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{quote(name)}\";",
    }
    media_type = mimetypes.guess_type(name)[0] or "text/plain"
    return bytes_response(call, hub.git(repo).read(file.blob), headers, media_type)
