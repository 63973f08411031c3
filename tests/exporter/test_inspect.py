"""``modelexport inspect``: the tree in the tags, as text, JSON and a web page."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import onnx_ir as ir
import pytest
from rich.console import Console
from typer.testing import CliRunner

from modelexport import module_tree, report, report_html, weights
from modelexport.cli import app
from modelexport.contract.errors import UsageError
from modelexport.htp.tags import all_nodes
from tests.exporter.htp_models import MODELS, exported

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def text(file: Path, path: str = "", depth: int | None = None) -> str:
    console = Console(width=200, record=True)
    with console.capture() as capture:
        console.print(report.rich_tree(module_tree.read(file), path, depth))
    return capture.get()


def test_the_tree_counts_nodes_parameters_and_bytes(exported_bert: Path) -> None:
    tree = module_tree.read(exported_bert / "model.onnx")
    query = tree.at("encoder.layer.0.attention.self.query")
    assert (query.type, query.own_nodes, query.parameters, query.nbytes) == (
        "Linear",
        2,
        32 * 32 + 32,
        4 * (32 * 32 + 32),
    )
    assert tree.root.nodes == tree.nodes == len(list(all_nodes(ir.load(exported_bert / "model.onnx"))))
    assert (tree.traced, tree.inferred, tree.untagged) == (tree.nodes, 0, 0)


@pytest.mark.parametrize("name", MODELS)
def test_parts_add_up_to_the_whole(name: str) -> None:
    for file in exported(name).files.values():
        tree = module_tree.read(file)
        for module in tree.root.walk():
            children = module.children.values()
            assert module.nodes == module.own_nodes + sum(child.nodes for child in children)
            assert module.nbytes >= sum(child.nbytes for child in children)
        sizes = [value.const_value.nbytes for value in ir.load(file).graph.initializers.values() if value.const_value]
        assert 0.9 * sum(sizes) <= tree.root.nbytes <= sum(sizes)


def test_parameters_are_those_of_pytorch() -> None:
    counted = sum(tensor.numel() for tensor in exported("vit").model.parameters())
    assert module_tree.read(exported("vit").file).root.parameters == counted


def test_classes_are_known_without_a_manifest() -> None:
    tree = module_tree.read(exported("bert").file)
    assert tree.root.type == "BertModel"
    assert tree.at("encoder.layer.1").type == "BertLayer"
    assert tree.at("encoder.layer").type == ""


def test_depth_and_module_narrow_the_tree(exported_bert: Path) -> None:
    file = exported_bert / "model.onnx"
    assert "query" in text(file)
    assert "query" not in text(file, depth=2)
    below = text(file, "encoder.layer.1", depth=1)
    assert below.startswith("BertLayer")
    assert "attention" in below
    assert "embeddings" not in below


def test_an_unknown_module_is_met_with_what_there_is(exported_bert: Path) -> None:
    with pytest.raises(UsageError, match=r"encoder\.layer has: 0, 1\."):
        module_tree.read(exported_bert / "model.onnx").at("encoder.layer.2")


def test_of_several_files_those_without_the_module_are_left_out() -> None:
    trees = [module_tree.read(file) for file in exported("bart").files.values()]
    assert [tree.file for tree in module_tree.holding(trees, "model.decoder")] == ["decoder_model_merged.onnx"]
    with pytest.raises(UsageError, match="None of"):
        module_tree.holding(trees, "model.middle")


def test_json_is_the_same_tree(exported_bert: Path) -> None:
    result = CliRunner().invoke(
        app, ["inspect", str(exported_bert), "--json", "--module", "encoder.layer.0", "--depth", "1"]
    )
    assert result.exit_code == 0
    (graph,) = json.loads(result.stdout)
    assert graph["tree"]["path"] == "encoder.layer.0"
    first = graph["tree"]["children"][0]
    assert (first["path"], first["children"]) == ("encoder.layer.0.attention", [])


def test_weights_in_a_sidecar_are_counted_and_not_read(tmp_path: Path) -> None:
    weights.write(exported("bert").load(), tmp_path / "model.onnx", limit=1000)
    sizes = module_tree.read(tmp_path / "model.onnx").root.nbytes
    (tmp_path / "model.onnx_data").unlink()
    assert module_tree.read(tmp_path / "model.onnx").root.nbytes == sizes > 0


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (23_400, "23.4 k"), (999_600, "1 M"), (2.5e9, "2.5 G"), (7e12, "7e+03 G")],
)
def test_sizes_are_short(number: float, words: str) -> None:
    assert report.si(number) == words


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_anywhere(exported_bert: Path) -> None:
    page = report_html.page([module_tree.read(exported_bert / "model.onnx")])
    head = page[: page.index("<script>")] + page[page.index("</head>") :]
    assert "default-src 'none'" in head
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", head)


def test_a_module_of_any_name_is_only_text() -> None:
    module = module_tree.Module("</script><b>", "</script><b>", "<i>")
    page = report_html.page([module_tree.ModuleTree("<u>.onnx", module, 1, 1, 0, 0)])
    assert "</script><b>" not in page
    assert "<u>.onnx" not in page


def browse(page: Path, tmp_path: Path, *options: str) -> str:
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *flags, profile, "--virtual-time-budget=8000", *options, f"file://{page}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_draws_it_and_switches_what_the_boxes_show(exported_bert: Path, tmp_path: Path) -> None:
    page = tmp_path / "tree.html"
    report_html.write([module_tree.read(exported_bert / "model.onnx")], page)
    drawn = boxes(browse(page, tmp_path, "--dump-dom"))
    assert len(drawn) > 20
    click = 'addEventListener("load", () => document.querySelector("[data-measure=parameters]").click());'
    page.write_text(page.read_text().replace("const figures =", f"{click}\nconst figures ="))
    switched = boxes(browse(page, tmp_path, "--dump-dom"))
    assert len(switched) > 20
    assert switched != drawn


def boxes(document: str) -> list[str]:
    """The outlines of the boxes that were drawn."""
    return re.findall(r'<path class="surface" d="([^"]+)"', document)
