"""How calls to the Hub are made: with whose token, how often, and until when.

:mod:`~modelexport_bot.hub.transport` repeats what may simply be sent again. What may not comes here as ``Unsettled``: a
read is then made once more, and a write only after a look at what became of it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Self, TypeVar

import huggingface_hub
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.logging import set_verbosity_error
from huggingface_hub.utils.tqdm import disable_progress_bars
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay

from modelexport.contract.errors import HubUnavailableError, UnauthorizedError
from modelexport_bot.credentials import Token, redact
from modelexport_bot.hub.errors import translated
from modelexport_bot.hub.transport import PatientClient, Unsettled, jittered
from modelexport_bot.settings import PUBLIC_HUB, Patience, Settings

T = TypeVar("T")

constants.HF_HUB_DISABLE_TELEMETRY = True  # also spares a request to the public hub, which may not be the one in use


class Connection:
    """Calls to one Hub, with one token.

    Args:
        endpoint: its address.
        token: None means anonymous.
        keyless: the repo (``org/name``) or user to get a short-lived token for, from the identity that the CI provider
            vouches for (Trusted Publishers). It is asked for when it is first needed, and again when it has expired.
        patience: see :class:`~modelexport_bot.settings.Patience`.
        downloads: where to keep what is fetched; None means the client's cache.
    """

    def __init__(
        self,
        endpoint: str = PUBLIC_HUB,
        token: Token | None = None,
        *,
        keyless: str | None = None,
        patience: Patience | None = None,
        downloads: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._token = token
        self._keyless = keyless
        self._patience = patience or Patience()
        self._downloads = downloads
        self._api_with_token: HfApi | None = None
        _use_patient_client(self._patience)
        if endpoint != PUBLIC_HUB:
            # huggingface_hub 2.x with hf_xet installed uploads through Xet only and has no way back to plain LFS;
            # mirrors and on-premise hubs seldom speak Xet, while every hub speaks LFS.
            constants.HF_HUB_DISABLE_XET = True

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The Hub that the operator chose, with the operator's token."""
        return cls(
            settings.endpoint,
            settings.token,
            keyless=settings.keyless,
            patience=settings.patience,
            downloads=settings.downloads,
        )

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
        with translated(subject, revision, signed_in=self._token is not None or self._keyless is not None):
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
