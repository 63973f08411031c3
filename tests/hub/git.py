"""One repository's history: a bare git repository read and written through dulwich.

Commits form a line per ref (merging squashes, as on the Hub), so history is the chain of first parents.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dulwich.index import commit_tree
from dulwich.objects import Blob, Commit, ObjectID, Tag, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo as DulwichRepo

from .lfs import MAX_POINTER, Pointer

MAIN = "refs/heads/main"
SHA1 = re.compile(r"[0-9a-f]{40}")
REGULAR_MODE = 0o100644
EMAIL_DOMAIN = "users.noreply.hub.local"


@dataclass(frozen=True)
class File:
    """A file in a tree. `size` is that of the content a user sees; a pointer's own size is `blob_size`."""

    path: str
    blob: str
    blob_size: int
    lfs: Pointer | None
    mode: int = REGULAR_MODE

    @property
    def size(self) -> int:
        return self.lfs.size if self.lfs else self.blob_size

    @property
    def etag(self) -> str:
        return self.lfs.sha256 if self.lfs else self.blob


@dataclass(frozen=True)
class Listing:
    """All files of one tree by path, in git's order, and the ids of its folders."""

    files: dict[str, File]
    folders: dict[str, str]


@dataclass(frozen=True)
class CommitInfo:
    """`authors` are user names: who committed first, co-authors after."""

    sha: str
    tree: str
    parent: str | None
    title: str
    message: str
    authors: list[str]
    time: float


def blob_id(content: bytes) -> str:
    return Blob.from_string(content).id.decode()


class GitRepo:
    def __init__(self, folder: Path):
        if folder.is_dir():
            self.dulwich = DulwichRepo(str(folder))
        else:
            self.dulwich = DulwichRepo.init_bare(str(folder), mkdir=True)
            self.dulwich.refs.set_symbolic_ref(Ref(b"HEAD"), Ref(MAIN.encode()))
        self.objects = self.dulwich.object_store
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._commits: dict[str, CommitInfo] = {}

    # refs

    def refs(self, prefix: str = "refs/") -> dict[str, str]:
        """Full ref names under a prefix and the commits they point to, sorted."""
        found = self.dulwich.refs.as_dict(Ref(prefix.rstrip("/").encode()))
        base = prefix.rstrip("/")
        return {f"{base}/{name.decode()}": self._peel(sha.decode()) for name, sha in sorted(found.items())}

    def ref(self, name: str) -> str | None:
        try:
            return self._peel(self.dulwich.refs[Ref(name.encode())].decode())
        except KeyError:
            return None

    def set_ref(self, name: str, sha: str) -> None:
        self.dulwich.refs[Ref(name.encode())] = _oid(sha)

    def delete_ref(self, name: str) -> None:
        del self.dulwich.refs[Ref(name.encode())]

    def tag(self, name: str, sha: str, message: str | None, author: str) -> None:
        """A light tag, or an annotated one when it has a message."""
        if message:
            tag = Tag()
            tag.name, tag.message = name.encode(), message.encode()
            tag.object = (Commit, _oid(sha))
            tag.tagger = _signature(author)
            tag.tag_time, tag.tag_timezone = int(time.time()), 0
            self.objects.add_object(tag)
            sha = tag.id.decode()
        self.set_ref(f"refs/tags/{name}", sha)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, full ref or commit sha (7 digits or more) means; `None` if nothing does."""
        if revision == "HEAD":
            revision = MAIN
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name.startswith("refs/") and (sha := self.ref(name)):
                return sha
        if SHA1.fullmatch(revision):
            return revision if self._is_commit(revision) else None
        if re.fullmatch(r"[0-9a-f]{7,39}", revision):
            matches = [sha for sha in self.reachable() if sha.startswith(revision)]
            return matches[0] if len(matches) == 1 else None
        return None

    def reachable(self) -> set[str]:
        found: set[str] = set()
        for head in self.refs().values():
            for commit in self.history(head):
                if commit.sha in found:
                    break
                found.add(commit.sha)
        return found

    def _peel(self, sha: str) -> str:
        target = self.objects[_oid(sha)]
        return target.object[1].decode() if isinstance(target, Tag) else sha

    def _is_commit(self, sha: str) -> bool:
        try:
            return isinstance(self.objects[_oid(sha)], Commit)
        except KeyError:
            return False

    # reading

    def commit_info(self, sha: str) -> CommitInfo:
        if sha not in self._commits:
            commit = self.objects[_oid(sha)]
            assert isinstance(commit, Commit)
            title, _, body = commit.message.decode().partition("\n")
            authors = [commit.author.decode().split(" <")[0]]
            lines = []
            for line in body.strip("\n").split("\n"):
                if match := re.fullmatch(r"Co-authored-by: (.+) <.*>", line):
                    authors.append(match[1])
                lines.append(line)
            self._commits[sha] = CommitInfo(
                sha=sha,
                tree=commit.tree.decode(),
                parent=commit.parents[0].decode() if commit.parents else None,
                title=title,
                message="\n".join(lines),
                authors=list(dict.fromkeys(authors)),
                time=float(commit.commit_time),
            )
        return self._commits[sha]

    def history(self, sha: str) -> Iterator[CommitInfo]:
        current: str | None = sha
        while current:
            commit = self.commit_info(current)
            yield commit
            current = commit.parent

    def merge_base(self, one: str, other: str) -> str | None:
        ancestors = {commit.sha for commit in self.history(one)}
        return next((commit.sha for commit in self.history(other) if commit.sha in ancestors), None)

    def listing(self, commit: str) -> Listing:
        tree = self.commit_info(commit).tree
        if tree in self._listings:
            self._listings.move_to_end(tree)
            return self._listings[tree]
        files: dict[str, File] = {}
        folders: dict[str, str] = {}
        self._walk(tree, "", files, folders)
        self._listings[tree] = Listing(files, folders)
        if len(self._listings) > 64:
            self._listings.popitem(last=False)
        return self._listings[tree]

    def _walk(self, tree_id: str, prefix: str, files: dict[str, File], folders: dict[str, str]) -> None:
        tree = self.objects[_oid(tree_id)]
        assert isinstance(tree, Tree)
        for entry in tree.iteritems():
            path = prefix + entry.path.decode()
            if entry.mode == 0o040000:
                folders[path] = entry.sha.decode()
                self._walk(entry.sha.decode(), path + "/", files, folders)
            else:
                content = self.read(entry.sha.decode())
                pointer = Pointer.decode(content) if len(content) <= MAX_POINTER else None
                files[path] = File(path, entry.sha.decode(), len(content), pointer, entry.mode)

    def read(self, blob: str) -> bytes:
        content: bytes = self.objects[_oid(blob)].as_raw_string()
        return content

    def gitattributes(self, commit: str | None) -> bytes:
        file = self.listing(commit).files.get(".gitattributes") if commit else None
        return self.read(file.blob) if file else b""

    # writing

    def commit(
        self,
        parent: str | None,
        tree: dict[str, tuple[str, int]],
        title: str,
        description: str,
        author: str,
        coauthors: tuple[str, ...] = (),
    ) -> str:
        """Write a commit holding exactly `tree` (path -> blob id, mode). It is on no ref yet. Returns its sha."""
        commit = Commit()
        entries = [(path.encode(), _oid(blob), mode) for path, (blob, mode) in tree.items()]
        commit.tree = commit_tree(self.objects, entries)
        commit.parents = [_oid(parent)] if parent else []
        commit.author = commit.committer = _signature(author)
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        message = title + (f"\n\n{description}" if description else "")
        if coauthors:
            message += "\n\n" + "\n".join(f"Co-authored-by: {_signature(name).decode()}" for name in coauthors)
        commit.message = message.encode()
        self.objects.add_object(commit)
        return commit.id.decode()

    def add_blob(self, content: bytes) -> str:
        blob = Blob.from_string(content)
        if blob.id not in self.objects:
            self.objects.add_object(blob)
        return blob.id.decode()

    def tree(self, commit: str | None) -> dict[str, tuple[str, int]]:
        """A commit's files in the form `commit` takes; a fresh dict to change."""
        if commit is None:
            return {}
        return {path: (file.blob, file.mode) for path, file in self.listing(commit).files.items()}

    def close(self) -> None:
        self.dulwich.close()


def _oid(sha: str) -> ObjectID:
    return ObjectID(sha.encode())


def _signature(user: str) -> bytes:
    return f"{user} <{user}@{EMAIL_DOMAIN}>".encode()
