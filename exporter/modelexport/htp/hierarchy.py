"""The module tree of a PyTorch model, and the one tag of every module in it.

A *tag* is a path of class names from the root. The rules, in order:

1. A module contributes its class name, except leaves that come from ``torch.nn`` (``Linear``, ``LayerNorm``, ...): they
   are told apart by their dotted path, and their tag is that of the module around them.
2. ``ModuleList`` and ``ModuleDict`` are never called, so they contribute nothing; their entries carry the key:
   ``BertLayer.0``.
3. Siblings that would still read alike carry the whole attribute path from their parent:
   ``BartAttention.self_attn`` and ``BartAttention.encoder_attn``.

So two different modules never share a tag, ``torch.nn`` leaves excepted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import nn

_UNCALLED_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class ModuleInfo:
    """A module at one of the paths under which the model holds it."""

    path: str
    type: str
    tag: str


class Hierarchy:
    """Paths, classes and tags of all modules of ``model``.

    A module object that the model holds under several names (tied embeddings, one activation used in many places)
    has several paths; :meth:`path_of` picks the one that fits the place from which it is called.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[nn.Module, list[str]] = {}
        self._modules: dict[str, nn.Module] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(module, []).append(path)
            self._modules[path] = module

    def __contains__(self, module: nn.Module) -> bool:
        return module in self._paths

    def __iter__(self) -> Iterator[ModuleInfo]:
        return iter(self.infos.values())

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every module once."""
        return tuple(self._paths)

    def path_of(self, module: nn.Module, caller: str | None = None) -> str | None:
        """Dotted path of ``module`` as seen from the module at path ``caller``; None for a stranger.

        Of several paths, the one inside the caller wins, else the first under which the model registered it.
        """
        paths = self._paths.get(module)
        if paths is None:
            return None
        if caller is not None and len(paths) > 1:
            inside = [path for path in paths if path.startswith(f"{caller}." if caller else "")]
            if inside:
                return min(inside, key=lambda path: (path.count("."), paths.index(path)))
        return paths[0]

    @cached_property
    def infos(self) -> dict[str, ModuleInfo]:
        """Every path of the model with its class and tag."""
        tags: dict[str, str] = {}
        children: dict[str, list[str]] = {}
        for path in self._modules:
            if path and not isinstance(self._modules[path], _UNCALLED_CONTAINERS):
                children.setdefault(self._parent(path), []).append(path)
        root = next(iter(self._modules))
        tags[root] = "/" + _class_name(self._modules[root])
        for path in self._modules:  # parents come before their children
            for child, label in self._labels(path, children.get(path, ())):
                tags[child] = f"{tags[path]}/{label}" if label else tags[path]
        return {path: ModuleInfo(path, _class_name(self._modules[path]), tag) for path, tag in tags.items()}

    def _parent(self, path: str) -> str:
        """The nearest ancestor that can be called."""
        parent = path
        while True:
            parent = parent.rpartition(".")[0]
            if not isinstance(self._modules[parent], _UNCALLED_CONTAINERS):
                return parent

    def _labels(self, parent: str, children: list[str] | tuple[()]) -> Iterator[tuple[str, str]]:
        labels: dict[str, str] = {}
        for child in children:
            module = self._modules[child]
            if _is_torch_leaf(module):
                yield child, ""
                continue
            relative = child[len(parent) + 1 :] if parent else child
            key = relative.partition(".")[2]  # what follows the list's own name; empty for a plain attribute
            labels[child] = f"{_class_name(module)}.{key}" if key else _class_name(module)
        count = Counter(labels.values())
        for child, label in labels.items():
            relative = child[len(parent) + 1 :] if parent else child
            yield child, label if count[label] == 1 else f"{_class_name(self._modules[child])}.{relative}"


def _class_name(module: nn.Module) -> str:
    return type(module).__name__


def _is_torch_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn") and next(module.children(), None) is None
