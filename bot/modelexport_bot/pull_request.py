"""Our pull requests on a repo: which are ours, and what they and the default branch hold.

A pull request is *ours* when our account opened it, its body carries our marker, and its ref holds our manifest or (a
draft that is still empty) nothing of an export at all. A title proves nothing; anyone can type one.

This module only looks. What follows from it is decided in :mod:`modelexport_bot.decision`.
"""

from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError

from modelexport.contract import MANIFEST_NAME, Manifest
from modelexport.contract.errors import RevisionNotFoundError as NoSuchRevisionError
from modelexport_bot import fetch, inputs, marker
from modelexport_bot.body import FOLDER
from modelexport_bot.hub import Hub, HubFile, RepoAt, Thread
from modelexport_bot.marker import Marker

MANIFEST_PATH = f"{FOLDER}/{MANIFEST_NAME}"

CLOSED_BY_US = ("overtaken", "duplicate", "failed")
"""Tags of closing comments that are no refusal by a person."""

IGNORED = "ignored"
"""Tag of the comment by which we agreed to stay away for good."""

TASK = "task"
"""Tag of the comment by which we agreed to export for another task; its key is the task."""


@dataclass(frozen=True)
class OurPullRequest:
    """A pull request of ours and what its body says it holds."""

    thread: Thread
    marker: Marker

    def strangers(self, account: str) -> list[str]:
        """Who else has pushed to its ref."""
        return [name for name in self.thread.pushed_by if name != account]

    def said(self, account: str, purpose: str, key: str | None = None) -> bool:
        """Whether we have posted a comment with this tag."""
        return any(marker.tagged(text, purpose, key) for text in self._our_comments(account))

    def last_said(self, account: str, purpose: str) -> str:
        """The latest of our comments with this tag."""
        return next((text for text in reversed(self._our_comments(account)) if marker.tagged(text, purpose)), "")

    def task(self, account: str) -> str | None:
        """The task that somebody with a say has asked for in the thread, and that we have agreed to."""
        return marker.key_of(self.last_said(account, TASK), TASK)

    def declined(self, account: str) -> bool:
        """Closed by a person, or by us because a person asked."""
        ours = self.thread.closed_by == account and any(self.said(account, purpose) for purpose in CLOSED_BY_US)
        return self.thread.status == "closed" and not ours

    def _our_comments(self, account: str) -> list[str]:
        return [comment.text for comment in self.thread.comments[1:] if comment.author == account]


@dataclass(frozen=True)
class Wanted:
    """Which export we want to see on the Hub."""

    sha: str
    weights: str
    inputs: str
    options: str

    @classmethod
    def of(cls, source: RepoAt, options: str, *, code: bool) -> Self:
        """From a source and the digest of the export options. ``code``: the repo's Python code is part of it."""
        return cls(
            sha=source.sha,
            weights=inputs.digest(inputs.weights(source.files)),
            inputs=inputs.digest(inputs.inputs(source.files, code=code)),
            options=options,
        )

    def marker(self, *, replaces: bool = False, complete: bool) -> Marker:
        """The marker for a body that describes this export."""
        return Marker(
            sha=self.sha,
            weights=self.weights,
            inputs=self.inputs,
            options=self.options,
            replaces=replaces,
            complete=complete,
        )

    def described_by(self, said: Marker) -> bool:
        """Whether a marker describes this export; a later commit that changes no input is the same export."""
        return said.complete and said.inputs == self.inputs and said.options == self.options


@dataclass(frozen=True)
class Folder:
    """An ``onnx/`` folder on some ref.

    Attributes:
        head: the commit it was seen at, with all files of the repo.
        manifest: None where the folder is not ours.
        exported_from: digest of the inputs it was exported from, as the Hub lists them at the manifest's source commit;
            None where that cannot be told.
    """

    head: RepoAt
    manifest: Manifest | None
    exported_from: str | None

    @property
    def files(self) -> dict[str, HubFile]:
        """The folder's files."""
        return {path: file for path, file in self.head.files.items() if path.startswith(f"{FOLDER}/")}

    def provides(self, wanted: Wanted) -> bool:
        """Whether it is the export we want. Newer versions of modelexport alone are no reason to disturb an owner."""
        return (
            self.manifest is not None
            and self.manifest.options_digest == wanted.options
            and self.exported_from == wanted.inputs
        )

    def intact(self) -> bool:
        """Whether the ref holds exactly the manifest's files: sizes, and hashes where the Hub lists sha256 (LFS)."""
        if self.manifest is None:
            return False
        listed = {f"{FOLDER}/{entry.path}": entry for entry in self.manifest.files}
        here = self.files.keys() - {MANIFEST_PATH}
        return here == listed.keys() and all(
            self.files[path].size == entry.size and self.files[path].sha256 in (None, entry.sha256)
            for path, entry in listed.items()
        )


@dataclass(frozen=True)
class State:
    """Everything about a repo that a decision rests on.

    Attributes:
        source: the repo at the revision to export.
        account: ours; None when anonymous.
        main: the ``onnx/`` folder of the default branch; None without one.
        open: our open pull requests and drafts, oldest first. More than one only after a race.
        last: our latest pull request that is over: merged, or closed by a person.
        ref: the ``onnx/`` folder on the ref of the first open one.
    """

    source: RepoAt
    account: str | None
    main: Folder | None
    open: tuple[OurPullRequest, ...] = ()
    last: OurPullRequest | None = None
    ref: Folder | None = None

    def asked_task(self) -> str | None:
        """The task that was asked for in the thread of our latest pull request."""
        ours = self.open[0] if self.open else self.last
        return ours.task(self.account) if ours is not None and self.account is not None else None


def observe(hub: Hub, source: RepoAt, main: RepoAt, *, code: bool) -> State:
    """The state of a repo. Reads only.

    Args:
        source: what to export.
        main: the head of the default branch.
        code: the repo's Python code is part of what is exported.
    """
    account = hub.account()
    folder = folder_at(hub, main, source, code=code)
    if account is None:
        return State(source, None, folder)
    headings = hub.threads(main.id, account.name)
    alive = [_ours(hub, main.id, heading.num) for heading in headings if heading.status in ("draft", "open")]
    open_ = tuple(sorted(filter(None, alive), key=lambda ours: ours.thread.num))
    last = None
    if not open_:
        over = (heading.num for heading in headings if heading.status in ("closed", "merged"))
        found = (ours for num in over if (ours := _ours(hub, main.id, num)) is not None)
        last = next((o for o in found if o.thread.status == "merged" or o.declined(account.name)), None)
    ref = folder_at(hub, hub.repo(main.id, open_[0].thread.ref), source, code=code) if open_ else None
    return State(source, account.name, folder, open_, last, ref)


def is_ours(thread: Thread, account: str) -> bool:
    """Our account and our marker. (That the ref holds our manifest is seen in :class:`Folder`.)"""
    return thread.author == account and marker.read(thread.body) is not None


def folder_at(hub: Hub, head: RepoAt, source: RepoAt, *, code: bool) -> Folder | None:
    """The ``onnx/`` folder at a commit; None without one."""
    if not any(path.startswith(f"{FOLDER}/") for path in head.files):
        return None
    manifest = _manifest(hub, head)
    return Folder(head, manifest, _exported_from(hub, manifest, source, code) if manifest else None)


def _ours(hub: Hub, repo: str, num: int) -> OurPullRequest | None:
    thread = hub.thread(repo, num)
    account = hub.account()
    said = marker.read(thread.body)
    if account is None or said is None or thread.author != account.name:
        return None
    return OurPullRequest(thread, said)


def _manifest(hub: Hub, head: RepoAt) -> Manifest | None:
    file = head.files.get(MANIFEST_PATH)
    if file is None:
        return None
    try:
        return Manifest.from_json(fetch.verified(hub, head.id, head.sha, file).read_text())
    except (ValidationError, UnicodeDecodeError):
        return None


def _exported_from(hub: Hub, manifest: Manifest, source: RepoAt, code: bool) -> str | None:
    """The inputs digest at the manifest's source commit.

    A repo may have moved its history on (squash), or have been copied from another: then the weights' sha256 decide,
    where the Hub lists them.
    """
    sha = manifest.source.sha
    if sha == source.sha:
        return inputs.digest(inputs.inputs(source.files, code=code))
    if sha is not None:
        try:
            return inputs.digest(inputs.inputs(hub.repo(source.id, sha).files, code=code))
        except NoSuchRevisionError:
            pass
    now = {(file.path, file.sha256) for file in inputs.weights(source.files) if not file.path.endswith(".json")}
    then = {(file.path, file.sha256) for file in manifest.source.weights if not file.path.endswith(".json")}
    return inputs.digest(inputs.inputs(source.files, code=code)) if now == then else None
