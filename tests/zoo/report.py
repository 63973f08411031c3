"""The table of ``make breadth`` as Markdown: ``docs/breadth.md``."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.zoo.breadth import Outcome, Row

_HEAD = """# Breadth

Every architecture of the zoo (`tests/zoo/models.py`: tiny seeded models with real tokenizers and processors),
exported by `optimum-cli export onnx` and by modelexport. Written by `make breadth`.

A case passes when stock Optimum loads the folder offline, every graph agrees with PyTorch within 1e-4 on inputs of
several lengths and batch sizes, and models that generate text produce the same 24 greedy tokens, with the KV cache
and without, for one prompt and for a padded batch. Both exports are judged by the same code.
"""


def markdown(rows: "list[Row]") -> str:
    """The whole page."""
    types = {row.model_type for row in rows}
    count = Counter(side for row in rows for side in _sides(row))
    lines = [
        _HEAD,
        (
            f"{len(rows)} cases of {len(types)} model types: optimum-cli passes {count['optimum']}, modelexport "
            f"{count['ours']}."
        ),
        "",
        "| model type | task | optimum-cli | modelexport | largest difference, theirs | ours | nodes | traced |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row.ours
        share = f"{100 * ours.traced / ours.nodes:.1f} %" if ours.nodes else ""
        lines.append(
            f"| {row.model_type} | {row.task} | {_verdict(row.optimum)} | {_verdict(ours)} | {_number(row.optimum)} | "
            f"{_number(ours)} | {ours.nodes or ''} | {share} |"
        )
    lines += ["", "## What does not pass, and why", ""]
    for row in rows:
        if not row.ours.passed:
            lines.append(f"- **{row.model_type}, {row.task}**, modelexport: {row.ours.problem}")
    lines += ["", "## What optimum-cli exports and cannot use, or does not export, and modelexport does", ""]
    for row in rows:
        if row.ours.passed and not row.optimum.passed:
            lines.append(f"- **{row.model_type}, {row.task}**, optimum-cli: {row.optimum.problem}")
    lines += ["", "## Notes in the manifests", ""]
    for row in rows:
        lines += [f"- **{row.model_type}, {row.task}**: {note}" for note in row.ours.notes]
    return "\n".join(lines) + "\n"


def _sides(row: "Row") -> list[str]:
    return [name for name, side in (("optimum", row.optimum), ("ours", row.ours)) if side.passed]


def _verdict(outcome: "Outcome") -> str:
    if outcome.passed:
        return "pass"
    return "exports, fails" if outcome.exported else "**fails**"


def _number(outcome: "Outcome") -> str:
    return "" if outcome.max_abs is None else f"{outcome.max_abs:.1e}"
