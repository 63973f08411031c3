"""What every module call was given and returned when the PyTorch model ran: the reference of per-module parity.

Tensors go to disk the moment they are seen, because a later in-place operation may change them, and because all
activations of a large model together may not fit into memory.

Calls are counted as :mod:`modelexport.htp.trace` counts them: every call of a module that the hierarchy knows, in
order, while the model is patched for export. So a call has the same index here and in the file, unless the model calls
different modules for different inputs (a mixture of experts); then it is found by its path and by how often that path
was called before.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx.model_patcher import original_scaled_dot_product_attention
from transformers import modeling_attn_mask_utils
from transformers.cache_utils import Cache, EncoderDecoderCache

from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.tags import Frame
from modelexport.parity.cases import Case
from modelexport.plan import GraphPlan


@dataclass(frozen=True)
class Recorded:
    """One tensor on disk."""

    file: Path
    shape: tuple[int, ...]
    floating: bool

    def load(self) -> np.ndarray:
        """The tensor; ``bfloat16`` as ``float32``."""
        return np.load(self.file, allow_pickle=False)


@dataclass(frozen=True)
class RecordedCall:
    """One module call.

    Attributes:
        frame: path and index.
        type: class name of the module.
        given: tensors among the arguments, in the order of the call; those inside nested structures included.
        returned: tensors in the result, in order; one that is returned twice is listed once.
        parent: index of the calling call; None for the root.
    """

    frame: Frame
    type: str
    given: tuple[Recorded, ...]
    returned: tuple[Recorded, ...]
    parent: int | None


@dataclass(frozen=True)
class Recording:
    """All module calls of one run of one graph's model.

    Attributes:
        calls: by index.
        feeds: the inputs of the run, as ONNX Runtime takes them.
        modules: paths of all modules that the model has, called or not.
    """

    calls: Sequence[RecordedCall]
    feeds: Mapping[str, np.ndarray]
    modules: frozenset[str]

    def find(self, frames: Sequence[Frame]) -> dict[Frame, RecordedCall]:
        """The recorded call for each of the calls of a file, where there is one.

        By index where all indexes have the path that the file says; else by path and count.
        """
        if all(frame.index < len(self.calls) and self.calls[frame.index].frame == frame for frame in frames):
            return {frame: self.calls[frame.index] for frame in frames}
        by_path: dict[str, list[RecordedCall]] = {}
        for call in self.calls:
            by_path.setdefault(call.frame.path, []).append(call)
        found: dict[Frame, RecordedCall] = {}
        count: dict[str, int] = {}
        for frame in sorted(frames, key=lambda frame: frame.index):
            number = count.get(frame.path, 0)
            count[frame.path] = number + 1
            if number < len(by_path.get(frame.path, ())):
                found[frame] = by_path[frame.path][number]
        return found


@torch.no_grad()
def record(plan: GraphPlan, case: Case, hierarchy: Hierarchy, scratch: Path) -> Recording:
    """Run the patched model on ``case`` and record every module call into the folder ``scratch``, which exists."""
    recorder = _Recorder(hierarchy, scratch)
    with plan.patched(), _eager_attention(), _every_mask(), recorder.hooks():
        plan.model(**case.inputs)
    return Recording(tuple(recorder.finished()), case.feeds, frozenset(hierarchy.infos))


@contextmanager
def _eager_attention() -> Iterator[None]:
    """Undo, within Optimum's patches, the one that only holds while tracing.

    Outside a trace transformers leaves grouped-query attention to torch, and optimum-onnx 0.1.0 drops the argument that
    asks for it (``optimum/exporters/onnx/model_patcher.py``, ``traceable_scaled_dot_product_attention``).
    """
    patched = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = original_scaled_dot_product_attention
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = patched


@contextmanager
def _every_mask() -> Iterator[None]:
    """Make the attention masks that a trace makes.

    Outside a trace transformers 4.57 (``modeling_attn_mask_utils.py``, which BERT as a decoder uses) leaves a mask out
    that masks nothing or that ``is_causal`` stands for; the graph has it, and would seem to get it from nowhere.
    """
    compiling = modeling_attn_mask_utils.is_torchdynamo_compiling
    modeling_attn_mask_utils.is_torchdynamo_compiling = lambda: True
    try:
        yield
    finally:
        modeling_attn_mask_utils.is_torchdynamo_compiling = compiling


class _Recorder:
    def __init__(self, hierarchy: Hierarchy, scratch: Path) -> None:
        self._hierarchy = hierarchy
        self._scratch = scratch
        self._frames: list[Frame] = []
        self._types: list[str] = []
        self._parents: list[int | None] = []
        self._given: list[tuple[Recorded, ...]] = []
        self._returned: dict[int, tuple[Recorded, ...]] = {}
        self._running: list[Frame | None] = []  # None: a module that the hierarchy does not know
        self._last: tuple[torch.Tensor, int, Recorded] | None = None

    @contextmanager
    def hooks(self) -> Iterator[None]:
        before = torch.nn.modules.module.register_module_forward_pre_hook(self._before)
        with_kwargs = [
            module.register_forward_pre_hook(self._given_to, with_kwargs=True, prepend=True)
            for module in self._hierarchy.modules
        ]
        after = torch.nn.modules.module.register_module_forward_hook(self._after)
        try:
            yield
        finally:
            for handle in (before, *with_kwargs, after):
                handle.remove()

    def finished(self) -> Iterator[RecordedCall]:
        for frame, kind, given, parent in zip(self._frames, self._types, self._given, self._parents, strict=True):
            yield RecordedCall(frame, kind, given, self._returned.get(frame.index, ()), parent)

    def _before(self, module: torch.nn.Module, _: tuple[Any, ...]) -> None:
        """Global hook: runs for every module, strangers included, before the module's own hooks."""
        caller = next((frame for frame in reversed(self._running) if frame is not None), None)
        path = self._hierarchy.path_of(module, caller.path if caller else None)
        if path is None:
            self._running.append(None)
            return
        frame = Frame(path, len(self._frames))
        self._running.append(frame)
        self._frames.append(frame)
        self._types.append(type(module).__name__)
        self._parents.append(caller.index if caller else None)
        self._given.append(())

    def _given_to(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = self._running[-1]
        if frame is not None:
            self._given[frame.index] = self._save((args, kwargs), f"{frame.index}-given")

    def _after(self, _: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:
        frame = self._running.pop()
        if frame is not None:
            self._returned[frame.index] = self._save(output, f"{frame.index}-returned")

    def _save(self, structure: Any, prefix: str) -> tuple[Recorded, ...]:
        saved: list[Recorded] = []
        seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
        for tensor in tensors(structure):
            identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if tensor.numel() and identity in seen:
                continue
            seen.add(identity)
            saved.append(self._save_tensor(tensor, self._scratch / f"{prefix}-{len(saved)}.npy"))
        return tuple(saved)

    def _save_tensor(self, tensor: torch.Tensor, file: Path) -> Recorded:
        """Write ``tensor``, unless it is the one that was written last: what one module returns, the next is given."""
        if self._last is not None:
            last, version, recorded = self._last
            if last is tensor and version == tensor._version:
                return recorded
        widened = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.save(file, widened.detach().numpy(), allow_pickle=False)
        recorded = Recorded(file, tuple(tensor.shape), tensor.is_floating_point())
        self._last = (tensor, tensor._version, recorded)
        return recorded


def tensors(structure: Any) -> Iterator[torch.Tensor]:
    """All tensors in arguments or results: in tuples, lists, mappings, dataclasses and KV caches, in order."""
    if isinstance(structure, torch.Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for value in structure.values():
            yield from tensors(value)
    elif isinstance(structure, (tuple, list)):
        for value in structure:
            yield from tensors(value)
    elif isinstance(structure, EncoderDecoderCache):
        yield from tensors((structure.self_attention_cache, structure.cross_attention_cache))
    elif isinstance(structure, Cache):
        for layer in getattr(structure, "layers", ()):
            yield from tensors((getattr(layer, "keys", None), getattr(layer, "values", None)))
    elif is_dataclass(structure) and not isinstance(structure, type):
        for field in fields(structure):
            yield from tensors(getattr(structure, field.name))
