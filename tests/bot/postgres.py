"""A PostgreSQL server of a test's own, where the machine has one installed."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def binaries() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; None if there are none."""
    server = shutil.which("postgres") or next(
        map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None
    )
    folder = Path(server).resolve().parent if server else None
    return folder if folder and (folder / "initdb").exists() else None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """A fresh server; yields the address of its empty database ``jobs``. PostgreSQL refuses to run as root."""
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory, socket.socket() as free:
        if os.getuid() == 0:
            shutil.chown(directory, user)
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        data, cluster = f"{directory}/data", {"user": user if os.getuid() == 0 else None, "cwd": directory}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        create = [folder / "initdb", "-D", data, "-U", "bot", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run(create, check=True, **cluster, **quiet)  # type: ignore[call-overload]
        serve = [folder / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", directory, "-F"]
        server = subprocess.Popen(serve, **cluster, **quiet)  # type: ignore[call-overload]
        try:
            at = ["-h", "127.0.0.1", "-p", port, "-U", "bot"]
            wait = 'for i in $(seq 100); do "$0" "$@" -q && exit; sleep 0.1; done; exit 1'
            subprocess.run(["sh", "-c", wait, folder / "pg_isready", *at], check=True)
            subprocess.run([folder / "createdb", *at, "jobs"], check=True)
            yield f"postgresql://bot@127.0.0.1:{port}/jobs"
        finally:
            server.terminate()
            server.wait(20)
