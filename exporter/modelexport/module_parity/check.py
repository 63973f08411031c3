"""``modelexport check --modules``: per-module parity of every graph in a folder, and how it is shown.

The PyTorch side runs in a process of its own and leaves what its modules were given and returned on disk; the ONNX side
runs in another. :mod:`modelexport.module_parity` says what is compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from modelexport import isolation, module_parity, module_tree, original, temporary
from modelexport.checkpoint import Checkpoint
from modelexport.contract.errors import NoTagsError, ParityFailedError
from modelexport.htp.branches import Branch, branches
from modelexport.htp.project import InferTags
from modelexport.htp.tags import Tag, all_nodes
from modelexport.isolation import Emit
from modelexport.module_parity import CallResult, ModuleParity
from modelexport.module_parity.reference import Recording, record
from modelexport.parity import numbers, references
from modelexport.parity.cases import Case
from modelexport.plan import DECODER, DECODER_WITH_PAST

_BRANCHES = {DECODER: "else_branch", DECODER_WITH_PAST: "then_branch"}


@dataclass(frozen=True)
class Recorded:
    """One run of PyTorch, and the graph of the folder that must do the same.

    Attributes:
        file: name of the ONNX file.
        branch: name of the branch in it, if it has any.
    """

    file: str
    branch: str
    case: str
    recording: Recording


def check_modules(folder: Path, read: Checkpoint, task: str, atol: float | None) -> list[ModuleParity]:
    """Compare every module call of every graph in ``folder`` with the model ``read``.

    Args:
        folder: tagged ONNX files.
        read: the checkpoint they were exported from.
        task: for which they were exported.
        atol: largest difference allowed; None: by dtype.

    Raises:
        NoTagsError: the files do not say which module calls their nodes belong to.
        ModelExportError: the model cannot be loaded.
    """
    with temporary.folder() as scratch:
        runs, dtype = isolation.run(_record, read, task, folder, scratch, emit=_silent)
        tolerance = atol if atol is not None else numbers.TOLERANCE[dtype]
        return isolation.run(_compare, folder, runs, tolerance, emit=_silent)


def error(result: ModuleParity) -> ParityFailedError | None:
    """What a user is told about a graph of which a module differs; None where none does."""
    first = result.first_problem
    if first is None:
        return None
    return ParityFailedError(
        f"The first module of {result.graph} that differs from PyTorch is {first.frame.path or 'the model itself'}"
        f"{f' ({first.type})' if first.type else ''}: it {first.problem}. Allowed is {result.tolerance:.3g}, on the "
        f"case {result.case!r}. What ran before it agrees."
    )


def show(result: ModuleParity, console: Console) -> None:
    """Print the module tree with the largest difference of every module, then what it says."""
    console.print(rich_tree(result))
    mark = "[red]✗[/]" if result.first_problem else "[green]✓[/]"
    wrong = sum(not call.passed for call in result.calls)
    console.print(
        f"{mark} {result.graph}: {len(result.calls) - wrong} of {len(result.calls)} module calls agree with PyTorch; "
        f"compared are {result.compared}, {result.share:.1%} of those with nodes of their own",
        soft_wrap=True,
    )


def rich_tree(result: ModuleParity) -> Tree:
    """The tree that :func:`show` prints; several calls of a module are one branch."""
    by_path: dict[str, list[CallResult]] = {}
    for call in sorted(result.calls, key=lambda call: call.frame.index):
        by_path.setdefault(call.frame.path, []).append(call)
    first = result.first_problem
    trunk = Tree(Text.assemble((result.graph, "bold"), (f" {result.case}", "dim")))
    limbs: dict[str, Tree] = {}
    for path, calls in by_path.items():
        outer = path
        while outer and outer not in limbs:
            outer = outer.rpartition(".")[0]
        inside = path[len(outer) + 1 :] if outer else path
        limbs[path] = limbs.get(outer, trunk).add(_label(inside, calls, first))
    return trunk


def _label(name: str, calls: Sequence[CallResult], first: CallResult | None) -> Text:
    label = Text(name or calls[0].type)
    if name and calls[0].type:
        label.append(f" {calls[0].type}", style="cyan")
    if len(calls) > 1:
        label.append(f" ×{len(calls)}", style="dim")
    wrong = [call for call in calls if not call.passed]
    if wrong:
        label.append(f" {max(call.max_abs for call in calls):.1e}", style="red")
    elif any(call.compared for call in calls):
        label.append(f" {max(call.max_abs for call in calls):.1e}", style="green")
    else:
        label.append(" nothing to compare" if any(call.called for call in calls) else " not called", style="dim")
    if first is not None and first in calls:
        label.append(f" ← the first: {first.problem}", style="bold red")
    return label


def _record(read: Checkpoint, task: str, folder: Path, scratch: Path, _: Emit) -> tuple[list[Recorded], str]:
    model = original.load(read, task, folder, scratch)
    runs = []
    for plan, cases in references.cases(model.plans, model.interfaces, model.preprocessors):
        case = _most_demanding(cases)
        (directory := scratch / f"calls-{plan.name}").mkdir()
        stem = model.stems[plan.name]
        branch = _BRANCHES[plan.name] if stem != plan.name else ""
        runs.append(Recorded(f"{stem}.onnx", branch, case.name, record(plan, case, model.hierarchy, directory)))
    return runs, model.dtype


def _most_demanding(cases: Sequence[Case]) -> Case:
    """The last padded batch, or else the last case."""
    return next((case for case in reversed(cases) if "padded" in case.name), cases[-1])


def _compare(folder: Path, runs: Sequence[Recorded], atol: float, _: Emit) -> list[ModuleParity]:
    return [
        module_parity.compare(_graph(folder / run.file, run.branch), folder / run.file, run.case, run.recording, atol)
        for run in runs
    ]


def _graph(file: Path, name: str) -> Branch:
    model = module_tree.load(file)
    if not any(tag.stack for tag in _tags(model)):
        raise NoTagsError(
            f"The nodes of {file} say which module they came from, but not which call of it. Export again with "
            "modelexport >= 1.0.0."
        )
    InferTags()(model)  # what another tool put in since belongs to its neighbours
    return next(branch for branch in branches(model) if branch.name == name)


def _tags(model: ir.Model) -> Iterator[Tag]:
    return (tag for tag in map(Tag.read, all_nodes(model)) if tag is not None)


def _silent(_: object) -> None:
    """Checks are quick; nobody watches their stages."""
