"""The module tree of an ONNX file: what each module owns in nodes, parameters and bytes.

Reads tags only, so it works on any file that carries them, whoever rewrote it since. How the tree is shown is the
business of :mod:`modelexport.report` (terminal) and :mod:`modelexport.report_html`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelexport import folder
from modelexport.contract.errors import FolderInvalidError, NoTagsError, UsageError
from modelexport.htp.tags import Origin, Tag, all_nodes


@dataclass
class Module:
    """One module of the tree.

    Attributes:
        path: dotted path; ``""`` for the root.
        name: the last part of the path; the class for the root.
        type: class name; ``""`` where neither the manifest nor a tag tells.
        own_nodes: nodes that belong to this very module.
        nodes: nodes of this module and of everything below it.
        parameters: numbers in the floating-point initialisers that those nodes read, each counted at its first reader;
            constants, which our files name after the node that reads them (``/…``), do not count.
        nbytes: bytes of all initialisers that those nodes read, counted alike.
    """

    path: str
    name: str
    type: str = ""
    own_nodes: int = 0
    nodes: int = 0
    parameters: int = 0
    nbytes: int = 0
    children: dict[str, "Module"] = field(default_factory=dict)

    def walk(self) -> Iterator["Module"]:
        """Yield this module and all below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def to_dict(self, depth: int | None = None) -> dict[str, Any]:
        """For ``--json``, down to ``depth`` levels below this module."""
        below = None if depth is None else depth - 1
        return {
            "path": self.path,
            "type": self.type,
            "own_nodes": self.own_nodes,
            "nodes": self.nodes,
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "children": [] if depth == 0 else [child.to_dict(below) for child in self.children.values()],
        }


@dataclass(frozen=True)
class ModuleTree:
    """What is known of one file."""

    file: str
    root: Module
    nodes: int
    traced: int
    inferred: int
    untagged: int

    def at(self, path: str) -> Module:
        """The module at ``path``.

        Raises:
            UsageError: it owns no node, nor does anything below it; the message names what is near.
        """
        module = self.root
        for part in path.split(".") if path else ():
            if part not in module.children:
                where = f"{module.path} has" if module.path else "The root has"
                known = ", ".join(module.children) or "no parts"
                raise UsageError(f"{self.file} has no nodes of a module {path!r}. {where}: {known}.")
            module = module.children[part]
        return module

    def to_dict(self, path: str = "", depth: int | None = None) -> dict[str, Any]:
        """For ``--json``: the counts of the file and the tree below ``path``."""
        counts = {"nodes": self.nodes, "traced": self.traced, "inferred": self.inferred, "untagged": self.untagged}
        return {"file": self.file, **counts, "tree": self.at(path).to_dict(depth)}


def holding(trees: Sequence[ModuleTree], path: str) -> list[ModuleTree]:
    """Those of ``trees`` that have a module at ``path``.

    Raises:
        UsageError: none has.
    """
    found = []
    for tree in trees:
        try:
            tree.at(path)
        except UsageError:
            if len(trees) == 1:
                raise
            continue
        found.append(tree)
    if not found:
        raise UsageError(f"None of {', '.join(tree.file for tree in trees)} has nodes of a module {path!r}.")
    return found


def read(path: Path) -> ModuleTree:
    """The tree in the tags of an ONNX file. Weights stay on disk; a manifest beside the file names the classes.

    Raises:
        FolderInvalidError: not an ONNX file.
        NoTagsError: no node carries a tag.
    """
    model = load(path)
    manifest = folder.manifest(path.parent)
    types = {
        module.path: module.type
        for graph in (manifest.graphs if manifest else ())
        for module in graph.modules
        if graph.file == path.name
    }
    return build(model, path.name, types)


def load(path: Path) -> ir.Model:
    """An ONNX file with tags, its weights left on disk.

    Raises:
        FolderInvalidError: not an ONNX file.
        NoTagsError: no node carries a tag.
    """
    try:
        model = ir.load(path)
    except Exception as error:
        raise FolderInvalidError(f"{path} is not an ONNX file that can be read: {error}") from error
    if not any(Tag.read(node) for node in all_nodes(model)):
        raise NoTagsError(
            f"No node of {path} says which module it came from: the file was not exported by modelexport, or another "
            "tool removed the tags (onnxslim and ONNX Runtime's optimiser do). Export again with `modelexport export`."
        )
    return model


def build(model: ir.Model, file: str, types: Mapping[str, str]) -> ModuleTree:
    """The tree of ``model``, which has tags.

    Args:
        model: the graph.
        file: its name, for the report.
        types: class of each module, by path, where known.
    """
    tags = [(node, Tag.read(node)) for node in all_nodes(model)]
    tagged = [(node, tag) for node, tag in tags if tag is not None]
    origins = Counter(tag.origin for _, tag in tagged)
    return ModuleTree(
        file=file,
        root=_tree(tagged, {**_types(tag for _, tag in tagged), **types}),
        nodes=len(tags),
        traced=origins[Origin.TRACED],
        inferred=origins[Origin.INFERRED],
        untagged=len(tags) - len(tagged),
    )


def _tree(tagged: Iterable[tuple[ir.Node, Tag]], types: Mapping[str, str]) -> Module:
    root = Module("", types.get("", "model"), types.get("", ""))
    counted: set[ir.Value] = set()
    for node, tag in tagged:
        weights = {value for value in node.inputs if value is not None and value.is_initializer()} - counted
        counted |= weights
        tensors = [(str(value.name), value.const_value) for value in weights if value.const_value is not None]
        parameters = sum(t.size for name, t in tensors if t.dtype.is_floating_point() and not name.startswith("/"))
        size = sum(tensor.nbytes for _, tensor in tensors)
        module = root
        for name in ("", *(tag.module.split(".") if tag.module else ())):
            if name:
                path = f"{module.path}.{name}" if module.path else name
                module = module.children.setdefault(name, Module(path, name, types.get(path, "")))
            module.nodes += 1
            module.parameters += parameters
            module.nbytes += size
        module.own_nodes += 1
    return root


def _types(tags: Iterable[Tag]) -> dict[str, str]:
    """Classes as the tags tell them: each called module but a ``torch.nn`` leaf contributes one part to a tag.

    That holds for stacks which lead from the root of the model down to the module; others say nothing here.
    """
    types: dict[str, str] = {}
    for tag in set(tags):
        parts = tag.hierarchy.strip("/").split("/")
        paths = [frame.path for frame in tag.stack]
        nested = all(inner.startswith(f"{outer}." if outer else "") for outer, inner in pairwise(paths))
        if paths and paths[0] == "" and nested and len(paths) - 1 <= len(parts) <= len(paths):
            types.update(zip(paths, (part.partition(".")[0] for part in parts), strict=False))
    types.setdefault("", next((tag.hierarchy.strip("/").partition("/")[0] for tag in tags), ""))
    return types
