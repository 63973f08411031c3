"""The database that jobs are recorded in: SQLite in the data directory, or a PostgreSQL of the operator's.

dbos waits for a database for ever. That is right while a server runs, and wrong for a mistyped address, so the address
is tried once before dbos gets it.
"""

from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from modelexport.contract.errors import UsageError
from modelexport_bot.credentials import redact

_PATIENCE = 10  # seconds


def in_directory(directory: Path) -> str:
    """The address of the SQLite file in a data directory."""
    return f"sqlite:///{directory / 'jobs.sqlite'}"


def must_open(address: str) -> None:
    """Raises UsageError when nothing that we can use answers at a PostgreSQL address."""
    try:
        url = sqlalchemy.make_url(address)
        if url.get_backend_name() != "postgresql":
            raise UsageError(f"The database of jobs does not open: {url.get_backend_name()} is not PostgreSQL.")
        engine = sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": _PATIENCE}
        )
        engine.connect().close()
        engine.dispose()
    except SQLAlchemyError as error:
        raise UsageError(f"The database of jobs does not open: {redact(str(error).splitlines()[0])}") from error
