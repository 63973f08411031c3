"""``modelexport check``: judge a folder of ONNX files, ours or not, the way a user of Optimum would meet it.

The steps, in order; the first that fails ends the check with its error:

1. ``config.json`` is there and readable, ONNX files are there, external data is complete.
2. The files are those that the manifest lists, byte for byte (folders with a manifest).
3. Every node carries its tags (folders with a manifest); otherwise the share that does is reported.
4. Optimum loads the folder, offline, and runs it on inputs made by its tokenizer or processor.
5. With ``--against --modules``: so are those inside the graph, module call by module call.
6. With ``--against``: the numbers are those of the PyTorch model.
"""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import optimum.onnxruntime
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from modelexport import checkpoint, isolation, optimum_check, original, preprocessors, source, temporary
from modelexport import folder as folders
from modelexport import task as tasks
from modelexport.check import Checked, check
from modelexport.contract.errors import (
    ConfigInvalidError,
    ConfigMissingError,
    FolderInvalidError,
    OptimumLoadFailedError,
    ParityFailedError,
    SourceNotFoundError,
)
from modelexport.contract.manifest import Manifest
from modelexport.htp.tags import Tag, all_nodes
from modelexport.isolation import Emit
from modelexport.module_parity import ModuleParity
from modelexport.module_parity import check as module_check
from modelexport.parity import numbers, references
from modelexport.parity.cases import Preprocessors
from modelexport.parity.references import References


@dataclass(frozen=True)
class Findings:
    """What was found to be true of a folder.

    Attributes:
        tagged: nodes that carry a tag, of ``nodes``.
        compared: what was compared with PyTorch; None without ``--against``, and where a module already differs.
        modules: per-module parity of every graph; empty unless asked for.
    """

    folder: Path
    task: str
    model_class: str
    files: tuple[str, ...]
    manifest: bool
    nodes: int
    tagged: int
    compared: Checked | None
    modules: tuple[ModuleParity, ...] = ()

    @property
    def problem(self) -> ParityFailedError | None:
        """The first module that diverges, as the error that it is."""
        return next((error for error in map(module_check.error, self.modules) if error is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found: dict[str, Any] = {
            "folder": str(self.folder),
            "task": self.task,
            "class": self.model_class,
            "files": list(self.files),
            "manifest": self.manifest,
            "nodes": self.nodes,
            "tagged": self.tagged,
        }
        if self.compared is not None:
            found["parity"] = [result.model_dump(mode="json") for result in self.compared.parity]
        if self.modules:
            found["modules"] = [graph.to_dict() for graph in self.modules]
        return found


def check_folder(
    folder: Path,
    *,
    task: str | None,
    against: str | None,
    atol: float | None,
    modules: bool = False,
    trust_remote_code: bool = False,
) -> Findings:
    """Run the steps of this module on ``folder``.

    Args:
        folder: the ONNX files and what belongs to them.
        task: None: from the manifest, else from the config.
        against: the PyTorch model, a folder or repo; None: compare nothing.
        atol: largest absolute difference allowed; None: by dtype.
        modules: compare every module call with ``against``, too. Where one differs, the findings say so and nothing is
            raised: see :attr:`Findings.problem`.
        trust_remote_code: the operator allows code of ``against`` to be run, as in :func:`modelexport.export.export`.

    Raises:
        ModelExportError: the first step that fails, with what to do.
    """
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder} is not a folder.")
    _require_config(folder)
    files = folders.onnx_files(folder)
    for file in files:
        _require_external_data(file)
    manifest = folders.manifest(folder)
    if manifest is not None:
        _require_listed(folder, manifest)
    nodes, tagged = _tags(files)
    if manifest is not None and tagged < nodes:
        raise FolderInvalidError(
            f"{nodes - tagged} of {nodes} nodes in {folder} have lost their tags, although the manifest promises them. "
            "Another tool rewrote the graph; export again."
        )
    config = _config(folder)
    architectures = tuple(config.architectures or ())
    chosen = task or (manifest.task if manifest else None)
    chosen = tasks.resolve(config.model_type, architectures, requested=chosen, pipeline_tag=None)
    model_class = tasks.ort_model_class(chosen, architectures)
    if manifest is not None:  # it may name ORTModelForCustomTasks, where the task's own class cannot call the graph
        model_class = getattr(optimum.onnxruntime, manifest.optimum.model_class, model_class)
    opened = isolation.run(_load_and_run, folder, model_class, tuple(file.name for file in files), emit=_silent)
    found = Findings(folder, chosen, model_class.__name__, opened, manifest is not None, nodes, tagged, None)
    if against is None:
        return found
    read = checkpoint.read(source.locate(against, None)[0], trust_remote_code=trust_remote_code)
    if modules:
        found = replace(found, modules=tuple(module_check.check_modules(folder, read, chosen, atol)))
        if found.problem is not None:
            return found
    return replace(found, compared=_compare(folder, read, chosen, model_class, atol))


def show(findings: Findings) -> None:
    """Print the findings for a person."""
    console = Console(highlight=False)
    console.print(
        f"[green]✓[/] {findings.model_class} loads {', '.join(findings.files)} from {findings.folder} and runs it"
    )
    if findings.manifest:
        console.print("[green]✓[/] all files are as the manifest lists them")
    if findings.tagged:
        console.print(f"[green]✓[/] {findings.tagged} of {findings.nodes} nodes say which module they came from")
    else:
        console.print("[dim]– no node says which module it came from: not exported by modelexport")
    for graph in findings.modules:
        module_check.show(graph, console)
    if findings.compared is None:
        if not findings.modules:
            console.print("[dim]– numbers not compared: pass --against SRC with the PyTorch model")
        return
    table = Table("graph", "output", "case", "max abs difference", "allowed")
    for result in findings.compared.parity:
        table.add_row(result.graph, result.output, result.case, f"{result.max_abs:.2e}", f"{result.tolerance:.0e}")
    console.print(table)


def _require_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigMissingError(
            f"config.json not found in {folder}. Optimum needs it beside the model; re-export with modelexport >= 1.0.0"
        )


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ConfigInvalidError(
            f"config.json in {folder} cannot be read by transformers: {type(error).__name__}: {first_line}"
        ) from error


def _require_external_data(file: Path) -> None:
    try:
        proto = onnx.load(file, load_external_data=False)
    except Exception as error:
        raise FolderInvalidError(
            f"{file} is not a complete ONNX file: {type(error).__name__}. Download it again."
        ) from error
    for tensor in proto.graph.initializer:
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        data = file.parent / info.location
        if info.location != f"{file.name}_data":
            raise FolderInvalidError(
                f"{file.name} keeps weights in {info.location!r}. Optimum fetches no other file than {file.name}_data "
                "from the Hub, so nobody could load it; re-export with modelexport >= 1.0.0"
            )
        if not data.is_file() or data.stat().st_size < (info.offset or 0) + (info.length or 0):
            state = "cut short" if data.is_file() else "missing"
            raise FolderInvalidError(f"{file.name} needs {info.location}, which is {state}. Download it again.")


def _require_listed(folder: Path, manifest: Manifest) -> None:
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            raise FolderInvalidError(
                f"{entry.path} is listed in the manifest but missing in {folder}. Download it again."
            )
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != entry.sha256:
            raise FolderInvalidError(
                f"{entry.path} is not the file that the manifest lists (sha256 {digest[:12]}, "
                f"listed {entry.sha256[:12]}). It was changed or damaged; download it again, or export again."
            )


def _tags(files: list[Path]) -> tuple[int, int]:
    nodes = tagged = 0
    for file in files:
        for node in all_nodes(ir.load(file)):
            nodes += 1
            tagged += Tag.read(node) is not None
    return nodes, tagged


def _load_and_run(folder: Path, model_class: type, names: tuple[str, ...], _: Emit) -> tuple[str, ...]:
    optimum_check.forbid_network()
    model = optimum_check.load(folder, model_class, frozenset(names))
    makers = preprocessors.load(folder)
    inputs = _example(makers)
    if hasattr(model, "generate") and model.main_input_name in inputs:
        wanted = {model.main_input_name, "attention_mask"}
        optimum_check.generate(model, {name: value for name, value in inputs.items() if name in wanted})
    elif inputs and not hasattr(model, "generate"):
        ranks = {
            item.name: len(item.shape)
            for session in optimum_check.sessions(model).values()
            for item in session.get_inputs()
        }
        inputs = {name: value for name, value in inputs.items() if ranks.get(name) == value.ndim}
        if inputs.keys() >= ranks.keys() - {"token_type_ids"}:
            try:
                outputs = optimum_check.forward(model, inputs)
            except OptimumLoadFailedError:  # the class of the task may not know this graph's inputs and outputs
                model = optimum_check.load(folder, optimum.onnxruntime.ORTModelForCustomTasks, frozenset(names))
                outputs = optimum_check.forward(model, inputs)
            _require_finite(outputs)
    return tuple(sorted(path.name for path in optimum_check.loaded_files(model)))


def _example(makers: Preprocessors) -> dict[str, np.ndarray]:
    example: dict[str, np.ndarray] = {}
    if makers.tokenizer is not None:
        example |= makers.tokenizer(["Hello, world!"], return_tensors="np")
        example["position_ids"] = np.arange(example["input_ids"].shape[1])[None]
    if makers.image_processor is not None:
        image = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
        with contextlib.suppress(TypeError):  # one that wants more than an image
            example |= makers.image_processor(image, return_tensors="np")
    return example


def _require_finite(outputs: dict[str, np.ndarray]) -> None:
    for name, value in outputs.items():
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise OptimumLoadFailedError(
                f"Optimum runs the model, but its output {name!r} contains NaN on a plain input."
            )


def _compare(folder: Path, read: checkpoint.Checkpoint, task: str, model_class: type, atol: float | None) -> Checked:
    with temporary.folder() as scratch:
        made = isolation.run(_references, read, task, folder, scratch, emit=_silent)
        return isolation.run(check, folder, made, model_class, numbers.tolerance(made.dtype, atol), emit=_silent)


def _references(read: checkpoint.Checkpoint, task: str, folder: Path, scratch: Path, _: Emit) -> References:
    model = original.load(read, task, folder, scratch)
    calls = references.make(model.plans, model.interfaces, model.published, model.preprocessors, scratch)
    prompts = references.generate(model.plans, model.preprocessors, model.model, model.settings, task, scratch)
    return References(calls, prompts, model.dtype)


def _silent(_: object) -> None:
    """Checks are quick; nobody watches their stages."""
