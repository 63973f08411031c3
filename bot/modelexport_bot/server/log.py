"""The server's log: lines on stderr, with every secret cut out, whoever wrote the line."""

import logging
import sys
from collections.abc import Iterable

from modelexport_bot.credentials import Token, redact

logger = logging.getLogger("modelexport_bot.server")


class _Redacting(logging.Formatter):
    """Cuts out what looks like a token, and the secrets we know whatever they look like."""

    def __init__(self, secrets: Iterable[Token]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._secrets = [secret.reveal() for secret in secrets]

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def configure(secrets: Iterable[Token], *, verbose: bool) -> None:
    """Our lines, and the warnings of every library, all through one formatter."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting(secrets))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    # dbos prints by itself unless its logger has a handler; with this one its lines reach the root's.
    logging.getLogger("dbos").addHandler(logging.NullHandler())


class JobLog:
    """A job's progress as lines of the log."""

    def __init__(self, job: str) -> None:
        self._job = job

    def step(self, name: str, detail: str = "") -> None:
        """A step begins."""
        logger.info("%s: %s %s", self._job, name.strip(), detail)

    def advance(self, done: int, total: int, unit: str) -> None:
        """Not logged."""

    def status(self, line: str) -> None:
        """For ``--verbose``."""
        logger.debug("%s: %s", self._job, line)

    def note(self, message: str) -> None:
        """Something the operator should read."""
        logger.warning("%s: %s", self._job, message)

    def detail(self, line: str) -> None:
        """For ``--verbose``."""
        logger.debug("%s: %s", self._job, line)
