"""What crosses the line between the bot and the exporter: manifest, events, errors, and what an export costs.

The one package that both sides import, so it needs pydantic and nothing else.
"""

from modelexport.contract.cost import Cost, estimate, memory_limit, parse_size, require_fits
from modelexport.contract.errors import ERRORS, ErrorCode, ModelExportError
from modelexport.contract.events import Event, Failed, Finished, Note, Progress, Ready, Stage, StageName, parse_event
from modelexport.contract.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileEntry,
    Graph,
    Manifest,
    ModuleNode,
    OptimumCheck,
    Options,
    ParityResult,
    Source,
    Tensor,
    WeightFile,
)

__all__ = [
    "ERRORS",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Cost",
    "ErrorCode",
    "Event",
    "Failed",
    "FileEntry",
    "Finished",
    "Graph",
    "Manifest",
    "ModelExportError",
    "ModuleNode",
    "Note",
    "OptimumCheck",
    "Options",
    "ParityResult",
    "Progress",
    "Ready",
    "Source",
    "Stage",
    "StageName",
    "Tensor",
    "WeightFile",
    "estimate",
    "memory_limit",
    "parse_event",
    "parse_size",
    "require_fits",
]
