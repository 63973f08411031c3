"""What became of a case of ``make breadth``, and what must not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.zoo.animal import Animal

TRACED, COMPARED = 0.99, 0.9  # least share of nodes, of module calls that own nodes


@dataclass(frozen=True)
class Outcome:
    """What became of one export.

    Attributes:
        passed: exported, loaded, run, and right.
        exported: files were written; always so where it passed.
        problem: why not, in one line.
        max_abs: largest difference from PyTorch, where it was measured.
        nodes, traced, inferred: of all graphs; 0 for Optimum's, which has no tags.
        calls: module calls that own nodes and that PyTorch made, too, of all graphs.
        compared: of those, calls whose values were compared.
        least_compared: the smallest share of compared calls among the graphs.
        module_rel: largest difference at the boundary of any module call, as it is judged (relative to large values).
        module_problem: the first module that differs, as a sentence; empty where all agree.
        notes: what the manifest says about deviations.
        seconds: wall clock.
    """

    passed: bool
    exported: bool = False
    problem: str = ""
    max_abs: float | None = None
    nodes: int = 0
    traced: int = 0
    inferred: int = 0
    calls: int = 0
    compared: int = 0
    least_compared: float = 0.0
    module_rel: float | None = None
    module_problem: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """One case: a model type, a task, and both outcomes.

    Attributes:
        variant: as in :class:`tests.zoo.animal.Animal`.
    """

    model_type: str
    task: str
    optimum: Outcome
    ours: Outcome
    variant: str = ""

    @property
    def name(self) -> str:
        """Model type and variant."""
        return Animal(self.model_type, (), variant=self.variant).name


def shortcomings(rows: Sequence[Row]) -> Iterator[str]:
    """What must not be, one sentence each.

    A case that Optimum passes and we do not, and of ours: a node without tag, less than :data:`TRACED` of the nodes
    traced, a module that differs from PyTorch, less than :data:`COMPARED` of the module calls of a graph compared.
    """
    for row in rows:
        name, ours = f"{row.name} for {row.task}", row.ours
        if row.optimum.passed and not ours.passed:
            yield f"{name}: optimum-cli passes, modelexport does not: {ours.problem}"
        if not ours.passed:
            continue
        if ours.traced + ours.inferred != ours.nodes:
            yield f"{name}: {ours.nodes - ours.traced - ours.inferred} nodes have no tag"
        if ours.traced < TRACED * ours.nodes:
            yield f"{name}: only {100 * ours.traced / ours.nodes:.1f} % of the nodes are traced"
        if ours.module_problem or ours.module_rel is None:
            yield f"{name}: {ours.module_problem or 'no module was compared'}"
        if ours.least_compared < COMPARED:
            yield f"{name}: in one graph only {100 * ours.least_compared:.1f} % of the module calls were compared"
