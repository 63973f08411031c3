"""The process: start the jobs, listen, and end.

Ending is no more than that. Whatever a job is doing can be done again, and the exporter dies with us because its
supervisor sees our end of a pipe close (:mod:`modelexport_bot.supervisor`); so a stop takes the way that a crash has to
take anyhow, and that way is tested. Only answers to deliveries under way are waited for.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import uvicorn
from filelock import FileLock, Timeout

from modelexport.contract.errors import UsageError
from modelexport_bot.server import app, database, log
from modelexport_bot.server.config import Config
from modelexport_bot.server.jobs import Jobs
from modelexport_bot.settings import Settings

_LAST_ANSWERS = 3  # seconds that answers under way may take after a stop


def serve(config: Config, settings: Settings, *, verbose: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then end the process; never returns.

    Prints one line of JSON, ``{"url": ...}``, on stdout once it listens.

    Raises:
        UsageError: no token, a port or a data directory that another process has, a database that does not open.
    """
    if settings.token is None and settings.keyless is None and not settings.dry_run:
        raise UsageError("Opening pull requests takes a token: --token, HF_TOKEN, or hf auth login.")
    log.configure([config.secret, *([settings.token] if settings.token else [])], verbose=verbose)
    if config.database_url is not None:
        database.must_open(config.database_url)
    with _own_directory(config.data_dir), _listening(config) as listener:
        jobs = Jobs(
            settings,
            config.data_dir,
            database_url=config.database_url,
            concurrency=config.concurrency,
            kept=config.kept,
        )
        jobs.start()
        server = _Server(
            uvicorn.Config(
                app.create(config.secret, jobs, jobs.recent),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            ),
            jobs,
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it is done
            server.run(sockets=[listener])
        log.logger.info("stopped; jobs that are not done go on at the next start")
        sys.stdout.flush()
        logging.shutdown()
        os._exit(0)


class _Server(uvicorn.Server):
    """Says where it listens once it does, and tells the jobs of a stop before anything else."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._jobs.expect_stop()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.logger.info("listening on %s", url)
        print(json.dumps({"url": url}), flush=True)


@contextlib.contextmanager
def _own_directory(directory: Path) -> Iterator[None]:
    """The data directory, ours alone; what an earlier process left in its temporary directory is gone."""
    lock, temporary = FileLock(directory / "lock", timeout=0), directory / "tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except Timeout as error:
        raise UsageError(f"Another server uses {directory}. Stop it, or give this one another --data-dir.") from error
    except OSError as error:
        raise UsageError(f"Cannot use {directory}: {error.strerror}. Give --data-dir another directory.") from error
    before, tempfile.tempdir = tempfile.tempdir, os.fspath(temporary)
    try:
        yield
    finally:
        tempfile.tempdir = before
        lock.release()


@contextlib.contextmanager
def _listening(config: Config) -> Iterator[socket.socket]:
    """A socket that is bound, so that a port in use is known before any job starts."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
        except OSError as error:
            raise UsageError(
                f"Cannot listen on {config.host}:{config.port}: {error.strerror}. Choose another --host or --port."
            ) from error
        yield listener
