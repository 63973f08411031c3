"""The module tree of ONNX files as one web page: an icicle per file, sized by nodes, parameters or bytes.

The page holds plotly.js itself and loads nothing: its own Content-Security-Policy forbids it to.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelexport.contract.errors import EngineMissingError
from modelexport.module_tree import Module, ModuleTree
from modelexport.report import si

_MEASURES = {"nodes": "nodes", "parameters": "parameters", "nbytes": "bytes"}
_LEVELS = 7  # shown at once; a click on a module goes deeper
_COLOURS = (
    "#a6cee3",
    "#b2df8a",
    "#fdbf6f",
    "#cab2d6",
    "#fb9a99",
    "#9ad7cf",
    "#e6c9a8",
    "#d9d98c",
    "#f4b6d2",
    "#b7c3d0",
)

_LAYOUT = {
    "margin": {"l": 0, "r": 0, "t": 8, "b": 0},
    "font": {"family": "system-ui, sans-serif", "color": "#1b1f24"},
    "uniformtext": {"minsize": 10, "mode": "hide"},
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 0; }}
p {{ margin: 0; color: #57606a; }}
nav {{ margin: 1rem 0; }}
button {{ font: inherit; padding: .25rem .9rem; border: 1px solid #d0d7de; background: #f6f8fa; cursor: pointer; }}
button[aria-pressed=true] {{ background: #0b5cad; border-color: #0b5cad; color: #fff; }}
.icicle {{ height: {height}px; }}
</style>
<script>{plotly}</script>
</head>
<body>
<h1>{title}</h1>
<p>Each box is a PyTorch module, its parts to the right of it. Click a module to enlarge it, its parent to go back.</p>
<nav aria-label="Size of the boxes">{buttons}</nav>
{sections}
<script>
const figures = {figures};
const layout = {layout};
figures.forEach((figure, index) =>
  Plotly.newPlot("icicle-" + index, [figure.trace], layout, {{displayModeBar: false, responsive: true}}));
document.querySelectorAll("nav button").forEach(button => button.addEventListener("click", () => {{
  document.querySelectorAll("nav button").forEach(other => other.setAttribute("aria-pressed", other === button));
  figures.forEach((figure, index) =>
    Plotly.restyle("icicle-" + index, {{values: [figure.values[button.dataset.measure]]}}));
}}));
</script>
</body>
</html>
"""


def page(trees: Sequence[ModuleTree], path: str = "") -> str:
    """The page for ``trees``, each below the module at ``path``.

    Raises:
        EngineMissingError: the ``report`` extra is not installed.
        UsageError: no such module.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise EngineMissingError(
            'The page needs plotly, which is not installed. Install it with: pip install "modelexport[report]"'
        ) from error
    modules = [tree.at(path) for tree in trees]
    sections = "\n".join(_section(index, tree) for index, tree in enumerate(trees))
    title = modules[0].type or modules[0].name
    return _PAGE.format(
        title=html.escape(title),
        height=640 if len(trees) == 1 else 480,
        plotly=get_plotlyjs(),
        buttons="".join(
            f'<button type="button" data-measure="{key}" aria-pressed="{str(key == "nodes").lower()}">{label}</button>'
            for key, label in _MEASURES.items()
        ),
        sections=sections,
        figures=json.dumps([_figure(module) for module in modules]).replace("</", "<\\/"),
        layout=json.dumps(_LAYOUT),
    )


def write(trees: Sequence[ModuleTree], file: Path, path: str = "") -> None:
    """Write :func:`page` to ``file``."""
    file.write_text(page(trees, path), encoding="utf-8")


def _section(index: int, tree: ModuleTree) -> str:
    counts = f"{tree.nodes:,} nodes, {tree.traced:,} traced, {tree.inferred:,} inferred"
    if tree.untagged:
        counts += f", {tree.untagged:,} without tag"
    return f'<h2>{html.escape(tree.file)}</h2>\n<p>{counts}</p>\n<div class="icicle" id="icicle-{index}"></div>'


def _figure(root: Module) -> dict[str, Any]:
    modules = list(root.walk())
    values = {key: [getattr(module, key) for module in modules] for key in _MEASURES}
    parents = {child.path: module.path for module in modules for child in module.children.values()}
    trace = {
        "type": "icicle",
        "ids": [module.path or "/" for module in modules],
        "labels": [html.escape(module.name) for module in modules],
        "parents": ["" if module is root else parents[module.path] or "/" for module in modules],
        "values": values["nodes"],
        "branchvalues": "total",
        "maxdepth": _LEVELS,
        "text": [html.escape(module.type if module.type != module.name else "") for module in modules],
        "marker": {"colors": _colours(modules), "line": {"width": 0}},
        "leaf": {"opacity": 1},
        "textinfo": "label+text",
        "hovertemplate": "%{customdata}<extra></extra>",
        "customdata": [_hover(module) for module in modules],
        "tiling": {"orientation": "h", "pad": 1},
        "pathbar": {"visible": True},
        "sort": False,
    }
    return {"trace": trace, "values": values}


def _colours(modules: Sequence[Module]) -> list[str]:
    """One colour for each class, in the order in which they appear; grey for lists and for what has no known class."""
    classes = dict.fromkeys(module.type for module in modules[1:] if module.type)
    colour = {kind: _COLOURS[index % len(_COLOURS)] for index, kind in enumerate(classes)}
    return ["#e3e7ec", *(colour.get(module.type, "#e3e7ec") for module in modules[1:])]


def _hover(module: Module) -> str:
    head = f"<b>{html.escape(module.path or module.name)}</b>"
    kind = f"<br>{html.escape(module.type)}" if module.type else ""
    own = f" ({module.own_nodes:,} its own)" if module.children else ""
    return f"{head}{kind}<br>{module.nodes:,} nodes{own}<br>{si(module.parameters)} parameters<br>{si(module.nbytes)}B"
