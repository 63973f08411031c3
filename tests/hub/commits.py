"""The commit endpoint: ndjson in, one commit out, on a branch, on a pull request, or as a new pull request."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from . import attributes
from .access import find_repo, pull_request_of, signed_in
from .discussions import commit_event, open_discussion
from .errors import (
    BRANCH_MOVED,
    MISSING_LFS_OBJECT,
    NO_SUCH_FILE_TO_DELETE,
    HubError,
    bad_request,
    entry_not_found,
    revision_not_found,
)
from .git import REGULAR_MODE, GitRepo
from .lfs import SHA256, LfsObjects, Pointer
from .paths import check_path
from .records import Repo
from .routing import Call, Router
from .uploads import target_ref
from .webhooks import Event, ref_update

if TYPE_CHECKING:
    from .hub import Hub

router = Router()


@dataclass
class Proposal:
    """The body of a commit request, parsed."""

    title: str = ""
    description: str = ""
    parent: str | None = None
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def parse(content_type: str, body: bytes) -> Proposal:
    """Raises 400 for what is not ndjson, has no header line or no operation; 422 for a path nobody should write."""
    if not content_type.startswith("application/x-ndjson"):
        raise bad_request("Expected Content-Type: application/x-ndjson")
    proposal, headers = Proposal(), 0
    for line in body.splitlines():
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise bad_request("Every line must be a JSON object with `key` and `value`") from error
        if key == "header":
            headers += 1
            proposal.title = str(value.get("summary") or "").strip()
            proposal.description = str(value.get("description") or "").strip()
            proposal.parent = value.get("parentCommit")
        elif key in ("file", "lfsFile", "deletedFile", "deletedFolder") and isinstance(value, dict) and "path" in value:
            path = str(value["path"])
            value["path"] = check_path(path.rstrip("/") if key == "deletedFolder" else path)
            proposal.operations.append((key, value))
        else:
            raise bad_request(f"Unknown operation: {key}")
    if headers != 1 or not proposal.title:
        raise bad_request("A commit needs one header line with a summary")
    if not proposal.operations:
        raise bad_request("A commit needs at least one operation")
    return proposal


class TreeEdit:
    """A commit's files while operations are applied to them, one after the other."""

    def __init__(self, git: GitRepo, lfs: LfsObjects, base: str | None):
        self.git, self.lfs, self.base = git, lfs, base
        self.tree = git.tree(base)
        self.new_lfs: list[str] = []

    def apply(self, key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            self.put(path, _content(value))
        elif key == "lfsFile":
            self._lfs_file(path, value)
        elif key == "deletedFile":
            if self.tree.pop(path, None) is None:
                raise entry_not_found(self.base or "", NO_SUCH_FILE_TO_DELETE)
        else:
            inside = [known for known in self.tree if known.startswith(f"{path}/")]
            if not inside:
                raise entry_not_found(self.base or "", NO_SUCH_FILE_TO_DELETE)
            for known in inside:
                del self.tree[known]

    def put(self, path: str, content: bytes) -> None:
        """A regular file. Raises 400 for what belongs into LFS, or points to an LFS object that is not there."""
        if len(content) > attributes.MAX_REGULAR:
            raise bad_request(
                "Your push was rejected because it contains files larger than 10 MiB."
                f" Please use LFS to store large files. Offending files: - {path}"
            )
        if attributes.is_binary(content):
            raise bad_request(
                "Your push was rejected because it contains binary files."
                f" Please use LFS to store binary files. Offending files: - {path}"
            )
        if (pointer := Pointer.decode(content)) and self.lfs.size(pointer.sha256) != pointer.size:
            raise bad_request(f"{MISSING_LFS_OBJECT} Offending file: {path}")
        self._place(path, content)

    def _lfs_file(self, path: str, value: dict[str, Any]) -> None:
        oid = str(value.get("oid"))
        size = self.lfs.size(oid) if SHA256.fullmatch(oid) else None
        # The client leaves the size out when it copies a file that is already in the repository.
        if size is None or value.get("size", size) != size or value.get("algo", "sha256") != "sha256":
            raise bad_request(f"{MISSING_LFS_OBJECT} Offending file: {path}")
        self._place(path, Pointer(oid, size).encode())
        self.new_lfs.append(path)

    def _place(self, path: str, content: bytes) -> None:
        parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
        if any(parent in self.tree for parent in parents) or any(name.startswith(f"{path}/") for name in self.tree):
            raise bad_request(f"A path cannot be a file and a folder: {path}")
        self.tree[path] = (self.git.add_blob(content), REGULAR_MODE)

    def track_lfs(self) -> None:
        """Add a line to .gitattributes for every new LFS file that no pattern covers, as the Hub does."""
        entry = self.tree.get(".gitattributes")
        content = self.git.read(entry[0]) if entry else b""
        for path in self.new_lfs:
            if path in self.tree and not attributes.tracked_by_lfs(path, content):
                separator = b"" if content.endswith(b"\n") or not content else b"\n"
                content += separator + attributes.lfs_line(path).encode()
        if content and (entry is None or content != self.git.read(entry[0])):
            self.tree[".gitattributes"] = (self.git.add_blob(content), REGULAR_MODE)


def _content(value: dict[str, Any]) -> bytes:
    text = str(value.get("content", ""))
    if value.get("encoding", "utf-8") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise bad_request(f"Invalid base64: {value['path']}") from error
    return text.encode()


@router.add("POST", "/api/{kind}/{repo}/commit/{revision}", writes=True)
async def commit(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    ref = target_ref(hub, call, repo)
    proposal = parse(call.headers.get("content-type", ""), await call.body())
    # Reading the body gave other requests a turn: what the ref may be is looked up again, now.
    ref = target_ref(hub, call, repo)
    git = hub.git(repo)
    head = git.ref(ref)
    author = signed_in(call).user.name
    create_pr = call.flag("create_pr")
    base = _starting_point(git, head, proposal.parent) if create_pr else head
    if not create_pr and proposal.parent is not None and not _same(head, proposal.parent):
        raise HubError(412, BRANCH_MOVED)

    edit = TreeEdit(git, hub.lfs(repo), base)
    for key, value in proposal.operations:
        edit.apply(key, value)
    edit.track_lfs()
    sha = git.commit(base, edit.tree, proposal.title, proposal.description, author)

    answer = {
        "success": True,
        "commitOid": sha,
        "commitUrl": f"{call.base_url}{repo.web_path}/commit/{sha}",
        "hookOutput": "",
    }
    if create_pr:
        discussion, comment = open_discussion(
            hub, repo, proposal.title, proposal.description, author, pull_request=True, status="open", base=ref
        )
        git.set_ref(discussion.ref, sha)
        discussion.events.append(commit_event(author, sha, proposal.title))
        hub.records.save(discussion)
        created = Event("discussion", "create", discussion, comment)
        hub.webhooks.publish(repo, ref_update(discussion.ref, None, sha), created)
        answer["pullRequestUrl"] = f"{call.base_url}{repo.web_path}/discussions/{discussion.num}"
    else:
        git.set_ref(ref, sha)
        _note_commit(hub, repo, ref, sha, proposal.title, author)
        hub.webhooks.publish(repo, ref_update(ref, head, sha))
    return JSONResponse(answer)


def _note_commit(hub: "Hub", repo: Repo, ref: str, sha: str, title: str, author: str) -> None:
    """A push to a pull request shows among its events."""
    if discussion := pull_request_of(hub, repo, ref):
        discussion.events.append(commit_event(author, sha, title))
        hub.records.save(discussion)


def _same(head: str | None, wanted: str) -> bool:
    return head is not None and len(wanted) >= 7 and head.startswith(wanted.lower())


def _starting_point(git: GitRepo, head: str | None, parent: str | None) -> str | None:
    """Where a new pull request starts: at `parentCommit` when given, else at the head of the branch."""
    if parent is None:
        return head
    found = git.resolve(parent)
    if found is None:
        raise revision_not_found(parent)
    return found


def commit_files(
    hub: "Hub",
    repo: Repo,
    ref: str,
    files: Mapping[str, bytes | Path],
    delete: list[str],
    title: str,
    author: str,
    description: str = "",
) -> str:
    """What a `git push` by the upstream owner does: one commit, LFS decided as for an upload. Returns its sha."""
    git = hub.git(repo)
    head = git.ref(ref)
    edit = TreeEdit(git, hub.lfs(repo), head)
    for path in delete:
        folder = path.endswith("/") or any(known.startswith(f"{path}/") for known in edit.tree)
        edit.apply("deletedFolder" if folder else "deletedFile", {"path": check_path(path.rstrip("/"))})
    given = files.get(".gitattributes")
    gitattributes = git.gitattributes(head) if given is None else _read(given)
    for path, source in files.items():
        check_path(path)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        sample = _read(source, attributes.SAMPLE)
        if attributes.upload_mode(path, size, sample, gitattributes) == "lfs":
            lfs = hub.lfs(repo)
            pointer = lfs.add_bytes(source) if isinstance(source, bytes) else lfs.add_file(source)
            edit.apply("lfsFile", {"path": path, "oid": pointer.sha256, "size": pointer.size})
        else:
            edit.put(path, _read(source))
    edit.track_lfs()
    sha = git.commit(head, edit.tree, title, description, author)
    git.set_ref(ref, sha)
    _note_commit(hub, repo, ref, sha, title, author)
    hub.webhooks.publish(repo, ref_update(ref, head, sha))
    return sha


def _read(source: bytes | Path, size: int = -1) -> bytes:
    if isinstance(source, bytes):
        return source if size < 0 else source[:size]
    with source.open("rb") as file:
        return file.read(size)
