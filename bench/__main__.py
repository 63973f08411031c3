"""``python -m bench``: measure, and write ``docs/performance.md`` with its plots.

python -m bench                      everything, about half an hour
python -m bench --only "bert 335M"   one model; prints, does not touch the docs
python -m bench --report             write the page again from the last results
"""

import argparse
import json
from pathlib import Path

from bench import pairs, parts, report
from bench.models import MODELS, ROOT, SIZES

RESULTS = ROOT / "results.json"


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="MODEL", action="append", help="one model of the table; may be repeated")
    parser.add_argument("--pairs", type=int, help="how many pairs of runs (default: 5 for small models, 3 for large)")
    parser.add_argument("--report", action="store_true", help="write the page from the last results")
    arguments = parser.parse_args()
    ROOT.mkdir(exist_ok=True)
    if arguments.only:
        for model in MODELS:
            if model.name in arguments.only:
                print(report.line(pairs.run(model, arguments.pairs)))
        return
    if not arguments.report:
        results = measure(arguments.pairs)
        RESULTS.write_text(json.dumps(results, indent=1))
    report.write(json.loads(RESULTS.read_text()), Path("docs"))


def measure(count: int | None) -> dict[str, object]:
    """All figures, as plain data."""
    results: dict[str, object] = {"machine": report.machine()}
    for name in ("tagging", "copying", "warm", "floor"):
        results[name] = getattr(parts, name)()
        print(name, results[name], flush=True)
    results["pairs"] = [pairs.run(model, count).to_dict() for model in MODELS]
    results["sizes"] = [pairs.run(model, 1).to_dict() for model in SIZES]
    return results


main()
