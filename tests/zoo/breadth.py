"""``make breadth``: every animal of the zoo through ``optimum-cli export onnx`` and through modelexport, side by side.

Both exports are judged alike: by ``modelexport check --against`` for Optimum's, by the gate of the export for ours,
which is the same code. A case passes when the graphs load in stock Optimum, offline, agree with PyTorch on all
inputs, and generate the same tokens. Of ours, every module call is compared, too (:mod:`modelexport.module_parity`).
:func:`tests.zoo.outcome.shortcomings` says what must not be; where it finds anything, the exit status is 1.

    python -m tests.zoo.breadth                     all cases that have no result yet, then the table
    python -m tests.zoo.breadth gpt2 t5             these model types only
    python -m tests.zoo.breadth --again gpt2        forget their results first
    python -m tests.zoo.breadth --again-ours        forget ours, keep those of optimum-cli

Every case runs in processes forked from this one, which has imported everything: a case costs seconds. Results lie in
``build/breadth``, one file a case, so that an interrupted run goes on where it was, and several may run at once.
"""

import argparse
import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from optimum.exporters.onnx import main_export

from modelexport import checkpoint
from modelexport.check_folder import check_folder
from modelexport.contract.errors import ModelExportError
from modelexport.contract.manifest import Options
from modelexport.export import Origin, export
from modelexport.module_parity.check import check_modules
from modelexport.module_parity.check import error as module_error
from tests.zoo.animal import Animal
from tests.zoo.build import build
from tests.zoo.models import ANIMALS
from tests.zoo.outcome import Outcome, Row, shortcomings
from tests.zoo.report import markdown

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "breadth"
TABLE = ROOT / "docs" / "breadth.md"
_SECONDS = 240  # for one export; more means that it hangs


def cases(only: list[str]) -> Iterator[tuple[Animal, str]]:
    """All (animal, task) pairs, or those of the model types named."""
    return ((animal, task) for animal in ANIMALS if not only or animal.model_type in only for task in animal.tasks)


def run(animal: Animal, task: str, optimum: Outcome | None = None) -> Row:
    """Build, export twice, judge. Nothing that happens in there ends this process.

    Args:
        optimum: the outcome of Optimum's export, where it is known.
    """
    scratch = FOLDER / "work" / f"{animal.stem}--{task}"
    shutil.rmtree(scratch, ignore_errors=True)
    model = scratch / "model"
    try:
        built = _forked(_build, animal, task, model)
        if built is not None:
            outcome = Outcome(passed=False, problem=f"the zoo cannot build it: {built.problem}")
            return Row(animal.model_type, task, outcome, outcome, animal.variant)
        nothing = Outcome(passed=False, problem="no outcome")
        optimum = optimum or _forked(_optimum, model, task, scratch / "optimum") or nothing
        ours = _forked(_ours, model, task, scratch / "ours") or nothing
        return Row(animal.model_type, task, optimum, ours, animal.variant)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(animal: Animal, task: str, folder: Path) -> None:
    build(animal, task, folder)


def _optimum(model: Path, task: str, out: Path) -> Outcome:
    main_export(model_name_or_path=str(model), output=out, task=task, local_files_only=True)
    try:
        found = check_folder(out, task=task, against=str(model), atol=None)
    except ModelExportError as error:
        return Outcome(passed=False, exported=True, problem=f"{error.code.value}: {_line(error.message)}")
    results = found.compared.parity if found.compared else ()
    return Outcome(passed=True, exported=True, max_abs=_worst(results))


def _ours(model: Path, task: str, out: Path) -> Outcome:
    try:
        manifest = export(model, out, Options(task=task), origin=Origin(), overwrite=False, emit=lambda _: None)
    except ModelExportError as error:
        return Outcome(passed=False, problem=f"{error.code.value}: {_line(error.message)}")
    modules = check_modules(out, checkpoint.read(model), task, None)
    problem = next((error.message for error in map(module_error, modules) if error is not None), "")
    owners = [call for graph in modules for call in graph.calls if call.own_nodes and call.called]
    return Outcome(
        passed=True,
        exported=True,
        max_abs=_worst(manifest.parity),
        calls=len(owners),
        compared=sum(call.compared > 0 for call in owners),
        least_compared=min(graph.share for graph in modules),
        module_rel=max(call.max_rel for graph in modules for call in graph.calls),
        module_problem=_line(problem) if problem else "",
        nodes=sum(graph.nodes for graph in manifest.graphs),
        traced=sum(graph.traced for graph in manifest.graphs),
        inferred=sum(graph.inferred for graph in manifest.graphs),
        notes=manifest.notes,
    )


def _worst(results: Any) -> float:
    return max((result.max_abs for result in results if result.output != "tokens"), default=0.0)


def _line(message: str) -> str:
    """The first line of ``message``, of a traceback also the last, which names the error; no path of this machine."""
    message = message.replace(f"{FOLDER}/", "")
    lines = [line for line in message.strip().splitlines() if line.strip()]
    return (lines[0] if len(lines) < 3 else f"{lines[0]} … {lines[-1]}")[:400]


def _forked(function: Callable[..., Outcome | None], *args: Any) -> Outcome | None:
    """Call ``function`` in a fork of this process, silently; None is what :func:`_build` returns when all is well."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, function, args))
    start = time.monotonic()
    child.start()
    sender.close()
    try:
        if not receiver.poll(_SECONDS):
            return Outcome(passed=False, problem=f"not done after {_SECONDS} s")
        outcome: Outcome | None = receiver.recv()
    except EOFError:
        child.join()
        return Outcome(passed=False, problem=f"the process ended with status {child.exitcode}")
    finally:
        if child.is_alive():
            child.join(5)
        if child.is_alive():
            child.kill()
            child.join()
    return outcome and Outcome(**{**asdict(outcome), "seconds": round(time.monotonic() - start, 1)})


def _child(sender: Any, function: Callable[..., Outcome | None], args: tuple[Any, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        sender.send(function(*args))
    except BaseException as error:  # noqa: BLE001  any failure is a result here
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        sender.send(Outcome(passed=False, problem=_line(f"{type(error).__name__}: {error} ({where})")))
    finally:
        sender.close()
        os._exit(0)


def load(path: Path) -> Row:
    """A saved row."""
    raw = json.loads(path.read_text())
    return Row(
        raw["model_type"], raw["task"], Outcome(**raw["optimum"]), Outcome(**raw["ours"]), raw.get("variant", "")
    )


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process may work on the case: no other holds its lock, which the kernel drops with the process."""
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def main() -> int:
    """Run, print, write the table; the exit status says whether what Optimum can do we can, too."""
    parser = argparse.ArgumentParser(description="Every architecture, side by side with optimum-cli.")
    parser.add_argument("model_types", nargs="*", help="only these")
    parser.add_argument("--again", action="store_true", help="forget the results of these cases first")
    parser.add_argument("--again-ours", action="store_true", help="forget ours, keep those of optimum-cli")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = FOLDER / "results"
    results.mkdir(parents=True, exist_ok=True)
    for animal, task in cases(chosen.model_types):
        path = results / f"{animal.stem}--{task}.json"
        if path.exists() and not (chosen.again or chosen.again_ours):
            continue
        with _claimed(path) as mine:
            if not mine:
                continue
            known = load(path).optimum if chosen.again_ours and path.exists() else None
            row = run(animal, task, known)
            path.write_text(json.dumps(asdict(row), indent=1))
            print(_short(row), flush=True)
    rows = [load(path) for path in (results / f"{a.stem}--{t}.json" for a, t in cases([])) if path.exists()]
    whole = len(rows) == sum(1 for _ in cases([]))
    if whole:
        TABLE.write_text(markdown(rows), encoding="utf-8")
    problems = list(shortcomings(rows))
    count = Counter((row.optimum.passed, row.ours.passed) for row in rows)
    print(f"{len(rows)} cases of {len({row.model_type for row in rows})} model types")
    print(
        f"optimum-cli passes {count[True, True] + count[True, False]}, modelexport "
        f"{count[True, True] + count[False, True]}"
    )
    for problem in problems:
        print(problem)
    return 1 if problems or not whole else 0


def _short(row: Row) -> str:
    sides = (f"{'pass' if side.passed else 'FAIL'} {side.seconds:4.1f} s" for side in (row.optimum, row.ours))
    ours = row.ours
    share = f"{100 * ours.traced / ours.nodes:5.1f} % traced {100 * ours.least_compared:5.1f} %" if ours.nodes else ""
    problem = ours.problem or ours.module_problem
    reason = f"  {problem}" if problem else f"  (optimum: {row.optimum.problem})" if row.optimum.problem else ""
    return f"{row.name:30} {row.task:40} optimum {' | ours '.join(sides)} {share}{reason}"


if __name__ == "__main__":
    sys.exit(main())
