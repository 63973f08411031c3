"""The table of ``make breadth`` as Markdown: ``docs/breadth.md``."""

import math
from collections import Counter
from collections.abc import Sequence

from tests.zoo.outcome import Outcome, Row

_HEAD = """# Breadth

Every architecture of the zoo (`tests/zoo/models.py`: tiny seeded models with real tokenizers and processors),
exported by `optimum-cli export onnx` and by modelexport. Written by `make breadth`.

A case passes when stock Optimum loads the folder offline, every graph agrees with PyTorch within 1e-4 on inputs of
several lengths and batch sizes, and models that generate text produce the same 20 greedy tokens, with the KV cache
and without, for one prompt and for a padded batch. Both exports are judged by the same code.

For modelexport, every module call is compared with PyTorch, too (`modelexport check --modules`): the share of calls
that own nodes whose values could be compared, and the largest difference at the boundary of any module, relative to the
largest value there where that is above 1. `make breadth` fails where optimum-cli passes and modelexport does not, where
a node has no tag, where less than 99 % of the nodes are traced, where a module differs, and where less than 90 % of the
module calls of a graph are compared.

A model type with a remark in brackets is a variant: a config or a processor as published checkpoints have it.

Of the model types that optimum-onnx 0.1.0 names, the zoo lacks seven. Speech generators (`musicgen`, `speecht5`,
`vits`) are refused, as nothing in Optimum runs them. `trocr` alone, `siglip-text` and `siglip-text-with-projection` are
types that no Auto class loads (TrOCR is here as the decoder of a vision-encoder-decoder); `internlm2` needs code of the
repo.

Failures of optimum-cli that others report, that we looked for and could not make happen: MarkupLM (published and tiny
depths and vocabularies of `xpath`), MGP-STR (published and odd patches), GPT-OSS (yarn, windows shorter than the text,
32 experts) and Nemotron (one and several key-value heads, head size given or not). SigLIP's wrong numbers appear only
where the tokenizer makes an attention mask, and MaskFormer's failure only with images of another shape than the traced
one.
"""


def markdown(rows: Sequence[Row]) -> str:
    """The whole page."""
    types = {row.model_type for row in rows}
    count = Counter(side for row in rows for side in _sides(row))
    lines = [
        _HEAD,
        (
            f"{len(rows)} cases of {len(types)} model types: optimum-cli passes {count['optimum']}, modelexport "
            f"{count['ours']}. {_calls(rows)}"
        ),
        "",
        (
            "| model type | task | optimum-cli | modelexport | largest difference, theirs | ours | nodes | traced | "
            "calls compared | worst module |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row.ours
        share = _percent(ours.traced, ours.nodes) if ours.nodes else ""
        lines.append(
            f"| {row.name} | {row.task} | {_verdict(row.optimum)} | {_verdict(ours)} | {_number(row.optimum)} | "
            f"{_number(ours)} | {ours.nodes or ''} | {share} | {_share(ours)} | {_module(ours)} |"
        )
    lines += ["", "## What does not pass, and why", ""]
    for row in rows:
        if not row.ours.passed:
            lines.append(f"- **{row.name}, {row.task}**, modelexport: {row.ours.problem}")
    lines += ["", "## What optimum-cli exports and cannot use, or does not export, and modelexport does", ""]
    for row in rows:
        if row.ours.passed and not row.optimum.passed:
            lines.append(f"- **{row.name}, {row.task}**, optimum-cli: {row.optimum.problem}")
    lines += ["", "## Notes in the manifests", ""]
    for row in rows:
        lines += [f"- **{row.name}, {row.task}**: {note}" for note in row.ours.notes]
    return "\n".join(lines) + "\n"


def _calls(rows: Sequence[Row]) -> str:
    calls, compared = (sum(getattr(row.ours, name) for row in rows) for name in ("calls", "compared"))
    nodes, traced = (sum(getattr(row.ours, name) for row in rows) for name in ("nodes", "traced"))
    return (
        f"Of its {nodes} nodes {_percent(traced, nodes)} are traced, the others inferred; of its {calls} module calls "
        f"with nodes {_percent(compared, calls)} are compared with PyTorch."
    )


def _share(outcome: Outcome) -> str:
    return _percent(outcome.compared, outcome.calls) if outcome.calls else ""


def _module(outcome: Outcome) -> str:
    if outcome.module_problem:
        return "**differs**"
    return "" if outcome.module_rel is None else f"{outcome.module_rel:.1e}"


def _percent(part: int, whole: int) -> str:
    """Never rounded up to 100 %."""
    return f"{math.floor(1000 * part / whole) / 10 if whole else 0:.1f} %"


def _sides(row: Row) -> list[str]:
    return [name for name, side in (("optimum", row.optimum), ("ours", row.ours)) if side.passed]


def _verdict(outcome: Outcome) -> str:
    if outcome.passed:
        return "pass"
    return "exports, fails" if outcome.exported else "**fails**"


def _number(outcome: Outcome) -> str:
    return "" if outcome.max_abs is None else f"{outcome.max_abs:.1e}"
