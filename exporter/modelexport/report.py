"""Show the hierarchy of an ONNX file: the module tree with what each module owns.

Reads tags only, so it works on any file that carries them, whoever rewrote it since.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
from rich.tree import Tree

from modelexport.contract.errors import FolderInvalidError, NoTagsError
from modelexport.htp.tags import Origin, Tag, all_nodes


@dataclass
class Branch:
    """One module of the tree.

    Attributes:
        path: dotted path; ``""`` for the root.
        label: class name where it is known from a tag, else the last part of the path.
        own: nodes that belong to this very module.
        nodes: nodes of this module and everything below it.
        nbytes: bytes of the initialisers that those nodes read, each counted at its first reader.
    """

    path: str
    label: str
    own: int = 0
    nodes: int = 0
    nbytes: int = 0
    children: dict[str, "Branch"] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "path": self.path,
            "type": self.label,
            "own_nodes": self.own,
            "nodes": self.nodes,
            "bytes": self.nbytes,
            "children": [child.to_dict() for child in self.children.values()],
        }


@dataclass(frozen=True)
class Hierarchy:
    """What ``modelexport inspect`` knows of one file."""

    file: str
    root: Branch
    nodes: int
    traced: int
    inferred: int
    untagged: int

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        counts = {"nodes": self.nodes, "traced": self.traced, "inferred": self.inferred, "untagged": self.untagged}
        return {"file": self.file, **counts, "tree": self.root.to_dict()}


def read(path: Path) -> Hierarchy:
    """The hierarchy in the tags of an ONNX file. Weights stay on disk.

    Raises:
        FolderInvalidError: not an ONNX file.
        NoTagsError: no node carries a tag.
    """
    try:
        model = ir.load(path)
    except Exception as error:
        raise FolderInvalidError(f"{path} is not an ONNX file that can be read: {error}") from error
    tags = [(node, Tag.read(node)) for node in all_nodes(model)]
    tagged = [(node, tag) for node, tag in tags if tag is not None]
    if not tagged:
        raise NoTagsError(
            f"No node of {path} says which module it came from: the file was not exported by modelexport, or another tool "
            "removed the tags (onnxslim and ONNX Runtime's optimiser do). Export it again with `modelexport export`."
        )
    origins = Counter(tag.origin for _, tag in tagged)
    return Hierarchy(
        file=path.name,
        root=_tree(tagged),
        nodes=len(tags),
        traced=origins[Origin.TRACED],
        inferred=origins[Origin.INFERRED],
        untagged=len(tags) - len(tagged),
    )


def _tree(tagged: Iterable[tuple[ir.Node, Tag]]) -> Branch:
    root = Branch("", "")
    counted: set[ir.Value] = set()
    for node, tag in tagged:
        weights = {value for value in node.inputs if value is not None and value.is_initializer()} - counted
        counted |= weights
        size = sum(value.const_value.nbytes for value in weights if value.const_value is not None)
        branch = root
        for name in ("", *(tag.module.split(".") if tag.module else ())):
            if name:
                path = f"{branch.path}.{name}" if branch.path else name
                branch = branch.children.setdefault(name, Branch(path, name))
            branch.nodes += 1
            branch.nbytes += size
        branch.own += 1
    root.label = next(iter(tagged))[1].hierarchy.strip("/").partition("/")[0]
    return root


def rich_tree(hierarchy: Hierarchy, depth: int | None = None) -> Tree:
    """The tree for a terminal, down to ``depth`` levels below the root."""
    counts = f"{hierarchy.nodes} nodes, {hierarchy.traced} traced, {hierarchy.inferred} inferred"
    if hierarchy.untagged:
        counts += f", [red]{hierarchy.untagged} without tag[/]"
    tree = Tree(f"[bold]{hierarchy.root.label}[/] [dim]{hierarchy.file}: {counts}")
    _grow(tree, hierarchy.root, depth)
    return tree


def _grow(tree: Tree, branch: Branch, depth: int | None) -> None:
    if depth is not None and depth <= 0:
        return
    for child in branch.children.values():
        size = f", {child.nbytes / 1e6:.1f} MB" if child.nbytes >= 50_000 else ""
        limb = tree.add(f"{child.label} [dim]{child.nodes} nodes{size}", highlight=False)
        _grow(limb, child, None if depth is None else depth - 1)
