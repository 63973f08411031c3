"""The command line: ``export``, ``check``, ``inspect``, ``extract``.

Only arguments and exit statuses are handled here. The engine is imported inside the commands, so that ``--help``
answers at once and the base install (without torch) can say what is missing.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from modelexport import __version__
from modelexport.contract.errors import (
    ERRORS,
    CancelledError,
    EngineMissingError,
    ExporterCrashedError,
    ModelExportError,
    UsageError,
)
from modelexport.contract.events import Failed

if TYPE_CHECKING:
    from modelexport.check_folder import Findings

app = typer.Typer(
    name="modelexport",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn a PyTorch model into a verified, [bold]Optimum-ready[/] ONNX folder that keeps the module tree.",
    epilog="Example: [cyan]modelexport export bert-base-uncased out/ && modelexport inspect out/[/]",
)

_TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code by which the model's repo defines it. Read that code first: it runs with your rights "
        "and can read and change your files, though without network (Linux only; refused where that cannot be cut).",
    ),
]
_Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks and the libraries' own warnings.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A model folder, or a repo on the Hub ([cyan]org/name[/]).")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to make. It is complete at the end, or absent.")
    ],
    task: Annotated[
        str | None, typer.Option(help="What the model is for, e.g. feature-extraction. Default: found from the repo.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a repo on the Hub.")] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset. Default: what Optimum recommends.", min=14, max=20)
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, or source to keep the checkpoint's own.")] = "float32",
    atol: Annotated[
        float | None, typer.Option(help="Largest absolute difference from PyTorch. Default: 1e-4 for float32.", min=0)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print progress as JSON lines on stdout.")] = False,
    max_memory: Annotated[
        str | None, typer.Option(help="Refuse a model that needs more, e.g. 8GB. Default: what this machine has.")
    ] = None,
    source_repo: Annotated[str | None, typer.Option(help="Repo that SRC is a snapshot of, for the manifest.")] = None,
    source_sha: Annotated[
        str | None, typer.Option(help="Commit sha that SRC is a snapshot of, for the manifest.")
    ] = None,
    trust_remote_code: _TrustRemoteCode = False,
    verbose: _Verbose = False,
) -> None:
    """Export a model: trace, tag every node, write, copy tokenizer and config, compare with PyTorch, load with Optimum.

    OUT appears only when every check passed.
    """
    from modelexport import progress

    if dtype not in ("float32", "source"):
        raise UsageError(f"--dtype is float32 or source, not {dtype!r}.")
    with _events_alone_on_stdout(events), progress.display(events=events) as display:
        try:
            engine = _engine(verbose)
            folder, repo, sha = engine.source.locate(source, revision)
            options = engine.Options(task=task, opset=opset, dtype=dtype, atol=atol)
            origin = engine.Origin(repo=source_repo or repo, sha=source_sha or sha)
            memory = engine.parse_size(max_memory) if max_memory else None
            run = partial(engine.export, folder, out, options, origin=origin, overwrite=overwrite, max_memory=memory)
            if trust_remote_code:
                _export_confined(run, display.emit)
                manifest = engine.Manifest.from_json((out / engine.MANIFEST_NAME).read_text(encoding="utf-8"))
            else:
                manifest = run(emit=display.emit)
        except ModelExportError as error:
            display.failed(error)
            _exit(error, verbose)
        except Exception as error:  # noqa: BLE001  a bug, in us or below us; it is reported as such
            crash = ExporterCrashedError(
                f"The export failed in a way it does not know: {type(error).__name__}: {error}. {out} was not written. "
                "Run it again with --verbose, and please report what it prints."
            )
            display.failed(crash)
            _exit(crash, verbose, error)
        except KeyboardInterrupt as error:
            cancelled = CancelledError(f"Stopped. {out} was not written.")
            display.failed(cancelled)
            _exit(cancelled, verbose and bool(error))
        display.finished(str(out), engine.MANIFEST_NAME)
        if not events:
            engine.summary(manifest, out)


def _export_confined(run: Callable[..., object], emit: Callable[[Any], None]) -> None:
    """Export where code of a repo may run. The folder is all that comes of it, as only text can pass."""
    from modelexport import confinement

    def there(emit_there: Callable[[Any], None]) -> str:
        run(emit=emit_there, trust_remote_code=True)
        return ""

    confinement.run(there, emit)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with ONNX files, ours or not.")],
    task: Annotated[str | None, typer.Option(help="Default: from the manifest, else found from config.json.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="SRC", help="Compare the numbers with this PyTorch model, folder or repo.")
    ] = None,
    modules: Annotated[
        bool, typer.Option("--modules", help="With --against: compare every module, and find the first that differs.")
    ] = False,
    trust_remote_code: _TrustRemoteCode = False,
    atol: Annotated[float | None, typer.Option(help="Largest absolute difference. Default: by dtype.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    verbose: _Verbose = False,
) -> None:
    """Would Optimum load this folder, and are the numbers right?

    Without --against the files are checked by themselves: complete, as listed in the manifest, tagged, loadable and
    runnable with stock Optimum, offline.
    """
    try:
        if modules and against is None:
            raise UsageError("--modules compares with PyTorch: name the model with --against.")
        if trust_remote_code and against is None:
            raise UsageError("--trust-remote-code is about the PyTorch model: name it with --against.")
        engine = _engine(verbose)
        from modelexport import check_folder, confinement

        judge = partial(check_folder.check_folder, folder, task=task, atol=atol, modules=modules)
        if trust_remote_code:
            local = str(engine.source.locate(against, None)[0])  # the last that needs a network
            judge = partial(judge, against=local, trust_remote_code=True)
            told = confinement.run(lambda _: _failure_as_text(_judged(judge, as_json)), lambda _: None)
            problem = _failure_from_text(told)
        else:
            problem = _judged(partial(judge, against=against), as_json)
    except ModelExportError as error:
        if as_json:
            print(json.dumps({"passed": False, "code": error.code.value, "message": error.message}))
        else:
            _print_error(error)
        _exit(error, verbose)
    if problem is not None:
        if not as_json:
            _print_error(problem)
        _exit(problem, verbose)


def _judged(judge: Callable[[], "Findings"], as_json: bool) -> ModelExportError | None:
    """Print what was found; returns what is wrong with it."""
    from modelexport import check_folder

    findings = judge()
    problem = findings.problem
    if as_json:
        verdict = (
            {"passed": True}
            if problem is None
            else {"passed": False, "code": problem.code.value, "message": problem.message}
        )
        print(json.dumps({**verdict, **findings.to_dict()}))
    else:
        check_folder.show(findings)
    return problem


def _failure_as_text(error: ModelExportError | None) -> str:
    """An error on its way out of a confined process, where only text can pass."""
    return "" if error is None else Failed(code=error.code, message=error.message).model_dump_json()


def _failure_from_text(text: str) -> ModelExportError | None:
    if not text:
        return None
    failed = Failed.model_validate_json(text)
    return ERRORS[failed.code](failed.message)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="An ONNX file, or a folder of them.")],
    depth: Annotated[int | None, typer.Option(help="Levels of modules to show.", min=0)] = None,
    module: Annotated[
        str, typer.Option(metavar="PATH", help="Only this module and what is in it, e.g. encoder.layer.0.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained web page with the tree to look at.")
    ] = None,
    verbose: _Verbose = False,
) -> None:
    """Show the module tree that is in the tags of an ONNX file: nodes, parameters and bytes of every module."""
    try:
        _require_engine()
        from modelexport import module_tree, report
        from modelexport.folder import onnx_files

        trees = module_tree.holding([module_tree.read(file) for file in onnx_files(path)], module)
        if html is not None:
            from modelexport import report_html

            report_html.write(trees, html, module)
        elif as_json:
            print(json.dumps([tree.to_dict(module, depth) for tree in trees]))
        else:
            for tree in trees:
                report.show(tree, module, depth)
    except ModelExportError as error:
        _print_error(error)
        _exit(error, verbose)


@app.command()
def extract(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A tagged ONNX file.")],
    module: Annotated[str, typer.Argument(metavar="MODULE", help="Dotted path, e.g. encoder.layer.0.attention.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The ONNX file to write. It must not exist.")],
    call: Annotated[
        int | None, typer.Option(help="Which call, from 0, of a module that is called more than once.", min=0)
    ] = None,
    verbose: _Verbose = False,
) -> None:
    """Cut one module out of a graph as a valid, runnable ONNX file of its own."""
    try:
        _require_engine()
        from modelexport import extract as extraction
        from modelexport.folder import onnx_files

        files = onnx_files(model)
        if len(files) > 1:
            raise UsageError(f"{model} holds {', '.join(file.name for file in files)}. Name one of them.")
        extracted = extraction.extract(files[0], module, out, call=call)
    except ModelExportError as error:
        _print_error(error)
        _exit(error, verbose)
    print(f"{out}: {extracted.nodes} nodes, from {', '.join(extracted.inputs)} to {', '.join(extracted.outputs)}")


@app.command("serve-jobs")
def serve_jobs() -> None:
    """Take export jobs as JSON lines on stdin, each in a fresh fork of one process that has imported the engine.

    A job is [cyan]{"arguments": ["SRC", "OUT", "--task", "fill-mask"]}[/]; stdout carries its events, as [cyan]export
    --events[/] does. Ends when stdin ends.
    """
    from modelexport import jobs, progress

    with _events_alone_on_stdout(events=True):
        try:
            _engine(verbose=False)
        except ModelExportError as error:
            progress.display(events=True).failed(error)
            _exit(error, verbose=False)
        jobs.serve(_run_job, sys.stdin, sys.stdout)


def _run_job(arguments: list[str]) -> None:
    """``modelexport export ARGUMENTS --events``, in a forked child of :func:`serve_jobs`; ends with SystemExit."""
    from modelexport import progress

    try:
        app(["export", *arguments, "--events"], standalone_mode=False)
    except ModelExportError as error:  # raised before the export had a display of its own
        progress.display(events=True).failed(error)
        sys.exit(error.exit_status)
    except Exception as error:
        if not isinstance(error, typer.BadParameter.__bases__[0]):  # click's UsageError: an unknown option, say
            raise
        wrong = UsageError(f"The job's arguments are wrong: {error}")
        progress.display(events=True).failed(wrong)
        sys.exit(wrong.exit_status)
    sys.exit(0)


def main() -> None:
    """The console script. Exit status: 0, or that of the error (:mod:`modelexport.contract.errors`)."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # both end in KeyboardInterrupt, both clean up
    try:
        app(standalone_mode=True)
    except SystemExit as ending:
        status = _end(ending)
    except ModelExportError as error:
        _print_error(error)
        status = error.exit_status
    except KeyboardInterrupt:
        status = CancelledError.exit_status
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # all is done, and Python would take a quarter of a second to take torch apart


def _end(ending: SystemExit) -> int:
    """The exit status that Python would make of it."""
    if ending.code is None or isinstance(ending.code, int):
        return ending.code or 0
    print(ending.code, file=sys.stderr)
    return 1


def _engine(verbose: bool) -> Any:
    """The heavy half, imported on demand and told to be quiet."""
    _require_engine()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would warn about our forks
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # since 1.31 ONNX Runtime's Linux wheels report to Microsoft
    if not verbose:
        import logging
        import warnings

        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("ORT_LOGGING_LEVEL", "3")
    # Millions of objects are made that stay: without the collector the imports take a quarter less, and frozen they are
    # neither scanned again nor copied into the processes that are forked from this one.
    gc.disable()
    from modelexport import engine

    gc.freeze()
    gc.enable()
    return engine


def _require_engine() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "onnx_ir", "optimum") if find_spec(name) is None]
    if missing:
        raise EngineMissingError(
            f"This command needs the engine; {', '.join(missing)} cannot be found. "
            'Install it with: pip install "modelexport[engine]"'
        )


@contextmanager
def _events_alone_on_stdout(events: bool) -> Iterator[None]:
    """Send everything that libraries print to stderr, so that stdout carries events and nothing else.

    In a job of the warm exporter this has been done before the fork, and is not done again.
    """
    if events and sys.stdout.fileno() == 1:
        stdout = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(stdout, "w", encoding="utf-8", buffering=1)
    yield


def _print_error(error: ModelExportError) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[red]{error.code.value}[/]: {escape(error.message)}", highlight=False, soft_wrap=True)


def _exit(error: ModelExportError, verbose: bool, cause: BaseException | None = None) -> NoReturn:
    if verbose:
        import traceback

        traceback.print_exception(cause or error)
    sys.exit(error.exit_status)
