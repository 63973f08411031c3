"""Publish: carry out what was decided, so that an interruption at any point leaves something a later run completes.

A new pull request starts as a draft, which notifies nobody and cannot be merged. It is filled with one commit, the
Hub's listing is read back and every hash compared, the text is written, and only then does it open. A run that finds
such a draft of ours goes on where the other one stopped.

Before anything is written, the state is looked at afresh: an export takes minutes, and others may have acted meanwhile.
The same look is repeated whenever the Hub tells us that something moved under our hands.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from modelexport.contract import MANIFEST_NAME, Manifest
from modelexport.contract.errors import (
    HubUnavailableError,
    ModelExportError,
    RateLimitedError,
    UnauthorizedError,
    UploadCorruptError,
)
from modelexport_bot import body, decision, policy, pull_request
from modelexport_bot.body import FOLDER, Subject
from modelexport_bot.decision import Action
from modelexport_bot.fetch import both_hashes
from modelexport_bot.hub import HeadMovedError, Hub, HubFile, RepoAt
from modelexport_bot.ledger import Ledger
from modelexport_bot.progress import Progress
from modelexport_bot.pull_request import MANIFEST_PATH, OurPullRequest, Wanted
from modelexport_bot.resolve import Plan, RepoOptionsInvalidError
from modelexport_bot.result import Outcome, PublishedFile, Result
from modelexport_bot.settings import Settings

_LOOKS = 5  # how often the state is looked at afresh before we say that the repo does not hold still


class SourceMovedError(Exception):
    """The source is no longer what was exported, or an export is needed after all: plan again from the start."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the exported folder, with both of the hashes by which the Hub may list it."""

    path: Path
    size: int
    sha256: str
    blob_id: str

    @classmethod
    def of(cls, path: Path) -> "LocalFile":
        """Reads the file once for both hashes."""
        return cls(path, path.stat().st_size, *both_hashes(path))

    def is_listed_as(self, file: HubFile | None) -> bool:
        """Whether the Hub's listing shows these bytes."""
        if file is None:
            return False
        return self.sha256 == file.sha256 if file.sha256 else self.blob_id == file.blob_id


@dataclass(frozen=True)
class Export:
    """An exported folder on disk: its files by path in the repo, and its manifest."""

    files: Mapping[str, LocalFile]
    manifest: Manifest

    @classmethod
    def in_folder(cls, folder: Path) -> "Export":
        """Reads and hashes a folder."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {f"{FOLDER}/{path.relative_to(folder).as_posix()}": LocalFile.of(path) for path in paths}
        return cls(files, Manifest.from_json((folder / MANIFEST_NAME).read_text()))

    def listed(self) -> tuple[PublishedFile, ...]:
        """The files for a table, the large ones first."""
        files = [PublishedFile(path, file.size, file.sha256) for path, file in self.files.items()]
        return _by_size(files)

    def is_on(self, head: RepoAt) -> bool:
        """Whether the Hub's listing of a ref shows exactly these files in ``onnx/``."""
        there = {path for path in head.files if path.startswith(f"{FOLDER}/")}
        return there == self.files.keys() and all(file.is_listed_as(head.files[p]) for p, file in self.files.items())


def publish(hub: Hub, plan: Plan, folder: Path | None, settings: Settings, progress: Progress) -> Result:
    """Bring the Hub to what was decided. ``folder``: the export, where the plan's decision needs one.

    Raises:
        SourceMovedError: plan again.
        UploadCorruptError: the Hub does not hold what was sent; the draft is closed.
        ModelExportError: see :mod:`modelexport_bot.hub`; running again completes what was begun.
    """
    export = Export.in_folder(folder) if folder else None
    if plan.decision.action is Action.NOTHING:
        return _told(plan, plan.decision.outcome)
    if settings.dry_run and export is None:
        return _told(plan, Outcome.DRY_RUN)
    if settings.dry_run:
        return _Publication(hub, plan, export, settings, progress).preview()
    progress.step("publish", plan.repo)
    with _one_at_a_time(hub, plan, settings):
        for _ in range(_LOOKS):
            with contextlib.suppress(HeadMovedError):
                return _Publication(hub, plan, export, settings, progress).carry_out()
    raise HubUnavailableError(f"{plan.repo} changed {_LOOKS} times while it was being published. Run it again later.")


def report_invalid_options(hub: Hub, error: RepoOptionsInvalidError, settings: Settings) -> None:
    """Tell the owner once that the repo's options cannot be read: in our open pull request, else in a discussion."""
    account = hub.account()
    if settings.dry_run or account is None or account.read_only:
        return
    text = body.invalid_options(error.message, error.digest)
    main = hub.repo(error.repo)
    state = pull_request.observe(hub, main, main, code=policy.may_run_code_of(main.id, settings))
    if state.open:
        if not state.open[0].said(account.name, "options", error.digest):
            hub.comment(main.id, state.open[0].thread.num, text)
        return
    title = f"The options for modelexport cannot be read ({error.digest[:6]})"
    if not any(heading.title == title for heading in hub.threads(main.id, account.name, pull_requests=False)):
        hub.open_discussion(main.id, title, text)


@contextlib.contextmanager
def _one_at_a_time(hub: Hub, plan: Plan, settings: Settings) -> Iterator[None]:
    """Two runs on one machine take turns; on two machines the rules below settle it."""
    name = hashlib.sha256(f"{hub.endpoint}\0{plan.repo}".encode()).hexdigest()[:24]
    locks = settings.cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{name}.lock"):
        yield


def _told(plan: Plan, outcome: Outcome) -> Result:
    """The result of a run that writes nothing."""
    decided = plan.decision
    sha = plan.sha or None
    return Result(outcome, plan.repo, decided.reason, sha, decided.num, decided.url, warnings=plan.warnings)


class _Publication:
    """One attempt, on one look at the state."""

    def __init__(self, hub: Hub, plan: Plan, export: Export | None, settings: Settings, progress: Progress) -> None:
        self._hub = hub
        self._plan = plan
        self._export = export
        self._settings = settings
        self._progress = progress
        main = hub.repo(plan.repo)
        source = main if settings.revision is None else hub.repo(main.id, settings.revision)
        code = policy.may_run_code_of(main.id, settings)
        if Wanted.of(source, plan.wanted.options, code=code).inputs != plan.wanted.inputs:
            raise SourceMovedError
        self._state = pull_request.observe(hub, source, main, code=code)
        self._decision = decision.decide(self._state, plan.wanted, settings)
        if self._decision.needs_export and export is None:
            raise SourceMovedError

    def carry_out(self) -> Result:
        self._close_duplicates()
        match self._decision.action:
            case Action.NOTHING:
                return self._result(self._decision.outcome)
            case Action.BLOCK:
                self._say_blocked()
                return self._result(Outcome.BLOCKED)
            case Action.CLOSE:
                self._close(self._ours, self._decision.reason, "overtaken")
                return self._result(Outcome.CLOSED)
            case Action.FINISH:
                return self._finish(self._ours, self._folder_on_ref())
            case Action.FILL | Action.UPDATE:
                return self._bring_up_to_date(self._ours)
            case Action.REOPEN:
                assert self._state.last is not None
                self._hub.set_status(self._plan.repo, self._state.last.thread.num, "open")
                raise HeadMovedError("reopened")  # and from here on as any open one, on a fresh look
            case Action.CREATE:
                return self._create()

    def preview(self) -> Result:
        """What would be written, and nothing done."""
        assert self._export is not None
        ours = self._state.open[0] if self._state.open else None
        subject = self._subject(ours, self._export.manifest, self._export.listed())
        told = _told(self._plan, Outcome.DRY_RUN)
        return replace(told, title=body.title(subject), body=body.body(subject), files=self._export.listed())

    @property
    def _ours(self) -> OurPullRequest:
        return self._state.open[0]

    # the actions

    def _create(self) -> Result:
        assert self._export is not None
        ledger = Ledger(self._settings.cache / "ledger.jsonl")
        if spent := ledger.exhausted(self._plan.repo, self._settings.limits):
            return replace(self._result(Outcome.SKIPPED), reason=spent)
        if self._state.main is not None and self._export.is_on(self._state.main.head):
            return replace(
                self._result(Outcome.UNCHANGED), reason="A fresh export gives the bytes that are there already."
            )
        account = self._state.account
        assert account is not None
        marker = self._plan.wanted.marker(replaces=bool(self._replaced()), complete=False)
        title = body.title(self._subject(None, self._export.manifest, self._export.listed()))
        self._progress.status("opening a draft")
        num = self._hub.open_draft(
            self._plan.repo,
            title,
            body.placeholder(self._plan.repo, marker),
            lambda thread: pull_request.is_ours(thread, account),
        )
        ledger.record(self._plan.repo)
        self._progress.status(f"draft #{num}")
        # Another run may have done the same at the same time. All of them see the same list, and the oldest stays.
        raise HeadMovedError("a draft was opened")

    def _bring_up_to_date(self, ours: OurPullRequest) -> Result:
        assert self._export is not None
        ref = self._state.ref
        if ours.thread.status == "open" and ref and self._export.is_on(ref.head) and self._described_already(ours):
            return replace(
                self._result(Outcome.UNCHANGED, ours), reason="A fresh export gives the bytes that are there already."
            )
        try:
            self._upload(ours)
        except (HubUnavailableError, RateLimitedError, UnauthorizedError, HeadMovedError):
            raise  # a later run goes on from here
        except ModelExportError as error:
            if self._hub.thread(self._plan.repo, ours.thread.num).status not in ("draft", "open"):
                raise HeadMovedError(f"#{ours.thread.num} was closed or merged meanwhile") from error
            with contextlib.suppress(ModelExportError):
                self._close(ours, f"I could not fill this pull request and withdraw it: {error.message}", "failed")
            raise
        return self._finish(ours, (self._export.manifest, self._export.listed()))

    def _upload(self, ours: OurPullRequest) -> None:
        """One commit that makes ``onnx/`` on the ref exactly the exported folder, read back and compared."""
        export = self._export
        assert export is not None
        repo, ref = self._plan.repo, ours.thread.ref
        before = self._hub.repo(repo, ref)
        if not export.is_on(before):

            def applied() -> str | None:
                head = self._hub.repo(repo, ref)
                return head.sha if export.is_on(head) else None

            size = sum(file.size for file in export.files.values())
            self._progress.status(f"uploading {len(export.files)} files, {size / 1e6:.1f} MB")
            self._hub.commit(
                repo,
                ref,
                before.sha,
                body.title(self._subject(ours, export.manifest, export.listed())),
                add={
                    path: file.path
                    for path, file in export.files.items()
                    if not file.is_listed_as(before.files.get(path))
                },
                delete=[p for p in before.files if p.startswith(f"{FOLDER}/") and p not in export.files],
                applied=applied,
            )
        self._progress.status("comparing what the Hub holds with what was sent")
        after = self._hub.repo(repo, ref)
        wrong = [path for path, file in export.files.items() if not file.is_listed_as(after.files.get(path))]
        wrong += [path for path in after.files if path.startswith(f"{FOLDER}/") and path not in export.files]
        wrong += _touched_outside(before, after)
        if wrong:
            raise UploadCorruptError(
                f"After the upload the Hub lists other contents than were sent for {', '.join(sorted(wrong)[:5])} of "
                f"{repo} at {ref}. The pull request is withdrawn; run it again."
            )

    def _finish(self, ours: OurPullRequest, folder: tuple[Manifest, tuple[PublishedFile, ...]]) -> Result:
        """Comment, title, text and status, each only if it is not as it should be.

        The text comes last, or before the opening of a draft: its marker says that nothing is left to do.
        """
        repo, thread = self._plan.repo, ours.thread
        subject = self._subject(ours, *folder)
        title, text = body.title(subject), body.body(subject)
        self._progress.status(f"writing the text of #{thread.num}")
        was_draft = thread.status == "draft"
        if not was_draft:
            self._say_updated(ours)
        if thread.title != title:
            self._hub.rename(repo, thread.num, title)
        if thread.body.strip() != text.strip():
            self._hub.edit_comment(repo, thread.num, thread.comments[0].id, text)
        if was_draft:
            self._hub.set_status(repo, thread.num, "open")
        outcome = Outcome.CREATED if was_draft else Outcome.UPDATED
        told = self._result(outcome, ours)
        reason = (
            f"#{thread.num} is open." if was_draft else f"#{thread.num} now has the export of {self._plan.sha[:7]}."
        )
        return replace(told, reason=reason, title=title, body=text, files=folder[1])

    def _say_updated(self, ours: OurPullRequest) -> None:
        assert self._state.account is not None
        comment = body.updated_comment(
            ours.marker if ours.marker.complete else None, self._plan.wanted.marker(complete=True)
        )
        tag = comment[comment.rindex("<!--") :]
        if tag not in ours.last_said(self._state.account, "updated") and not self._described_already(ours):
            self._hub.comment(self._plan.repo, ours.thread.num, comment)

    def _described_already(self, ours: OurPullRequest) -> bool:
        return self._plan.wanted.described_by(ours.marker)

    def _say_blocked(self) -> None:
        assert self._state.account is not None
        if not self._ours.said(self._state.account, "blocked"):
            strangers = self._ours.strangers(self._state.account)
            self._hub.comment(self._plan.repo, self._ours.thread.num, body.blocked_comment(strangers))

    def _close(self, ours: OurPullRequest, reason: str, purpose: str) -> None:
        self._hub.set_status(self._plan.repo, ours.thread.num, "closed", body.closing_comment(reason, purpose))

    def _close_duplicates(self) -> None:
        """After a race the oldest stays; whoever sees the others closes them."""
        assert self._state.account is not None
        for other in self._state.open[1:]:
            if not other.strangers(self._state.account):
                reason = f"#{self._ours.thread.num} was opened at the same time for the same purpose and stays."
                self._close(other, reason, "duplicate")

    # what to say

    def _subject(self, ours: OurPullRequest | None, manifest: Manifest, files: tuple[PublishedFile, ...]) -> Subject:
        main = self._state.main
        return Subject(
            repo=self._plan.repo,
            num=ours.thread.num if ours else None,
            manifest=manifest,
            files=files,
            marker=self._plan.wanted.marker(replaces=bool(self._replaced()), complete=True),
            mention=self._settings.mention,
            updates=main is not None and main.manifest is not None,
            replaced=self._replaced(),
            warnings=self._plan.warnings,
        )

    def _replaced(self) -> list[str]:
        """The files of main's ``onnx/`` that somebody else put there."""
        main = self._state.main
        return sorted(main.files) if main is not None and main.manifest is None else []

    def _folder_on_ref(self) -> tuple[Manifest, tuple[PublishedFile, ...]]:
        """Manifest and files as the ref has them, for a text without a fresh export."""
        ref = self._state.ref
        assert ref is not None
        assert ref.manifest is not None
        files = [PublishedFile(f"{FOLDER}/{entry.path}", entry.size, entry.sha256) for entry in ref.manifest.files]
        text = ref.manifest.to_json().encode()
        files.append(PublishedFile(MANIFEST_PATH, len(text), hashlib.sha256(text).hexdigest()))
        return ref.manifest, _by_size(files)

    def _result(self, outcome: Outcome, ours: OurPullRequest | None = None) -> Result:
        num, url = (ours.thread.num, ours.thread.url) if ours else (self._decision.num, self._decision.url)
        reason, warnings = self._decision.reason, self._plan.warnings
        return Result(outcome, self._plan.repo, reason, self._plan.sha, num, url, warnings=warnings)


def _touched_outside(before: RepoAt, after: RepoAt) -> list[str]:
    """What changed outside ``onnx/``, but for ``.gitattributes``: the Hub itself adds lines to it for large files."""
    paths = {p for p in before.files.keys() | after.files.keys() if not p.startswith(f"{FOLDER}/")} - {".gitattributes"}
    return [
        p
        for p in paths
        if (old := before.files.get(p)) is None or (new := after.files.get(p)) is None or old.oid != new.oid
    ]


def _by_size(files: list[PublishedFile]) -> tuple[PublishedFile, ...]:
    return tuple(sorted(files, key=lambda file: (-file.size, file.path)))
