"""The heavy half of the command line in one import: everything that loads torch, Optimum and ONNX Runtime.

Importing it is most of the time of a small export, and is done once, before any process is forked.
"""

from rich.console import Console

import modelexport.source as source
from modelexport.contract.cost import parse_size
from modelexport.contract.manifest import MANIFEST_NAME, Manifest, Options
from modelexport.export import Origin, export

__all__ = ["MANIFEST_NAME", "Options", "Origin", "export", "parse_size", "source", "summary"]


def summary(manifest: Manifest, out: object) -> None:
    """What a person wants to know after an export, on stdout."""
    console = Console(highlight=False)
    worst = max(result.max_abs for result in manifest.parity)
    nodes = sum(graph.nodes for graph in manifest.graphs)
    inferred = sum(graph.inferred for graph in manifest.graphs)
    console.print(
        f"{manifest.architecture} for {manifest.task}: {nodes} nodes, {inferred} of them with an inferred module"
    )
    console.print(f"largest difference from PyTorch over {len(manifest.parity)} comparisons: {worst:.2e}")
    options = ", use_cache=False" if manifest.without_cache else ""
    console.print(f"load it: {manifest.optimum.model_class}.from_pretrained({str(out)!r}{options})")
