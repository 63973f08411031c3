# ruff: noqa: E501  the page is a template whose lines are Markdown
"""The page ``docs/performance.md`` and its plot, from the results of a run."""

import platform
from pathlib import Path
from typing import Any

import psutil

from bench.pairs import Pairs

TARGETS = {
    "bert 0.5M": (0.90, None),
    "minilm real": (0.70, None),
    "bert 110M": (0.60, 0.60),
    "bert 335M": (0.50, 0.50),
    "bert 840M": (0.50, None),
    "gpt2 124M": (0.70, 0.60),
    "t5 60M": (0.70, None),
    "vit 86M": (0.70, None),
}
"""Largest ratio to optimum-cli that we want, of wall time and of peak memory (PSS)."""


def machine() -> str:
    """What it was measured on, in one line."""
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    return (
        f"{cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )


def line(pairs: Pairs) -> str:
    """One row of the table."""
    time_target, memory_target = TARGETS.get(pairs.model, (None, None))
    return (
        f"| {pairs.model} | {pairs.nbytes / 1e6:,.0f} MB | {len(pairs.seconds['ours'])} "
        f"| {pairs.median('ours', 'seconds'):.1f} s | {pairs.median('peer', 'seconds'):.1f} s "
        f"| {_judged(pairs.ratio('seconds'), time_target)} "
        f"| {pairs.median('ours', 'pss') / 1e6:,.0f} MB | {pairs.median('peer', 'pss') / 1e6:,.0f} MB "
        f"| {_judged(pairs.ratio('pss'), memory_target)} "
        f"| {pairs.median('ours', 'anonymous') / 1e6:,.0f} MB | {pairs.median('peer', 'anonymous') / 1e6:,.0f} MB |"
    )


def _judged(ratio: float, target: float | None) -> str:
    if target is None:
        return f"{ratio:.2f}"
    return f"**{ratio:.2f}** (≤ {target:.2f})" if ratio <= target else f"{ratio:.2f} (missed ≤ {target:.2f})"


def write(results: dict[str, Any], docs: Path) -> None:
    """Write the page and the plot."""
    measured = [Pairs(**entry) for entry in results["pairs"]]
    sizes = [Pairs(**entry) for entry in results["sizes"]]
    large = next(pairs for pairs in measured if pairs.model == "bert 840M")
    plot([*sizes, large], docs / "performance.svg")
    floor, warm, tagging = results["floor"], results["warm"], results["tagging"]
    middle = next(pairs for pairs in measured if pairs.model == "bert 335M")
    small = next(pairs for pairs in measured if pairs.model == "bert 110M")
    share = max(0.0, tagging["with tags"] - tagging["without"]) / small.median("ours", "seconds")
    page = f"""# Performance

Written by `make bench` ({results["machine"]}). Whole processes run alternately, ours, `optimum-cli export onnx`, ours, …, on the same
input; ratios are medians over the pairs. Ours includes module tags, the parity gate and the load with Optimum.

Time is that of runs that nobody watched; memory is the peak of the whole process tree in further runs, sampled four times a second. *PSS* counts private pages and each process's share of shared ones;
file-backed pages (the mapped checkpoint) count while they are resident, although the kernel may drop them. *Anonymous* is what no file
backs.

| model | weights | pairs | ours | optimum-cli | ratio | ours, PSS | optimum-cli, PSS | ratio | ours, anonymous | optimum-cli, anonymous |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(line(pairs) for pairs in measured)}

One model: `python -m bench --only "bert 335M"` in the exporter's test environment (`.venv-exporter/bin/python`).

- The 840 M model peaks at {large.median("ours", "pss") / large.nbytes:.2f} times the size of its weights (target 1.5).
- Tagging takes {tagging["with tags"] - tagging["without"]:.2f} s of the 110 M BERT ({tagging["with tags"]:.2f} s of trace, projection and
  writing with, {tagging["without"]:.2f} s without): {100 * share:.1f} % of its export (target 5 %).
- Copying config and tokenizer files of MiniLM takes {1000 * results["copying"]["seconds"]:.1f} ms (target 100 ms).
- {warm["jobs"]} tiny exports take {warm["cold"]:.1f} s as processes of their own and {warm["warm"]:.1f} s through one warm exporter
  (`modelexport serve-jobs`): {warm["throughput"]:.1f} times the throughput (target 3).
- The floor: `dd` reads and writes the {floor["bytes"] / 1e9:.2f} GB of the 335 M model in {floor["seconds"]:.1f} s. The whole export takes
  {middle.median("ours", "seconds"):.1f} s, of which {results["stages"]["bert 335M"]["imports"]:.1f} s are imports.

## Where our time goes

Seconds of one export, by stage. Imports are what `optimum-cli` imports, too. PyTorch computes the references while the files are
written; *check* is ONNX Runtime on the same inputs, and for GPT-2 and T5 the text that it writes, which `optimum-cli` has no
counterpart for.

| model | imports | load | trace and tags | write and references | check | all |
|---|---|---|---|---|---|---|
{chr(10).join(_stages(name, spent) for name, spent in results["stages"].items())}

## Time and memory against size

![wall time and peak memory against the size of the weights](performance.svg)

BERTs of 1344 dimensions with 1 to 36 layers; one pair each.
"""
    (docs / "performance.md").write_text(page, encoding="utf-8")


def _stages(name: str, spent: dict[str, float]) -> str:
    return f"| {name} | {' | '.join(f'{seconds:.1f}' for seconds in spent.values())} |"


def plot(sizes: list[Pairs], path: Path) -> None:
    """Wall time and PSS of both sides against the size of the weights."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "modelexport"
    from matplotlib import pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4))
    size = [pairs.nbytes / 1e9 for pairs in sizes]
    for side, name, style in (("ours", "modelexport", "o-"), ("peer", "optimum-cli", "s--")):
        time.plot(size, [pairs.median(side, "seconds") for pairs in sizes], style, label=name)
        memory.plot(size, [pairs.median(side, "pss") / 1e9 for pairs in sizes], style, label=name)
    memory.plot(size, size, ":", color="gray", label="the weights themselves")
    for axes, label in ((time, "wall time, s"), (memory, "peak memory (PSS), GB")):
        axes.set(xlabel="weights, GB", ylabel=label, xlim=0, ylim=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
