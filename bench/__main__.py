"""``python -m bench``: measure, and write ``docs/performance.md`` with its plots.

python -m bench                      everything, about half an hour
python -m bench --figures seconds    wall time alone, or memory alone; the rest stays as it was measured last
python -m bench --only "bert 335M"   one model; prints, does not touch the docs
python -m bench --report             write the page again from the last results
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import pairs, parts, report
from bench.models import MODELS, ROOT, SIZES, Model

RESULTS = ROOT / "results.json"
PARTS = ("tagging", "copying", "warm", "floor", "stages")


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="MODEL", action="append", help="one model of the table; may be repeated")
    parser.add_argument("--pairs", type=int, help="pairs of timed runs (default: 5 for small models, 3 for large)")
    parser.add_argument("--figures", choices=("seconds", "memory"), help="measure these alone")
    parser.add_argument("--report", action="store_true", help="write the page from the last results")
    arguments = parser.parse_args()
    ROOT.mkdir(exist_ok=True)
    if arguments.only:
        for model in MODELS:
            if model.name in arguments.only:
                print(report.line(pairs.run(model, arguments.pairs or model.pairs, pairs.WATCHED)))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if arguments.report or arguments.figures else {}
    if not arguments.report:
        if arguments.figures is None:
            results |= measure_parts()
        elif arguments.figures == "seconds":
            results["stages"] = parts.stages()
        results["pairs"] = measure(MODELS, arguments.pairs, arguments.figures, results.get("pairs", ()))
        results["sizes"] = measure(SIZES, 1, arguments.figures, results.get("sizes", ()))
        RESULTS.write_text(json.dumps(results, indent=1))
    report.write(results, Path("docs"))


def measure_parts() -> dict[str, Any]:
    """The machine, and what is measured beside whole exports."""
    results: dict[str, Any] = {"machine": report.machine()}
    for name in PARTS:
        results[name] = getattr(parts, name)()
        print(name, results[name], flush=True)
    return results


def measure(
    models: Sequence[Model], count: int | None, figures: str | None, last: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every model's runs as plain data, those of ``figures`` new and the others from ``last``."""
    known = {entry["model"]: entry for entry in last}
    results = []
    for model in models:
        timed = 0 if figures == "memory" else count or model.pairs
        watched = 0 if figures == "seconds" else min(pairs.WATCHED, model.pairs)
        entry = asdict(pairs.run(model, timed, watched))
        kept = ("seconds", "memory") if figures is None else (figures,)
        results.append({**known.get(model.name, {}), **{key: entry[key] for key in ("model", "nbytes", *kept)}})
    return results


main()
