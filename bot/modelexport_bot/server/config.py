"""What the operator decided about the server; what it does on the Hub is in :mod:`modelexport_bot.settings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import platformdirs

from modelexport.contract.errors import UsageError
from modelexport_bot.credentials import Token

SECRET_VARIABLE = "MODELEXPORT_WEBHOOK_SECRET"  # noqa: S105  (a name, not a secret)


def default_data_dir() -> Path:
    """Where the server keeps its data if ``--data-dir`` names no other place."""
    return platformdirs.user_data_path("modelexport") / "server"


@dataclass(frozen=True)
class Config:
    """One server.

    Attributes:
        secret: what a delivery must carry in ``X-Webhook-Secret``.
        host, port: where to listen; port 0 picks a free one.
        data_dir: holds the recorded jobs and their scratch folders; one server at a time.
        database_url: where to record jobs instead, ``postgresql://...``; None means SQLite in ``data_dir``.
        concurrency: how many jobs may run at a time, each on another repo.
        kept: how long a job stays on record after its end.
    """

    secret: Token
    host: str
    port: int
    data_dir: Path
    database_url: str | None = None
    concurrency: int = 1
    kept: timedelta = timedelta(days=30)


def secret_from(environment: Mapping[str, str]) -> Token:
    """The webhook's secret. Raises UsageError if there is none: anybody could start jobs then."""
    secret = environment.get(SECRET_VARIABLE, "").strip()
    if not secret:
        raise UsageError(
            f"{SECRET_VARIABLE} is not set. Choose a long random secret, enter it in the webhook's settings on the "
            "Hub, and "
            "set the variable to the same; without it anybody who finds the address could start jobs."
        )
    return Token(secret)
