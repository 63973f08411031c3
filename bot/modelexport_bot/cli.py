"""The command line of the bot. It reads flags and environment, calls :mod:`modelexport_bot.job`, and prints.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from modelexport_bot import __version__

if TYPE_CHECKING:
    from modelexport.contract.errors import ModelExportError
    from modelexport_bot.result import Result
    from modelexport_bot.settings import Settings
    from modelexport_bot.sweep import Row

app = typer.Typer(
    name="modelexport-bot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Open [bold]one pull request[/] with a verified, Optimum-ready [bold]onnx/[/] folder on a model of the Hub.",
    epilog=(
        "Try it without writing anything: [cyan]modelexport-bot run org/model --dry-run[/]. What it does in which "
        "case is in docs/pull-requests.md."
    ),
)


Command = TypeVar("Command", bound=Callable[..., None])


def _command(command: Command) -> Command:
    """``app.command()``, with the docstring's paragraphs in one line each: typer 0.29 would break them where we do."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return app.command(help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))(command)


class Dtype(StrEnum):
    """Values of ``--dtype``."""

    FLOAT32 = "float32"
    SOURCE = "source"


def _env(name: str) -> list[str]:
    """A flag's variables: the bot's own, and the input of the GitHub action of the same name."""
    return [f"MODELEXPORT_{name}", f"INPUT_{name}"]


_FLAG = ""  # for metavar: typer 0.29 would show a flag as one that takes a <bool>

Repo = Annotated[
    str, typer.Argument(metavar="REPO", help="The model on the Hub: [cyan]org/name[/].", envvar="INPUT_REPO")
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit to export. [dim]Default: main.[/]", envvar=_env("REVISION"))
]
Task = Annotated[
    str | None,
    typer.Option(
        help="What the model is for, such as text-classification. [dim]Default: found.[/]", envvar=_env("TASK")
    ),
]
Opset = Annotated[int | None, typer.Option(help="ONNX opset. [dim]Default: Optimum's choice.[/]", envvar=_env("OPSET"))]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(help="Of the weights: float32, or as in the source. [dim]Default: float32.[/]", envvar=_env("DTYPE")),
]
Atol = Annotated[
    float | None,
    typer.Option(help="Largest difference from PyTorch. [dim]Default: 1e-4 in float32.[/]", envvar=_env("ATOL")),
]
Output = Annotated[Path | None, typer.Option(help="Keep the exported folder here.", envvar=_env("OUTPUT"))]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Do everything but write to the Hub; print what would be posted.",
        envvar=_env("DRY_RUN"),
        metavar=_FLAG,
    ),
]
Reopen = Annotated[
    bool,
    typer.Option(
        "--reopen",
        help="Come back on a closed pull request if the weights have changed.",
        envvar=_env("REOPEN"),
        metavar=_FLAG,
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Replace an onnx/ folder that is not ours.", envvar=_env("REPLACE"), metavar=_FLAG),
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds an export may take. [dim]Default: 3600.[/]", envvar=_env("TIMEOUT"))
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code by which this repo defines its model. Read it first: it runs without network, but "
        "can read and change what your user can.",
        metavar=_FLAG,
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option(help="Memory an export may hold, such as 8GB.", envvar=_env("MAX_MEMORY"))
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Hub token. [dim]Default: HF_TOKEN, then hf auth login.[/]",
        envvar=["HF_TOKEN", "INPUT_TOKEN"],
        show_envvar=False,
    ),
]
Endpoint = Annotated[
    str | None, typer.Option(help="Another Hub. [dim]Default: HF_ENDPOINT.[/]", envvar="HF_ENDPOINT", show_envvar=False)
]
Config = Annotated[Path | None, typer.Option(help="The operator's settings, TOML.", envvar=_env("CONFIG"))]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", metavar=_FLAG)]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show every line of the tools below, and tracebacks.", metavar=_FLAG)
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", metavar=_FLAG)] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@_command
def run(
    repo: Repo,
    revision: Revision = None,
    task: Task = None,
    opset: Opset = None,
    dtype: DtypeOption = None,
    atol: Atol = None,
    output: Output = None,
    dry_run: DryRun = False,
    reopen: Reopen = False,
    replace: Replace = False,
    timeout: Timeout = None,
    max_memory: MaxMemory = None,
    trust_remote_code: TrustRemoteCode = False,
    token: TokenOption = None,
    endpoint: Endpoint = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Export a model and bring its pull request up to date: created, updated, unchanged, ...

    Run it as often as you like: a repo has one pull request of ours at most, and a run without news writes nothing.
    """
    from modelexport_bot.job import Job
    from modelexport_bot.progress import Terminal
    from modelexport_bot.settings import Overrides

    def work() -> "Result":
        settings = _settings(
            token,
            endpoint,
            config,
            repo=repo,
            revision=revision,
            overrides=Overrides(task, opset, dtype.value if dtype else None, atol),
            output=output,
            dry_run=dry_run or None,
            reopen=reopen,
            replace=replace,
            timeout=timeout,
            max_memory=_size(max_memory),
            trust_remote_code=(repo,) if trust_remote_code else None,
        )
        with Terminal(verbose=verbose) as progress:
            return Job(settings, progress).run(repo)

    result = _reported(work, as_json=as_json, verbose=verbose)
    print(result.to_json() if as_json else _told(result))


@_command
def status(
    repo: Repo,
    revision: Revision = None,
    task: Task = None,
    opset: Opset = None,
    dtype: DtypeOption = None,
    reopen: Reopen = False,
    replace: Replace = False,
    trust_remote_code: TrustRemoteCode = False,
    token: TokenOption = None,
    endpoint: Endpoint = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do about a repo, and why. Exports nothing, writes nothing."""
    from modelexport_bot.job import Job
    from modelexport_bot.progress import Silent
    from modelexport_bot.settings import Overrides

    def work() -> "Result":
        settings = _settings(
            token,
            endpoint,
            config,
            repo=repo,
            revision=revision,
            overrides=Overrides(task, opset, dtype.value if dtype else None),
            reopen=reopen,
            replace=replace,
            trust_remote_code=(repo,) if trust_remote_code else None,
        )
        return Job(settings, Silent()).status(repo)

    result = _reported(work, as_json=as_json, verbose=verbose)
    print(result.to_json() if as_json else f"would be {_told(result)}")


@_command
def sweep(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="A user or an organisation.")],
    limit: Annotated[int | None, typer.Option(help="So many models at most, the latest first.", min=1)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; export nothing.", metavar=_FLAG)
    ] = False,
    timeout: Timeout = None,
    max_memory: MaxMemory = None,
    token: TokenOption = None,
    endpoint: Endpoint = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run on all of an owner's models and print a table of outcomes."""
    from modelexport_bot.progress import Terminal
    from modelexport_bot.sweep import Row
    from modelexport_bot.sweep import sweep as through

    rows: list[Row] = []
    planned = dry_run

    def work() -> None:
        nonlocal planned
        settings = _settings(
            token,
            endpoint,
            config,
            repo=owner,
            dry_run=dry_run or None,
            timeout=timeout,
            max_memory=_size(max_memory),
        )
        planned = settings.dry_run
        with Terminal(verbose=verbose) as progress:
            rows.extend(row for row in through(owner, settings, progress, limit=limit))

    try:
        _reported(work, as_json=False, verbose=verbose)
    finally:  # what was done before a failure is worth knowing
        if rows or as_json:
            _print_rows(rows, planned=planned, as_json=as_json)
    if not rows and not as_json:
        print(f"The Hub shows no models of {owner}. Check the name, and that the token's account may see them.")


@_command
def reply(
    repo: Repo,
    num: Annotated[int, typer.Argument(metavar="NUM", help="Number of the pull request.", min=1)],
    timeout: Timeout = None,
    max_memory: MaxMemory = None,
    token: TokenOption = None,
    endpoint: Endpoint = None,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Carry out and answer the commands in a pull request's thread: rebuild, task=..., close, ignore, help."""
    from modelexport_bot import commands
    from modelexport_bot.progress import Terminal

    def work() -> list[commands.Verb | None]:
        settings = _settings(token, endpoint, config, repo=repo, timeout=timeout, max_memory=_size(max_memory))
        with Terminal(verbose=verbose) as progress:
            return commands.reply(repo, num, settings, progress)

    answered = _reported(work, as_json=False, verbose=verbose)
    print(f"answered: {', '.join(verb.value if verb else 'unknown command' for verb in answered) or 'nothing'}")


@_command
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="MODELEXPORT_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 picks one.", envvar="MODELEXPORT_PORT", min=0, max=65535)
    ] = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Holds the recorded jobs and what they work on. [dim]Default: in the user's data.[/]",
            envvar="MODELEXPORT_DATA_DIR",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL for the recorded jobs. [dim]Default: SQLite.[/]", envvar="MODELEXPORT_DATABASE_URL"
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(help="So many exports at a time, each of another repo.", envvar="MODELEXPORT_JOBS", min=1)
    ] = 1,
    keep_days: Annotated[
        int,
        typer.Option(help="Days that a job stays on record after its end.", envvar="MODELEXPORT_KEEP_DAYS", min=1),
    ] = 30,
    dry_run: DryRun = False,
    timeout: Timeout = None,
    max_memory: MaxMemory = None,
    token: TokenOption = None,
    endpoint: Endpoint = None,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Listen for the Hub's webhooks and run on every push to a model's main.

    Deliveries must carry the secret in MODELEXPORT_WEBHOOK_SECRET. How to set it up is in docs/server.md.
    """

    def work() -> None:
        from modelexport.contract.errors import UsageError
        from modelexport_bot.server import config as server_config

        try:
            from modelexport_bot.server.run import serve as until_stopped
        except ModuleNotFoundError as error:
            raise UsageError(
                f"serve needs {error.name}, which is not installed: pip install 'modelexport-bot[server]'."
            ) from error

        secret = server_config.secret_from(os.environ)
        given = server_config.Config(
            secret,
            host,
            port,
            data_dir or server_config.default_data_dir(),
            database_url or None,
            concurrency,
            timedelta(days=keep_days),
        )
        settings = _settings(
            token,
            endpoint,
            config,
            signed_in=True,
            dry_run=dry_run or None,
            timeout=timeout,
            max_memory=_size(max_memory),
        )
        until_stopped(given, settings, verbose=verbose)

    _reported(work, as_json=False, verbose=verbose)


@_command
def setup(verbose: Verbose = False) -> None:
    """Build the exporter's environment ahead of time; prints its interpreter as the last line.

    It holds PyTorch for CPU, transformers and Optimum at the versions of the lock file, in the user's cache. A second
    checkout finds it again. The console script modelexport lies beside the interpreter. Copies of the exporter's
    own code that nobody has used for 30 days are removed.
    """
    from modelexport_bot import environment
    from modelexport_bot.progress import Terminal

    def work() -> Path:
        given = _settings(None, None, None)
        with Terminal(verbose=verbose) as progress:
            python = environment.prepare(
                given.cache, ready=given.exporter_python, torch_index=given.torch_index, progress=progress
            )
            environment.prune(given.cache, python)
            return python

    print(_reported(work, as_json=False, verbose=verbose))


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(
    token: str | None,
    endpoint: str | None,
    config: Path | None,
    *,
    repo: str | None = None,
    signed_in: bool = False,
    **given: Any,
) -> "Settings":
    """The settings, with what the environment says about this machine. ``signed_in``: on the Hub, for no repo alone."""
    from modelexport_bot import settings
    from modelexport_bot.credentials import Token

    environment = os.environ
    cache, python = environment.get("MODELEXPORT_CACHE"), environment.get("MODELEXPORT_EXPORTER_PYTHON")
    return settings.load(
        config,
        endpoint=endpoint or None,
        token=Token(token) if token else _login(repo, signed_in=signed_in),
        keyless=None if token else _keyless(repo),
        cache=Path(cache) if cache else None,
        exporter_python=Path(python) if python else None,
        torch_index=environment.get("MODELEXPORT_TORCH_INDEX") or None,
        **given,
    )


def _keyless(repo: str | None) -> str | None:
    """What to ask a short-lived token for: set by hand, or this repo in a workflow with ``id-token: write``."""
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true" and "ACTIONS_ID_TOKEN_REQUEST_URL" in os.environ
    return os.environ.get("HF_OIDC_RESOURCE") or (repo if in_workflow else None)


def _login(repo: str | None, *, signed_in: bool) -> Any:
    if (repo is None and not signed_in) or _keyless(repo) is not None:
        return None
    from modelexport_bot.hub import login_token

    return login_token()


def _size(text: str | None) -> int | None:
    from modelexport.contract import parse_size

    return parse_size(text) if text else None


# --- what is printed -------------------------------------------------------------------------------------------------


def _reported(work: Any, *, as_json: bool, verbose: bool) -> Any:
    """Do the work; on a typed error say what it says, tell the workflow if we are in one, and exit with its status."""
    from modelexport.contract.errors import CancelledError, ModelExportError
    from modelexport_bot.github.actions import Workflow
    from modelexport_bot.result import Result

    workflow = Workflow(os.environ, annotate=not as_json)
    try:
        result = work()
    except ModelExportError as error:
        _fail(error, workflow, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        cancelled = CancelledError("Stopped. What was begun on the Hub is a draft at most; running again completes it.")
        _fail(cancelled, workflow, as_json=as_json, verbose=verbose)
    if isinstance(result, Result):
        workflow.finished(result)
    return result


def _fail(error: "ModelExportError", workflow: Any, *, as_json: bool, verbose: bool) -> None:
    import json

    from modelexport_bot.credentials import redact

    message = redact(error.message)
    if verbose:
        print(redact(traceback.format_exc()), file=sys.stderr)
    print(f"Error ({error.code}): {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"outcome": "failed", "code": error.code.value, "message": message}))
    workflow.failed(error)
    raise typer.Exit(error.exit_status)


def _told(result: "Result") -> str:
    lines = [f"{result.outcome.value}: {result.reason}"]
    if result.url:
        lines.append(result.url)
    if result.title:
        lines += ["", f"Title: {result.title}"]
    if result.body and result.outcome.value == "dry_run":
        lines += ["", result.body]
    if result.files:
        width = max(len(file.path) for file in result.files)
        lines += ["", *(f"{file.path:<{width}}  {file.size:>13,}  {file.sha256[:12]}" for file in result.files)]
    return "\n".join(lines)


def _print_rows(rows: "list[Row]", *, planned: bool, as_json: bool) -> None:
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if as_json:
        print(json.dumps([row.to_dict() for row in rows]))
        return
    table = Table(
        Column("repo", overflow="fold"),  # a name that is cut is none
        Column("would be" if planned else "outcome", no_wrap=True),
        Column("pull\nrequest", no_wrap=True),
        Column("why", overflow="fold"),
    )
    for row in rows:
        num = f"#{row.result.pull_request}" if row.result and row.result.pull_request else ""
        table.add_row(escape(row.repo), row.outcome, num, escape(row.reason))
    Console().print(table)


def main() -> None:
    """The console script. Exit status: 0 for every outcome, that of the error otherwise."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # both end in KeyboardInterrupt, both clean up
    app()
