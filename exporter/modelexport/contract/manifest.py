"""The manifest (``modelexport.json``): what was exported from what, by which versions, and how it was checked.

It is a function of input, versions and options alone: no times, no paths, no host names.
"""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_NAME = "modelexport.json"
SCHEMA_VERSION: Literal[1] = 1
_GENERATES = ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq", "Vision2Seq", "Pix2Struct")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(_Part):
    """A weight file of the source checkpoint."""

    path: str
    size: int = Field(description="bytes")
    sha256: str


class Source(_Part):
    """Where the model came from. A local folder has neither repo nor sha."""

    repo: str | None = None
    sha: str | None = Field(default=None, description="commit sha of the snapshot that was exported")
    weights: tuple[WeightFile, ...] = ()


class Options(_Part):
    """What the operator chose; the defaults are what most people want."""

    task: str | None = Field(default=None, description="None: found from the repo")
    opset: int | None = Field(default=None, description="None: Optimum's default for the architecture")
    dtype: Literal["float32", "source"] = "float32"
    atol: float | None = Field(default=None, description="None: the default for the dtype (1e-4 for float32)")

    def digest(self) -> str:
        """sha256 over the options as canonical JSON: equal options, equal digest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class Tensor(_Part):
    """An input or output of a graph; a string in ``shape`` names a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ModuleNode(_Part):
    """One module that owns nodes, or that holds one which does: dotted path, class, how many nodes are its own."""

    path: str
    type: str
    nodes: int


class Graph(_Part):
    """One ONNX file."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: int = Field(description="all nodes, those in subgraphs and local functions included")
    traced: int
    inferred: int
    modules: tuple[ModuleNode, ...]


class ParityResult(_Part):
    """One output of one graph on one case: ONNX Runtime against PyTorch."""

    graph: str
    output: str
    case: str
    shapes: dict[str, tuple[int, ...]] = Field(description="shape of each input")
    arithmetic: str = Field(default="float32", description="dtype in which PyTorch computed")
    max_abs: float
    max_rel: float
    tolerance: float = Field(description="absolute, on max_abs")
    reason: str = Field(default="", description="why the tolerance is what it is")
    passed: bool


class OptimumCheck(_Part):
    """The load with stock Optimum, the way a user would."""

    model_class: str = Field(alias="class", serialization_alias="class")
    files: tuple[str, ...] = Field(description="the ONNX files that Optimum loaded")
    max_abs: float

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def generates(self) -> bool:
        """Whether the class has ``generate``."""
        return self.model_class.endswith(_GENERATES)


class FileEntry(_Part):
    """A file of the folder, the manifest itself excepted."""

    path: str
    size: int = Field(description="bytes")
    sha256: str


class Manifest(_Part):
    """The whole record; serialised with sorted keys and two spaces of indent."""

    schema_version: Literal[1] = SCHEMA_VERSION
    source: Source
    options: Options
    options_digest: str
    task: str
    library: str
    model_type: str
    architecture: str
    versions: dict[str, str]
    opset: int
    ir_version: int
    dtype: str = Field(description="dtype of the weights in the ONNX files")
    graphs: tuple[Graph, ...]
    parity: tuple[ParityResult, ...]
    optimum: OptimumCheck
    files: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()

    @property
    def without_cache(self) -> bool:
        """Whether the model generates text by graphs without KV cache: Optimum must be told, ``use_cache=False``."""
        names = (tensor.name for graph in self.graphs for tensor in graph.inputs)
        return self.optimum.generates and not any(name.startswith("past_key_values") for name in names)

    def to_json(self) -> str:
        """Canonical text: equal manifests give equal bytes."""
        return (
            json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and validate. Raises :class:`pydantic.ValidationError`."""
        return cls.model_validate_json(text)
