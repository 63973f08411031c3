"""A pull request against its base: the diff, the files in conflict, and the squashed merge."""

import difflib

from .git import GitRepo, Listing
from .records import Discussion

MAX_DIFFED = 256 * 1024


def _sides(git: GitRepo, discussion: Discussion) -> tuple[str | None, str | None, str | None]:
    """Merge base, head of the base branch, head of the pull request."""
    base, head = git.ref(discussion.base), git.ref(discussion.ref)
    if discussion.merge_base is not None:  # merged: by now everything is in the base branch
        return discussion.merge_base, base, head
    return (git.merge_base(base, head) if base and head else None), base, head


def _blobs(git: GitRepo, commit: str | None) -> dict[str, str]:
    return {path: file.blob for path, file in git.listing(commit).files.items()} if commit else {}


def changed(git: GitRepo, discussion: Discussion) -> dict[str, str | None]:
    """What the pull request does to each path: its new blob id, `None` for a deletion."""
    start, _, head = _sides(git, discussion)
    before, after = _blobs(git, start), _blobs(git, head)
    return {
        path: after.get(path) for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
    }


def conflicts(git: GitRepo, discussion: Discussion) -> list[str]:
    """Paths that both sides changed since they parted, to different contents."""
    start, base, _ = _sides(git, discussion)
    before, now = _blobs(git, start), _blobs(git, base)
    found = []
    for path, blob in changed(git, discussion).items():
        both_changed = now.get(path) not in (before.get(path), blob)
        if both_changed or (blob is not None and _clash(path, git.listing(base) if base else None)):
            found.append(path)
    return found


def _clash(path: str, listing: Listing | None) -> bool:
    """A file where the base has a folder, or below what is a file there."""
    if listing is None:
        return False
    parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
    return path in listing.folders or any(parent in listing.files for parent in parents)


def merge(git: GitRepo, discussion: Discussion, author: str) -> str:
    """Put the pull request's changes onto its base as one commit. Returns its sha."""
    start, base, head = _sides(git, discussion)
    assert head is not None
    tree = git.tree(base)
    modes = git.tree(head)
    for path, blob in changed(git, discussion).items():
        if blob is None:
            tree.pop(path, None)
        else:
            tree[path] = modes[path]
    squashed = []
    for commit in git.history(head):
        if commit.sha == start:
            break
        squashed.append(commit)
    squashed.reverse()
    description = "\n".join(f"- {commit.title} ({commit.sha})" for commit in squashed)
    others = dict.fromkeys(name for commit in squashed for name in commit.authors if name != author)
    sha = git.commit(base, tree, f"{discussion.title} (#{discussion.num})", description, author, tuple(others))
    discussion.merge_base = start
    git.set_ref(discussion.base, sha)
    return sha


def diff(git: GitRepo, discussion: Discussion) -> str:
    """A unified diff, with LFS files as their pointers and long texts only mentioned."""
    start, _, head = _sides(git, discussion)
    before, after = _blobs(git, start), _blobs(git, head)
    parts = []
    for path in changed(git, discussion):
        old, new = before.get(path), after.get(path)
        parts.append(f"diff --git a/{path} b/{path}\n")
        parts.append("new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else "")
        parts.append(f"index {(old or '0' * 40)[:10]}..{(new or '0' * 40)[:10]}\n")
        texts = [git.read(blob) if blob else b"" for blob in (old, new)]
        if any(len(text) > MAX_DIFFED for text in texts):
            parts.append(f"Files a/{path} and b/{path} differ\n")
            continue
        was, now = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in texts)
        names = (f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null")
        parts += [
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in difflib.unified_diff(was, now, *names)
        ]
    return "".join(parts)
