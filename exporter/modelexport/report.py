"""Show the module tree of an ONNX file in a terminal."""

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from modelexport.module_tree import Module, ModuleTree


def show(tree: ModuleTree, path: str = "", depth: int | None = None) -> None:
    """Print the tree below the module at ``path``, down to ``depth`` levels.

    Raises:
        UsageError: no such module.
    """
    Console(highlight=False).print(rich_tree(tree, path, depth))


def rich_tree(tree: ModuleTree, path: str = "", depth: int | None = None) -> Tree:
    """What :func:`show` prints."""
    module = tree.at(path)
    counts = f"{tree.nodes} nodes, {tree.traced} traced, {tree.inferred} inferred"
    head = Text.assemble((module.type or module.name, "bold"), " ", (f"{tree.file}: {counts}", "dim"))
    if tree.untagged:
        head.append(f", {tree.untagged} without tag", style="red")
    if path:
        head.append(f"; {path}: {_numbers(module)}", style="dim")
    trunk = Tree(head)
    _grow(trunk, module, depth)
    return trunk


def _grow(limb: Tree, module: Module, depth: int | None) -> None:
    if depth is not None and depth <= 0:
        return
    for child in module.children.values():
        label = Text(child.name)
        if child.type:
            label.append(f" {child.type}", style="cyan")
        label.append(f" {_numbers(child)}", style="dim")
        _grow(limb.add(label), child, None if depth is None else depth - 1)


def _numbers(module: Module) -> str:
    parts = [f"{module.nodes} node{'s' if module.nodes != 1 else ''}"]
    if module.parameters:
        parts.append(f"{si(module.parameters)} parameters")
    if module.nbytes >= 1000:
        parts.append(f"{si(module.nbytes)}B")
    return ", ".join(parts)


def si(number: float) -> str:
    """``12.3 M``: three digits and an SI prefix; a number below 1000 as it is."""
    for prefix in ("", "k", "M", "G"):
        if abs(number) < 999.5 or prefix == "G":
            return f"{number:.0f} {prefix}".rstrip() if prefix == "" else f"{number:.3g} {prefix}"
        number /= 1000
    raise AssertionError("unreachable")
