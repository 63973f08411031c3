"""The Hub as we use it: few calls, our own types, our own errors.

With :mod:`modelexport_bot.transport` the only module that knows ``huggingface_hub``; everything else is written against
the classes below. Two things it adds to the client:

*Errors.* Every failure leaves as one of the classes of ``modelexport.contract``, with a message that names the repo.

*Writes that can be repeated.* The Hub has no idempotency keys, so when the answer to a write is lost nobody knows
whether it was applied. Each write here comes with a look at what it should have changed; before a write is sent again,
that look decides whether there is anything left to send.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OIDCError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.logging import set_verbosity_error
from huggingface_hub.utils.tqdm import disable_progress_bars
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay

from modelexport.contract.errors import (
    DownloadCorruptError,
    ForbiddenError,
    GatedError,
    HubUnavailableError,
    ModelExportError,
    PrsDisabledError,
    RateLimitedError,
    RepoDisabledError,
    RepoNotFoundError,
    UnauthorizedError,
    UploadCorruptError,
    UsageError,
)
from modelexport.contract.errors import RevisionNotFoundError as NoSuchRevisionError
from modelexport_bot.credentials import Token, redact
from modelexport_bot.settings import PUBLIC_HUB, Patience
from modelexport_bot.transport import PatientClient, Unsettled, jittered

T = TypeVar("T")

TRUSTED_PUBLISHER = "[OIDC]"
"""Who the Hub says has written with a Trusted Publisher's token, which belongs to no account."""

constants.HF_HUB_DISABLE_TELEMETRY = True  # also spares a request to the public hub, which may not be the one in use


# --- what the Hub tells us -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Whose token it is."""

    name: str
    read_only: bool = False


@dataclass(frozen=True)
class HubFile:
    """A file of a repo at one commit. ``blob_id`` is its git id; ``sha256`` is known for files kept in LFS only."""

    path: str
    size: int
    blob_id: str
    sha256: str | None

    @property
    def oid(self) -> str:
        """What identifies the content: equal oids, equal bytes."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class RepoAt:
    """A model repo at one commit."""

    id: str
    sha: str
    files: Mapping[str, HubFile]
    card: Mapping[str, Any] = field(default_factory=dict)
    gated: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)
    """How many parameters its safetensors files hold, by dtype (``F32``); empty where the Hub does not say."""


@dataclass(frozen=True)
class Comment:
    """A comment in a thread; the first one of a pull request is its body."""

    id: str
    author: str
    text: str
    hidden: bool = False


@dataclass(frozen=True)
class Thread:
    """A discussion or pull request with all that happened in it.

    ``status`` is draft, open, closed or merged; ``pushed_by`` are the authors of the commits on its ref, oldest first;
    ``closed_by`` is who closed it last.
    """

    num: int
    title: str
    status: str
    author: str
    url: str
    comments: tuple[Comment, ...]
    pushed_by: tuple[str, ...]
    closed_by: str | None = None

    @property
    def body(self) -> str:
        """The first comment."""
        return self.comments[0].text if self.comments else ""

    @property
    def ref(self) -> str:
        """Where its commits live, if it is a pull request."""
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class ThreadHeading:
    """What a list of threads shows of each."""

    num: int
    title: str
    status: str


@dataclass(frozen=True)
class Commit:
    """A commit of a branch."""

    sha: str
    title: str
    authors: tuple[str, ...] = ()


class HeadMovedError(ModelExportError):
    """Somebody committed between our look and our commit. Never leaves the bot: it looks again."""

    code = HubUnavailableError.code
    exit_status = HubUnavailableError.exit_status


_WRITING_ROLES = ("admin", "write")  # of an organisation; a contributor writes to repos of their own making only


# --- the Hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """One Hub, seen with one token.

    Args:
        endpoint: its address.
        token: None means anonymous.
        keyless: the repo (``org/name``) or user to get a short-lived token for, from the identity that the CI provider
            vouches for (Trusted Publishers). It is asked for when it is first needed, and again when it has expired.
        patience: see :class:`~modelexport_bot.settings.Patience`.
    """

    def __init__(
        self,
        endpoint: str = PUBLIC_HUB,
        token: Token | None = None,
        *,
        keyless: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._token = token
        self._keyless = keyless
        self._patience = patience or Patience()
        self._api_with_token: HfApi | None = None
        self._account: Account | None = None
        _use_patient_client(self._patience)
        if endpoint != PUBLIC_HUB:
            # huggingface_hub 2.x with hf_xet installed uploads through Xet only and has no way back to plain LFS;
            # mirrors and on-premise hubs seldom speak Xet, while every hub speaks LFS.
            constants.HF_HUB_DISABLE_XET = True

    # reading

    def account(self) -> Account | None:
        """Who we are; None without a token. Raises UnauthorizedError for a token that the Hub does not know."""
        if self._keyless is not None:
            return Account(TRUSTED_PUBLISHER)
        if self._token is None:
            return None
        if self._account is None:
            answer = self._read("this account", lambda api: api.whoami())
            access = (answer.get("auth") or {}).get("accessToken") or {}
            self._account = Account(name=answer["name"], read_only=access.get("role") == "read")
        return self._account

    def repo(self, repo: str, revision: str | None = None) -> RepoAt:
        """A model repo with all its files, their sizes and hashes, in one request. Follows renames."""
        info = self._read(repo, lambda api: api.model_info(repo, revision=revision, files_metadata=True), revision)
        files = [
            HubFile(
                path=sibling.rfilename,
                size=sibling.size or 0,
                blob_id=sibling.blob_id or "",
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings or []
        ]
        card: dict[str, Any] = dict(vars(info.card_data)) if info.card_data else {}
        parameters = dict(info.safetensors.parameters) if info.safetensors else {}
        listed = {file.path: file for file in files}
        return RepoAt(info.id, info.sha or "", listed, card, bool(info.gated), parameters)

    def download(self, repo: str, path: str, sha: str, *, again: bool = False) -> Path:
        """One file of one commit, in the local cache. ``again``: what the cache holds is wrong."""

        def fetch(api: HfApi) -> str:
            return str(api.hf_hub_download(repo, path, revision=sha, force_download=again))

        return Path(self._read(repo, fetch, sha))

    def commits(self, repo: str, revision: str, limit: int | None = None) -> list[Commit]:
        """The latest commits, newest first; None for all."""

        def fetch(api: HfApi) -> list[Commit]:
            found = api.list_repo_commits(repo, revision=revision)
            return [Commit(entry.commit_id, entry.title, tuple(entry.authors)) for entry in found]

        return self._read(repo, fetch, revision)[:limit]

    def threads(self, repo: str, author: str, *, pull_requests: bool = True) -> list[ThreadHeading]:
        """The pull requests (or discussions) that an account has opened on a repo, newest first."""
        kind = "pull_request" if pull_requests else "discussion"

        def fetch(api: HfApi) -> list[ThreadHeading]:
            found = api.get_repo_discussions(repo, author=author, discussion_type=kind)  # type: ignore[arg-type]
            return [ThreadHeading(entry.num, entry.title, entry.status) for entry in found]

        return sorted(self._read(repo, fetch), key=lambda heading: -heading.num)

    def thread(self, repo: str, num: int) -> Thread:
        """One pull request or discussion with its comments and commits."""
        details = self._read(f"{repo}, discussion {num}", lambda api: api.get_discussion_details(repo, num))
        return Thread(
            num=num,
            title=details.title,
            status=details.status,
            author=details.author,
            url=details.url,
            comments=tuple(
                Comment(event.id, event.author, event.content, event.hidden)
                for event in details.events
                if isinstance(event, huggingface_hub.DiscussionComment)
            ),
            pushed_by=tuple(
                event.author for event in details.events if isinstance(event, huggingface_hub.DiscussionCommit)
            ),
            closed_by=next(
                (
                    event.author
                    for event in reversed(details.events)
                    if isinstance(event, huggingface_hub.DiscussionStatusChange) and event.new_status == "closed"
                ),
                None,
            ),
        )

    def models_of(self, owner: str, limit: int | None = None) -> list[str]:
        """The ids of an owner's model repos, most recently changed first."""
        fetch: Callable[[HfApi], list[str]] = lambda api: [  # noqa: E731
            info.id for info in api.list_models(author=owner, sort="last_modified", limit=limit)
        ]
        return self._read(owner, fetch)

    # writing

    def open_draft(self, repo: str, title: str, body: str, is_ours: Callable[[Thread], bool]) -> int:
        """A new draft pull request; returns its number. ``is_ours`` recognises it if the answer is lost."""
        account = self.account()
        assert account is not None

        def look() -> int | None:
            drafts = [heading.num for heading in self.threads(repo, account.name) if heading.status == "draft"]
            return next((num for num in sorted(drafts) if is_ours(self.thread(repo, num))), None)

        send: Callable[[HfApi], int] = lambda api: api.create_pull_request(repo, title, description=body).num  # noqa: E731
        return self._write(repo, send, look)

    def open_discussion(self, repo: str, title: str, body: str) -> int:
        """A new discussion; returns its number."""
        account = self.account()
        assert account is not None

        def look() -> int | None:
            found = self.threads(repo, account.name, pull_requests=False)
            return next((heading.num for heading in found if heading.title == title), None)

        return self._write(repo, lambda api: api.create_discussion(repo, title, description=body).num, look)

    def commit(
        self,
        repo: str,
        ref: str,
        parent: str,
        message: str,
        *,
        add: Mapping[str, Path],
        delete: Iterable[str],
        applied: Callable[[], str | None],
    ) -> str:
        """One commit on a ref; returns the new head. Files that the Hub already holds are not sent again.

        Args:
            repo: the repo.
            ref: a pull request's ref.
            parent: the commit that must be the ref's head.
            message: of the commit.
            add: local file by path in the repo.
            delete: paths to remove.
            applied: looks whether the ref already holds what this commit would make of it, and returns its head if so.

        Raises:
            HeadMovedError: the ref's head is another one.
        """

        def send(api: HfApi) -> str:
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationDelete(path_in_repo=path, is_folder=False) for path in delete
            ]
            operations += [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in add.items()]
            with _uploads_unsettled():
                info = api.create_commit(repo, operations, commit_message=message, revision=ref, parent_commit=parent)
            return str(info.oid)

        return self._write(repo, send, applied)

    def comment(self, repo: str, num: int, text: str) -> None:
        """A comment in a thread; ``text`` must be unlike any comment of ours that is there already."""

        def look() -> bool | None:
            account = self.account()
            said = [
                entry.text.strip()
                for entry in self.thread(repo, num).comments
                if account and entry.author == account.name
            ]
            return True if text.strip() in said else None

        self._write(repo, lambda api: bool(api.comment_discussion(repo, num, text)), look)

    def edit_comment(self, repo: str, num: int, comment: str, text: str) -> None:
        """New text for a comment of ours. The same edit twice is one edit."""
        self._write(repo, lambda api: bool(api.edit_discussion_comment(repo, num, comment, text)), lambda: None)

    def rename(self, repo: str, num: int, title: str) -> None:
        """A new title for a thread."""

        def look() -> bool | None:
            return True if self.thread(repo, num).title == title else None

        self._write(repo, lambda api: bool(api.rename_discussion(repo, num, title)), look)

    def set_status(self, repo: str, num: int, status: str, comment: str | None = None) -> None:
        """Open (a draft too) or close a pull request, with a comment if given.

        Raises:
            HeadMovedError: it cannot be set, because somebody has merged or deleted it meanwhile.
        """

        def look() -> bool | None:
            return True if self.thread(repo, num).status == status else None

        def send(api: HfApi) -> bool:
            return bool(api.change_discussion_status(repo, num, status, comment=comment))  # type: ignore[arg-type]

        try:
            self._write(repo, send, look)
        except UploadCorruptError as error:  # 400, which the Hub also answers when it is so already
            if look() is None:
                raise HeadMovedError(error.message) from error

    def may_write(self, repo: str, user: str) -> bool:
        """Whether a user is known to have write access to a repo.

        In one's own namespace: nobody else. In an organisation: its members with the role ``admin`` or ``write``, where
        the Hub tells us roles. Where it does not, being a member says nothing (most may only read), so a member must
        also have a commit on the repo's main.
        """
        owner = repo.partition("/")[0]
        if user == owner:
            return True

        def fetch(api: HfApi) -> dict[str, str | None]:
            try:
                return {m.username: getattr(m, "role", None) for m in api.list_organization_members(owner)}
            except HfHubHTTPError as error:
                if error.response.status_code == 404:  # a user, not an organisation
                    return {}
                raise

        members = self._read(owner, fetch)
        if user not in members:
            return False
        role = members[user]
        return role in _WRITING_ROLES if role else any(user in entry.authors for entry in self.commits(repo, "main"))

    # how

    def _api(self) -> HfApi:
        if self._api_with_token is None:
            token: str | bool = self._token.reveal() if self._token else False
            if self._keyless is not None:
                token = _exchange(self._keyless, self.endpoint)
            self._api_with_token = HfApi(endpoint=self.endpoint, token=token, library_name="modelexport-bot")
        return self._api_with_token

    def renew(self) -> None:
        """Forget a short-lived token, so that the next request starts with a whole life of one."""
        if self._keyless is not None:
            self._api_with_token = None

    def _call(self, subject: str, send: Callable[[HfApi], T], revision: str | None) -> T:
        """One call, its failure translated. A short-lived token that has expired is exchanged anew, once."""
        with _translated(subject, revision, signed_in=self._token is not None or self._keyless is not None):
            try:
                return send(self._api())
            except HfHubHTTPError as error:
                if self._keyless is None or error.response.status_code != 401:
                    raise
            self.renew()
            return send(self._api())

    def _read(self, subject: str, send: Callable[[HfApi], T], revision: str | None = None) -> T:
        for attempt in self._attempts():
            with attempt:
                return self._call(subject, send, revision)
        raise AssertionError("tenacity ends in a return or a raise")

    def _write(self, subject: str, send: Callable[[HfApi], T], look: Callable[[], T | None]) -> T:
        """Send a write; after a lost answer, look before sending it again."""
        for attempt in self._attempts():
            with attempt:
                if attempt.retry_state.attempt_number > 1 and (seen := look()) is not None:
                    return seen
                return self._call(subject, send, None)
        raise AssertionError("tenacity ends in a return or a raise")

    def _attempts(self) -> Retrying:
        patience = self._patience

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, Unsettled) else None
            return jittered(patience, state.attempt_number) if asked is None else min(asked, patience.total)

        def give_up(state: RetryCallState) -> NoReturn:
            error = state.outcome.exception() if state.outcome else None
            raise HubUnavailableError(
                f"The Hub did not settle a request in {state.attempt_number} attempts (last: {redact(str(error))}). "
                "Run it again later: it looks what was done and finishes the rest."
            ) from error

        return Retrying(
            retry=retry_if_exception_type(Unsettled),
            stop=stop_after_attempt(patience.attempts) | stop_after_delay(patience.total),
            wait=wait,
            sleep=time.sleep,
            retry_error_callback=give_up,
        )


def login_token() -> Token | None:
    """The token of ``hf auth login``, if the user is logged in."""
    with contextlib.suppress(OSError):
        text = Path(constants.HF_TOKEN_PATH).read_text().strip()
        return Token(text) if text else None
    return None


_patience_in_use: Patience | None = None
_one_client = threading.Lock()


def _use_patient_client(patience: Patience) -> None:
    """Give the library our HTTP client. It has one for the whole process, which threads share; setting it anew closes
    the one that others may be using, so that is done only when it would differ.
    """
    from huggingface_hub.utils._http import hf_request_event_hook

    global _patience_in_use
    with _one_client:
        if _patience_in_use == patience:
            return
        _patience_in_use = patience
        disable_progress_bars()
        set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings about retries show signed addresses
        huggingface_hub.set_client_factory(
            lambda: PatientClient(patience, event_hooks={"request": [hf_request_event_hook]})
        )


def _exchange(resource: str, endpoint: str) -> str:
    """A short-lived token for a resource (RFC 8693); the client has it, though in a module it calls private."""
    from huggingface_hub._oidc import oidc_login

    try:
        return str(oidc_login(resource=resource, endpoint=endpoint)["access_token"])
    except HfHubHTTPError as error:
        raise UnauthorizedError(
            f"The Hub gives this workflow no token for {resource}: {redact(error.server_message or str(error))}. "
            "Its owner adds "
            "the workflow as a Trusted Publisher in the repo's settings; or give a token (HF_TOKEN)."
        ) from error


# --- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _uploads_unsettled() -> Iterator[None]:
    """Whatever went wrong while sending file contents is worth another try with fresh upload addresses.

    The client wraps it in RuntimeError. An address may have expired (403), a part may have been lost (400, 404); the
    next try asks the Hub what it has and sends the rest.
    """
    try:
        yield
    except RuntimeError as error:
        match error.__cause__:
            case Unsettled() as cause:
                raise cause from error
            case HfHubHTTPError() as cause:
                raise Unsettled(f"upload: HTTP {cause.response.status_code}") from error
            case ModelExportError() as cause:
                raise cause from error
        raise


@contextlib.contextmanager
def _translated(subject: str, revision: str | None, *, signed_in: bool) -> Iterator[None]:
    at = f" at {revision}" if revision else ""
    try:
        yield
    except GatedRepoError as error:
        raise GatedError(
            f"{subject} is gated. Ask for access on its page with the account whose token is used, then run it again."
        ) from error
    except RepositoryNotFoundError as error:
        hint = (
            "Check the name, and that the token's account has access if the repo is private."
            if signed_in
            else "Check the name; if the repo is private, give a token (--token, HF_TOKEN, or hf auth login)."
        )
        raise RepoNotFoundError(f"{subject} was not found on the Hub. {hint}") from error
    except RevisionNotFoundError as error:
        raise NoSuchRevisionError(f"{subject} has no revision {revision!r}. Check --revision.") from error
    except DisabledRepoError as error:
        raise RepoDisabledError(f"{subject} is disabled on the Hub; nobody can read or change it.") from error
    except HfHubHTTPError as error:
        raise _from_status(subject, error) from error
    except HFValidationError as error:
        raise UsageError(f"{subject!r} is no repo id: {error}") from error
    except OIDCError as error:
        raise UnauthorizedError(f"Keyless login failed: {redact(str(error))}") from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _from_status(subject, error.__cause__) from error
        raise HubUnavailableError(f"Could not download from {subject}{at}: {redact(str(error))}") from error
    except EntryNotFoundError as error:
        raise HubUnavailableError(f"A file of {subject}{at} is gone; the repo is changing. Run it again.") from error
    except (ValueError, KeyError) as error:  # a proxy's page, or half of an answer, with status 200
        raise Unsettled(f"an answer about {subject} that is none of the Hub's: {redact(str(error))}") from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise DownloadCorruptError(f"A download from {subject}{at} ended short: {redact(str(error))}") from error
        raise


def _from_status(subject: str, error: HfHubHTTPError) -> Exception:
    status = error.response.status_code
    said = redact((error.server_message or str(error)).strip().splitlines()[0])
    request = f" (request {error.request_id})" if error.request_id else ""
    match status:
        case 401:
            return UnauthorizedError(
                f"The Hub does not accept the token{request}: {said}. It may be mistyped, revoked or expired; create "
                "one at https://huggingface.co/settings/tokens."
            )
        case 403 if "iscussion" in said and "disabled" in said:
            return PrsDisabledError(
                f"{subject} has discussions and pull requests disabled. Its owner can enable them in the repo's "
                "settings."
            )
        case 403:
            return ForbiddenError(
                f"The Hub refuses on {subject}{request}: {said}. Opening a pull request takes a token with the role "
                "write, or a fine-grained one with discussion.write."
            )
        case 412:
            return HeadMovedError(f"{subject} has moved on: {said}")
        case 429:
            return RateLimitedError(f"The Hub's rate limit is used up{request}: {said}")
        case 400 | 422:
            return UploadCorruptError(f"The Hub did not accept a request for {subject}{request}: {said}")
        case 404:
            return RepoNotFoundError(f"{subject} was not found on the Hub{request}: {said}")
        case 409:
            return HeadMovedError(f"{subject} has moved on: {said}")
        case _:
            return HubUnavailableError(f"The Hub answered {status} for {subject}{request}: {said}")
