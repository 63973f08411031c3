"""What ``modelexport-bot serve`` refuses to start without, and what it says then."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from modelexport_bot.cli import app
from modelexport_bot.server.config import SECRET_VARIABLE

SECRET = {SECRET_VARIABLE: "a-secret"}
TOKEN = {"HF_TOKEN": "hf_a_token_of_the_bot"}


@pytest.fixture(autouse=True)
def _logging_stays_as_it_is() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def refusal(data: Path, *options: Any, environment: dict[str, str]) -> str:
    """What is said on stderr; asserts that it is a wrong call and that nothing was said to listen."""
    done = CliRunner().invoke(app, ["serve", "--data-dir", str(data), *map(str, options)], env=environment)
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("secret", [None, "", "   "])
def test_no_secret(data: Path, secret: str | None) -> None:
    given = {} if secret is None else {SECRET_VARIABLE: secret}
    assert SECRET_VARIABLE in refusal(data, environment=TOKEN | given)
    assert not data.exists()


def test_no_token(data: Path) -> None:
    assert "takes a token" in refusal(data, environment=SECRET)
    assert not data.exists()


def test_a_port_that_is_taken(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refusal(data, "--port", taken.getsockname()[1], environment=SECRET | TOKEN)
    assert "Cannot listen on 127.0.0.1" in said


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(data: Path, host: str) -> None:
    assert f"Cannot listen on {host}" in refusal(data, "--host", host, environment=SECRET | TOKEN)


def test_a_data_directory_that_another_server_uses(data: Path) -> None:
    data.mkdir()
    with FileLock(data / "lock"):
        assert "Another server uses" in refusal(data, "--port", 0, environment=SECRET | TOKEN)


def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Cannot use" in refusal(tmp_path / "file", "--port", 0, environment=SECRET | TOKEN)


@pytest.mark.parametrize("url", ["no url", "postgresql://bot:swordfish@127.0.0.1:1/jobs", "mysql://bot:swordfish@h/d"])
def test_a_database_that_does_not_open(data: Path, url: str) -> None:
    said = refusal(data, "--port", 0, environment=SECRET | TOKEN | {"MODELEXPORT_DATABASE_URL": url})
    assert "The database of jobs does not open" in said
    assert "swordfish" not in said
