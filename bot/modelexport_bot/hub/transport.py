"""Every request to the Hub goes through one HTTP client with one idea of patience.

``huggingface_hub`` retries some of its requests and not others, sleeps as long as the server says, and has no time
limit. Here every request has a limit, waits are bounded and jittered, and what the server says about when to come back
(``Retry-After``, ``RateLimit``) is honoured as far as our patience reaches.

What may simply be sent again depends on the request:

- reads, and posts that change nothing or the same thing however often they arrive (preupload, LFS batch and verify,
  ...), are repeated on every transient failure;
- other posts (a commit, a comment) are repeated only when the Hub has certainly not acted: no connection, or 429.
  Anything else raises :class:`Unsettled`, and :mod:`modelexport_bot.hub.connection` looks what happened before it
  sends them again;
- uploads of a file's content cannot be replayed from here (the body is a consumed stream): :class:`Unsettled` too.

Our exceptions are none that ``huggingface_hub`` retries, so waits do not multiply.
"""

import functools
import random
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from huggingface_hub.utils._http import parse_ratelimit_headers

from modelexport.contract.errors import HubUnavailableError, RateLimitedError
from modelexport_bot.settings import Patience

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

_TRANSIENT_ERRORS = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
_NEVER_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_REPEATABLE_POST = re.compile(
    r"/preupload/|/paths-info/|/info/lfs/objects/batch$|/verify|/complete|/api/validate-yaml$|/oauth/token$"
)


class Unsettled(Exception):  # noqa: N818  (no error of the user's: a question that connection.py answers)
    """A request failed, and the Hub may or may not have acted on it.

    Attributes:
        wait: seconds after which the Hub wants to be asked again; None if it did not say.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class PatientClient(httpx2.Client):
    """An HTTP client that repeats what can be repeated, within limits."""

    def __init__(self, patience: Patience, **options: Any) -> None:
        timeout = httpx2.Timeout(patience.read, connect=patience.connect)
        super().__init__(timeout=timeout, follow_redirects=True, verify=_tls(), **options)
        self._patience = patience

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send, repeat as the module's text says, and return the first answer that is not transient.

        Raises:
            Unsettled: the outcome of a request that must not be repeated blindly is unknown.
            RateLimitedError: the Hub wants us to wait longer than our patience.
            HubUnavailableError: attempts or time are used up.
        """
        started = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            wait: float | None = None
            try:
                response = super().send(request, **options)
            except _TRANSIENT_ERRORS as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                refused = isinstance(error, _NEVER_ARRIVED)
            else:
                if response.status_code not in TRANSIENT:
                    return response
                wait = asked_to_wait(response)
                failure = f"HTTP {response.status_code}"
                refused = response.status_code == 429
                response.close()
            what = f"{request.method} {request.url.host}{request.url.path}"
            if not (refused or _repeatable(request)) or not _replayable(request):
                raise Unsettled(f"{what}: {failure}", wait)
            pause = self._pause(attempt) if wait is None else wait
            if time.monotonic() - started + pause > self._patience.total or attempt >= self._patience.attempts:
                raise _given_up(what, failure, attempt, wait)
            time.sleep(pause)

    def _pause(self, attempt: int) -> float:
        return jittered(self._patience, attempt)


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all clients: reading the certificate authorities takes longer than a request."""
    return httpx2.create_ssl_context()


def jittered(patience: Patience, attempt: int) -> float:
    """Seconds to wait after this many attempts: doubling, capped, half of it random so that many bots spread out."""
    full = min(patience.longest_wait, patience.first_wait * 2.0 ** (attempt - 1))
    return full / 2 + random.uniform(0, full / 2)


def asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds after which the server wants to be asked again: ``RateLimit`` when used up, else ``Retry-After``."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _repeatable(request: httpx2.Request) -> bool:
    return request.method != "POST" or _REPEATABLE_POST.search(request.url.path) is not None


def _replayable(request: httpx2.Request) -> bool:
    return isinstance(request.stream, httpx2.ByteStream)


def _given_up(what: str, failure: str, attempts: int, wait: float | None) -> HubUnavailableError | RateLimitedError:
    if wait is not None and "429" in failure:
        return RateLimitedError(
            f"The Hub's rate limit is used up ({what}); it asks to come back in {wait:.0f} seconds. Run it again "
            "then; what was done so far is not lost."
        )
    return HubUnavailableError(
        f"The Hub did not answer {what} in {attempts} attempts (last: {failure}). Run it again later; what was done "
        "so far is not lost. The Hub's state is shown at https://status.huggingface.co."
    )
