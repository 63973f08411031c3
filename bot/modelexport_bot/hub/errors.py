"""What the client raises, as one of our errors.

Every failure leaves this package as one of the classes of ``modelexport.contract``, with a message that names the repo.
"""

import contextlib
from collections.abc import Iterator

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
from modelexport_bot.credentials import redact
from modelexport_bot.hub.transport import Unsettled


class HeadMovedError(ModelExportError):
    """Somebody committed between our look and our commit. Never leaves the bot: it looks again."""

    code = HubUnavailableError.code
    exit_status = HubUnavailableError.exit_status


@contextlib.contextmanager
def uploads_unsettled() -> Iterator[None]:
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
def translated(subject: str, revision: str | None, *, signed_in: bool) -> Iterator[None]:
    """What the client raises in this block leaves it as ours. ``subject``: the repo, or what else it is about."""
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
    said = redact((error.server_message or str(error)).strip().splitlines()[0]).rstrip(".")
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
            return HeadMovedError(f"{subject} has moved on: {said}.")
        case 429:
            return RateLimitedError(f"The Hub's rate limit is used up{request}: {said}.")
        case 400 | 422:
            return UploadCorruptError(f"The Hub did not accept a request for {subject}{request}: {said}.")
        case 404:
            return RepoNotFoundError(f"{subject} was not found on the Hub{request}: {said}.")
        case 409:
            return HeadMovedError(f"{subject} has moved on: {said}.")
        case _:
            return HubUnavailableError(f"The Hub answered {status} for {subject}{request}: {said}.")
