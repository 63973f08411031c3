"""Per-module parity: for every module call, is what enters and leaves its nodes what PyTorch gave it and got from it?

This is how a user finds *where* a conversion goes wrong, and how we know that tags are true. The rules:

1. Which values cross the boundary of a call follows from the tags alone (:mod:`modelexport.htp.calls`), and which calls
   PyTorch made from hooks alone (:mod:`modelexport.module_parity.reference`). Neither knows the other's numbers.
2. What leaves: per shape and kind (floating or not), the tensors that left and those that the module returned are
   paired one to one: in order, or, where that does not agree, in any way in which all of the shorter list agree. One
   list may be longer: a module may return what nobody uses, and a KV cache or a shared computation leaves without being
   returned.
   A call is *compared* when there is a pair, and agrees when all pairs do.
3. What enters: a floating tensor must equal one of the call's arguments, unless something outside the call reads it,
   too. Only what a module computes itself, and others reuse, may come from outside without having been passed in.
4. The tags must describe a possible execution (:meth:`modelexport.htp.calls.CallTree.disorder`).
5. A module that PyTorch called, and that made something new of its arguments, must not have its nodes swallowed by its
   caller: where no node has its tag, none of the caller's own nodes may compute what it returned.
6. A call that PyTorch did not make on these inputs is not judged: the graph has the calls of the trace, and a mixture
   of experts makes others on other inputs.
7. Two floating tensors agree when no element differs by more than ``atol`` times the largest finite magnitude below
   1e30 in the reference, or 1 if that is less; beyond 1e30 (masks) elements may differ by that share of themselves.
   Integers and booleans must be equal.
8. The order in which a ``TopK`` with ``sorted=0`` names what it chose means nothing, in ONNX as in ``torch.topk``.
   Where its indices leave a call and are, row by row, those that PyTorch returned in another order, they are put into
   PyTorch's order, and so are the tensors of their shape that leave with them (the weights of the experts, say).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelexport.htp.branches import Branch
from modelexport.htp.calls import Call, CallTree
from modelexport.htp.tags import Frame
from modelexport.module_parity.reference import Recorded, RecordedCall, Recording
from modelexport.module_parity.values import Probe, batches, probe

_BATCH = 256 << 20  # bytes of values that are held at once
_MASK = 1e30  # magnitude from which on a number means "masked", as in ``finfo.min``


@dataclass(frozen=True)
class CallResult:
    """What was found for one module call.

    Attributes:
        nodes: of the call and those below it.
        own_nodes: of this very call.
        called: whether PyTorch made this call on these inputs, too; a mixture of experts may not.
        compared: pairs of tensors that were compared where values leave.
        max_abs: largest absolute difference among them.
        max_rel: the largest relative to what rule 7 compares it with; at most the tolerance where all agree.
        problem: what is wrong, as the end of a sentence that starts with the module; None where nothing is.
    """

    frame: Frame
    type: str
    nodes: int
    own_nodes: int
    called: bool
    compared: int
    max_abs: float
    max_rel: float
    problem: str | None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong with the call."""
        return self.problem is None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "module": self.frame.path,
            "call": self.frame.index,
            "type": self.type,
            "nodes": self.nodes,
            "own_nodes": self.own_nodes,
            "called": self.called,
            "compared": self.compared,
            "max_abs": self.max_abs if math.isfinite(self.max_abs) else None,
            "max_rel": self.max_rel if math.isfinite(self.max_rel) else None,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class ModuleParity:
    """What was found for one graph.

    Attributes:
        graph: file, and branch where it has several.
        case: the inputs it was run on.
        calls: in the order in which they return.
    """

    graph: str
    case: str
    tolerance: float
    calls: Sequence[CallResult] = field(default_factory=tuple)

    @property
    def compared(self) -> int:
        """Module calls for which values were compared."""
        return sum(call.compared > 0 for call in self.calls)

    @property
    def share(self) -> float:
        """Compared calls, of those that own nodes and that PyTorch made, too."""
        owners = [call for call in self.calls if call.own_nodes and call.called]
        return sum(call.compared > 0 for call in owners) / len(owners) if owners else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "graph": self.graph,
            "case": self.case,
            "tolerance": self.tolerance,
            "share": self.share,
            "calls": [call.to_dict() for call in self.calls],
        }

    @property
    def first_problem(self) -> CallResult | None:
        """The call with a problem that returned first."""
        return next((call for call in self.calls if not call.passed), None)


def compare(branch: Branch, file: Path, case: str, recording: Recording, atol: float) -> ModuleParity:
    """Run one graph of ``file`` on the recorded inputs and judge every module call in it.

    Args:
        branch: the graph.
        file: where it was read from.
        case: name of the inputs, for the report.
        recording: what PyTorch did with them.
        atol: see rule 7.
    """
    graph = branch.model.graph
    calls = CallTree(graph)
    ordered = list(calls.finished())
    found = recording.find([call.frame for call in ordered])
    disorder = calls.disorder()
    results: dict[Frame, CallResult] = {}
    with probe(branch.model, file) as session:
        for group in _groups(ordered, found):
            values = _run(session, group, recording.feeds)
            for call in group:
                known = call.frame.path in recording.modules
                results[call.frame] = _judge(call, found.get(call.frame), known, values, calls, atol)
        for caller, swallowed in _swallowed(ordered, found, recording, session, atol):
            problem = f"holds the nodes of {swallowed.frame.path}, which PyTorch called by itself"
            results[caller.frame] = replace(results[caller.frame], problem=results[caller.frame].problem or problem)
    if disorder is not None:
        one, other = disorder
        results[one.frame] = _out_of_order(results[one.frame], other)
    name = f"{file.name} ({branch.name})" if branch.name else file.name
    return ModuleParity(name, case, atol, tuple(results[call.frame] for call in ordered))


def difference(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the largest one relative to what rule 7 compares it with."""
    if got.size == 0:
        return 0.0, 0.0
    if want.dtype.kind not in "fc":
        unequal = float(np.any(got != want))
        return unequal, float("inf") if unequal else 0.0
    got, want = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = np.abs(got - want)
    delta[(got == want) | (np.isnan(got) & np.isnan(want))] = 0.0
    delta[np.isnan(delta)] = np.inf
    magnitude = np.abs(want)
    ordinary = magnitude[magnitude < _MASK]
    scale = np.where(magnitude < _MASK, max(1.0, float(ordinary.max()) if ordinary.size else 1.0), magnitude)
    return float(delta.max()), float((delta / np.where(np.isfinite(scale), scale, 1.0)).max())


def _groups(calls: Sequence[Call], found: Mapping[Frame, RecordedCall]) -> Iterator[list[Call]]:
    """Calls whose values together fit into one batch; a call's values are taken to be as large as the recorded ones."""
    sizes = []
    for call in calls:
        recorded = found.get(call.frame)
        tensors = (*recorded.given, *recorded.returned) if recorded else ()
        largest = max((4 * int(np.prod(tensor.shape)) for tensor in tensors), default=0)
        sizes.append((call, largest * (len(call.entering) + len(call.leaving))))
    yield from batches(sizes, _BATCH)


def _run(session: Probe, group: Sequence[Call], feeds: Mapping[str, np.ndarray]) -> dict[ir.Value, np.ndarray]:
    wanted = dict.fromkeys(value for call in group for value in (*call.entering, *call.leaving))
    values = {value: feeds[str(value.name)] for value in wanted if value.is_graph_input() and value.name in feeds}
    inner = [value for value in wanted if not value.is_graph_input()]
    run = session.run([str(value.name) for value in inner], feeds) if inner else {}
    return values | {value: run[str(value.name)] for value in inner}


def _judge(
    call: Call,
    recorded: RecordedCall | None,
    known: bool,
    values: Mapping[ir.Value, np.ndarray],
    calls: CallTree,
    atol: float,
) -> CallResult:
    if recorded is None:
        problem = None if known else "is no module of the PyTorch model"
        return CallResult(call.frame, "", len(call.nodes), len(call.own), False, 0, 0.0, 0.0, problem)
    problem = _foreign_input(call, recorded, values, calls, atol)
    pairs = _pair(_in_order(call, values, recorded), recorded.returned, atol)
    worst, worst_relative = 0.0, 0.0
    for got, want in pairs:
        absolute, relative = difference(got, want.load())
        worst, worst_relative = max(worst, absolute), max(worst_relative, relative)
    if worst_relative > atol:
        problem = f"returned something else in PyTorch: they differ by {worst:.3g}"
    nodes, own = len(call.nodes), len(call.own)
    return CallResult(call.frame, recorded.type, nodes, own, True, len(pairs), worst, worst_relative, problem)


def _foreign_input(
    call: Call, recorded: RecordedCall, values: Mapping[ir.Value, np.ndarray], calls: CallTree, atol: float
) -> str | None:
    """What is wrong with the values that enter ``call``, if anything is (rule 3)."""
    for value in call.entering:
        array = values.get(value)
        if array is None or array.dtype.kind != "f" or not array.size:
            continue
        depth = _depth(call)
        if any(len(stack) <= depth or stack[depth] != call.frame for stack in calls.readers(value)):
            continue
        if not any(given.floating and _agrees(array, given, atol) for given in recorded.given):
            return f"gets {value.name} in ONNX, which is none of the arguments that PyTorch passed"
    return None


def _swallowed(
    calls: Sequence[Call], found: Mapping[Frame, RecordedCall], recording: Recording, session: Probe, atol: float
) -> Iterator[tuple[Call, RecordedCall]]:
    """Calls whose own nodes compute what a module returned that has no nodes, and that module (rule 5)."""
    owners = {found[call.frame].frame.index: call for call in calls if call.frame in found}
    missing: dict[int, list[RecordedCall]] = {}
    for recorded in recording.calls:
        if recorded.frame.index not in owners and recorded.parent in owners and _makes_something_new(recorded, atol):
            missing.setdefault(recorded.parent, []).append(recorded)
    for index, candidates in missing.items():
        caller = owners[index]
        shapes = {tensor.shape for recorded in candidates for tensor in recorded.returned if tensor.floating}
        size = max(4 * int(np.prod(shape)) for shape in shapes)
        names = [str(value.name) for node in caller.own for value in node.outputs if value.name]
        for group in batches(((name, size) for name in names), _BATCH):
            arrays = [array for array in session.run(group, recording.feeds).values() if array.shape in shapes]
            for recorded in candidates:
                (wanted, *_) = (tensor for tensor in recorded.returned if tensor.floating)
                if any(array.dtype.kind == "f" and _agrees(array, wanted, atol) for array in arrays):
                    yield caller, recorded


def _makes_something_new(recorded: RecordedCall, atol: float) -> bool:
    """Whether the first floating result is none of the arguments, as that of a dropout is, and no mere constant."""
    result = next((tensor for tensor in recorded.returned if tensor.floating), None)
    if result is None:
        return False
    array = result.load()
    if array.size < 2 or np.all(array == array.flat[0]):
        return False
    return not any(given.floating and _agrees(array, given, atol) for given in recorded.given)


def _agrees(array: np.ndarray, tensor: Recorded, atol: float) -> bool:
    return array.shape == tensor.shape and difference(array, tensor.load())[1] <= atol


def _pair(
    leaving: Sequence[np.ndarray], returned: Sequence[Recorded], atol: float
) -> list[tuple[np.ndarray, Recorded]]:
    """Pair tensors of one shape and kind (rule 2)."""
    pairs: list[tuple[np.ndarray, Recorded]] = []
    kinds = dict.fromkeys((tensor.shape, tensor.floating) for tensor in returned)
    for shape, floating in kinds:
        ours = [array for array in leaving if array.shape == shape and (array.dtype.kind == "f") == floating]
        theirs = [tensor for tensor in returned if (tensor.shape, tensor.floating) == (shape, floating)]
        pairs += [(ours[i], theirs[j]) for i, j in _align(ours, theirs, atol)]
    return pairs


def _in_order(call: Call, values: Mapping[ir.Value, np.ndarray], recorded: RecordedCall) -> list[np.ndarray]:
    """What leaves ``call``, in the order of PyTorch where the order is of no meaning (rule 8)."""
    arrays = [values[value] for value in call.leaving]
    for value in call.leaving:
        if not _of_any_order(value):
            continue
        for tensor in recorded.returned:
            if tensor.floating or tensor.shape != values[value].shape:
                continue
            order = _order(values[value], tensor.load())
            if order is not None:
                return [np.take_along_axis(a, order, -1) if a.shape == order.shape else a for a in arrays]
    return arrays


def _of_any_order(value: ir.Value) -> bool:
    """Whether the tensor is the indices of a ``TopK`` over the last axis that does not sort."""
    node = value.producer()
    if node is None or node.op_type != "TopK" or value.index() != 1:
        return False
    attributes = node.attributes
    if "sorted" not in attributes or attributes["sorted"].as_int() != 0:
        return False
    axis = attributes["axis"].as_int() if "axis" in attributes else -1
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _order(got: np.ndarray, want: np.ndarray) -> np.ndarray | None:
    """Positions along the last axis at which ``got`` has the entries of ``want``.

    None where a row has other entries, or an entry twice: then there is no such order, or more than one.
    """
    by_entry, wanted_by_entry = np.argsort(got, axis=-1), np.argsort(want, axis=-1)
    entries = np.take_along_axis(got, by_entry, -1)
    if np.any(entries != np.take_along_axis(want, wanted_by_entry, -1)) or np.any(
        entries[..., 1:] == entries[..., :-1]
    ):
        return None
    return np.take_along_axis(by_entry, np.argsort(wanted_by_entry, axis=-1), -1)


def _align(ours: Sequence[np.ndarray], theirs: Sequence[Recorded], atol: float) -> list[tuple[int, int]]:
    """Pair every entry of the shorter list with one of the longer, each used once (rule 2)."""
    in_order = [(index, index) for index in range(min(len(ours), len(theirs)))]
    cost: dict[tuple[int, int], bool] = {}

    def agree(pair: tuple[int, int]) -> bool:
        if pair not in cost:
            cost[pair] = difference(ours[pair[0]], theirs[pair[1]].load())[1] <= atol
        return cost[pair]

    if all(agree(pair) for pair in in_order):
        return in_order
    flipped = len(ours) > len(theirs)
    rows, columns = sorted((len(ours), len(theirs)))
    taken: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:  # Kuhn's algorithm
        for column in range(columns):
            if column not in tried and agree((column, row) if flipped else (row, column)):
                tried.add(column)
                if column not in taken or place(taken[column], tried):
                    taken[column] = row
                    return True
        return False

    if not all(place(row, set()) for row in range(rows)):
        return in_order
    return [(column, row) if flipped else (row, column) for column, row in taken.items()]


def _out_of_order(result: CallResult, other: Call) -> CallResult:
    problem = (
        f"cannot have run as tagged: data flows between it and {other.frame.path or 'the model'} in both directions, "
        "or from the later to the earlier"
    )
    return replace(result, problem=result.problem or problem)


def _depth(call: Call) -> int:
    depth = 0
    while call.parent is not None:
        call, depth = call.parent, depth + 1
    return depth
