"""What we write in pull requests: title, body and the short comments.

For someone who has never heard of us: what this is, how to try it before merging, how the numbers were checked, how to
make us stop. Names that come out of a repo are quoted so that they stay names (no mentions, no markup, no HTML).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelexport.contract import Graph, Manifest, ModuleNode, ParityResult
from modelexport_bot.marker import Marker, tag
from modelexport_bot.result import PublishedFile

FOLDER = "onnx"
LONGEST = 60_000  # characters; the Hub takes 65,536 in a comment
_TREE_LINES = 120
_TOKENS = "tokens"  # what the manifest calls the output of generated text; its tolerance is none


@dataclass(frozen=True)
class Subject:
    """What a body is about.

    Attributes:
        repo: the repo's id.
        num: number of the pull request; None while it is not known (dry run).
        manifest: of the folder it adds.
        files: all files of the folder, as paths in the repo.
        marker: goes into the body.
        mention: the name commands are addressed to.
        updates: main has an earlier export of ours.
        replaced: files in main's ``onnx/`` that are not ours and that this replaces or removes.
        warnings: what the owner should know before merging.
    """

    repo: str
    num: int | None
    manifest: Manifest
    files: Sequence[PublishedFile]
    marker: Marker
    mention: str
    updates: bool = False
    replaced: Sequence[str] = field(default=())
    warnings: Sequence[str] = field(default=())


def title(subject: Subject) -> str:
    """One line, pinned to the commit that was exported."""
    verb = "Replace" if subject.replaced else "Update" if subject.updates else "Add"
    return f"{verb} ONNX export ({plain(subject.manifest.task)}) of {_short(subject.marker.sha)}"


def body(subject: Subject) -> str:
    """The whole first comment, at most :data:`LONGEST` characters."""
    for lines in (_TREE_LINES, 40, 10, 0):
        text = "\n\n".join(part for part in _parts(subject, lines) if part)
        if len(text) <= LONGEST:
            return text
    return text[:LONGEST]


def placeholder(repo: str, marker: Marker) -> str:
    """The body of a draft that is being filled."""
    return (
        f"An automated ONNX export of `{_code(repo)}` at `{_short(marker.sha)}` is being uploaded; this draft opens "
        f"when every file has been verified. I am a bot.\n\n{marker}"
    )


def updated_comment(before: Marker | None, after: Marker) -> str:
    """What changed, after an update."""
    if before is not None and before.weights != after.weights:
        what = f"the weights changed; this is the export of `{_short(after.sha)}`"
    elif before is not None and before.inputs != after.inputs:
        what = f"configuration or tokenizer files changed; this is the export of `{_short(after.sha)}`"
    elif before is not None and before.options != after.options:
        what = "the export options changed"
    else:
        what = f"this is a fresh export of `{_short(after.sha)}`"
    return f"Updated: {what}. The description above has the new numbers.\n\n{tag('updated', _key(after))}"


def blocked_comment(pushed_by: Iterable[str]) -> str:
    """Somebody else's commits are on our ref; said once."""
    names = ", ".join(f"`{_code(name)}`" for name in sorted(set(pushed_by)))
    return (
        f"There are commits by {names} on this pull request, so I leave it alone from now on and overwrite nothing. "
        "To get automatic updates again, close it: the next change of the weights can then be exported afresh.\n\n"
        f"{tag('blocked')}"
    )


def closing_comment(reason: str, purpose: str) -> str:
    """Why we close our own pull request; ``purpose`` tells later runs (see :mod:`modelexport_bot.pull_request`)."""
    return f"{reason}\n\n{tag(purpose)}"


def invalid_options(problem: str, digest: str) -> str:
    """The repo's options do not fit the schema; said once for each wrong text."""
    return (
        f"I read my options for this repo and stopped, as I would have to guess: {_sentence(problem)}\n\n"
        "Nothing will be exported until this is corrected. The keys and values are described in the documentation of "
        f"modelexport. I am a bot.\n\n{tag('options', digest)}"
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _parts(subject: Subject, tree_lines: int) -> Iterable[str]:
    yield _opening(subject)
    yield from (f"> [!WARNING]\n> {_sentence(warning)}" for warning in subject.warnings)
    yield _snippet(subject)
    yield _files(subject)
    yield _parity(subject.manifest)
    yield _modules(subject.manifest, tree_lines)
    yield _notes(subject.manifest)
    yield _provenance(subject)
    yield _say(subject)
    yield str(subject.marker)


def _opening(subject: Subject) -> str:
    manifest = subject.manifest
    what = f"`{_code(manifest.architecture)}`, exported to ONNX for {plain(manifest.task)}"
    if subject.replaced:
        names = ", ".join(f"`{_code(path)}`" for path in subject.replaced[:20])
        more = f" and {len(subject.replaced) - 20} more" if len(subject.replaced) > 20 else ""
        verb = f"This replaces the folder `{FOLDER}/` ({names}{more}) with a verified export: {what}"
    elif subject.updates:
        verb = f"This brings the folder `{FOLDER}/` up to date with the weights in this repo: {what}"
    else:
        verb = f"This adds a folder `{FOLDER}/`: {what}"
    return (
        f"{verb}, so that the model runs with ONNX Runtime, Optimum and Transformers.js without conversion. Nothing "
        "outside that folder is changed (the Hub may add a line to `.gitattributes` for a large file). I am a bot; "
        "the numbers below were measured on exactly these files before this pull request was opened."
    )


def _snippet(subject: Subject) -> str:
    manifest = subject.manifest
    revision = f"refs/pr/{subject.num}" if subject.num is not None else "refs/pr/N"
    cls = re.sub(r"\W", "", manifest.optimum.model_class)
    names = {tensor.name for graph in manifest.graphs for tensor in graph.inputs}
    has = {file.path.removeprefix(f"{FOLDER}/") for file in subject.files}
    lines = [f"from optimum.onnxruntime import {cls}"]
    where = f'"{subject.repo}", subfolder="{FOLDER}", revision="{revision}"'
    if "preprocessor_config.json" in has and "pixel_values" in names:
        lines += ["from PIL import Image", "from transformers import AutoImageProcessor", ""]
        lines += [f"processor = AutoImageProcessor.from_pretrained({where})"]
        inputs = 'processor(images=Image.new("RGB", (640, 480)), return_tensors="pt")'
    elif "preprocessor_config.json" in has and names & {"input_features", "input_values"}:
        lines += ["import numpy", "from transformers import AutoFeatureExtractor", ""]
        lines += [f"processor = AutoFeatureExtractor.from_pretrained({where})"]
        inputs = 'processor(numpy.zeros(16000, dtype="float32"), sampling_rate=16000, return_tensors="pt")'
    elif any(name.startswith("tokenizer") or name in {"vocab.txt", "vocab.json", "spiece.model"} for name in has):
        lines += ["from transformers import AutoTokenizer", ""]
        lines += [f"tokenizer = AutoTokenizer.from_pretrained({where})"]
        inputs = 'tokenizer("Hello, world!", return_tensors="pt")'
    else:
        lines += [""]
        inputs = ""
    options = ", use_cache=False" if manifest.without_cache else ""
    lines += [f"model = {cls}.from_pretrained({where}{options})"]
    if inputs:
        call = "model.generate(**inputs, max_new_tokens=20)" if manifest.optimum.generates else "model(**inputs)"
        lines += [f"inputs = {inputs}", f"print({call})"]
    code = "\n".join(lines)
    return (
        "### Try it before merging\n\n"
        f"```python\n# pip install optimum-onnx onnxruntime\n{code}\n```\n\n"
        "After the merge, leave out `revision`."
    )


def _files(subject: Subject) -> str:
    rows = [f"| `{_code(file.path)}` | {_size(file.size)} | `{file.sha256[:12]}` |" for file in subject.files]
    return "### Files\n\n| file | size | sha256 |\n|---|---:|---|\n" + "\n".join(rows)


def _parity(manifest: Manifest) -> str:
    by_graph: dict[str, list[ParityResult]] = {}
    texts = [result for result in manifest.parity if result.output == _TOKENS]
    for result in manifest.parity:
        if result.output != _TOKENS:
            by_graph.setdefault(result.graph, []).append(result)
    rows = []
    for graph, results in by_graph.items():
        worst = max(results, key=_share_of_tolerance)
        outputs = len({result.output for result in results})
        cases = len({result.case for result in results})
        rows.append(
            f"| `{_code(graph)}` | {outputs} | {cases} | {worst.max_abs:.1e} (`{_code(worst.output)}`, "
            f"{plain(worst.case)}) | {worst.max_rel:.1e} | {worst.tolerance:.0e} |"
        )
    check = manifest.optimum
    files = ", ".join(f"`{_code(file)}`" for file in check.files)
    return (
        "### How the numbers were checked\n\n"
        "The same inputs went through the original PyTorch model and through ONNX Runtime on CPU, in several shapes "
        "that the export had not seen (batches, short and long, padded); every output was compared, element by "
        "element. A single difference above the tolerance and there would be no pull request.\n\n"
        "| graph | outputs | cases | largest absolute difference | relative | tolerance "
        "|\n|---|---:|---:|---|---:|---:|\n"
        + "\n".join(rows)
        + _generated(texts)
        + "\n\nThen the folder was loaded the way you would, offline, with stock Optimum: "
        f"`{_code(check.model_class)}` read {files} and differed by at most {check.max_abs:.1e} from PyTorch."
    )


def _share_of_tolerance(result: ParityResult) -> float:
    return result.max_abs / result.tolerance if result.tolerance else result.max_abs


def _generated(texts: Sequence[ParityResult]) -> str:
    if not texts:
        return ""
    cases = "\n".join(f"- {plain(result.case)}" for result in texts)
    return f"\n\nBoth also wrote text, greedily, and chose the same tokens:\n\n{cases}"


def _modules(manifest: Manifest, lines: int) -> str:
    if not lines:
        return ""
    trees = []
    for graph in manifest.graphs:
        tree = module_tree(graph, max(4, lines // len(manifest.graphs)))
        traced = f"{graph.nodes} nodes, {graph.traced} traced to their module, {graph.inferred} inferred"
        trees.append(f"`{_code(graph.file)}`: {traced}\n\n```text\n{tree}\n```")
    return (
        "<details><summary>Module tree: every ONNX node says which PyTorch module it came from</summary>\n\n"
        + "\n\n".join(trees)
        + "\n\nThe tags are in each node's `metadata_props`; `modelexport inspect` prints them.\n\n</details>"
    )


def _notes(manifest: Manifest) -> str:
    if not manifest.notes:
        return ""
    return "### Notes\n\n" + "\n".join(f"- {_sentence(note)}" for note in manifest.notes)


def _provenance(subject: Subject) -> str:
    manifest = subject.manifest
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(manifest.versions.items()))
    weights = ", ".join(f"`{_code(file.path)}` (`{file.sha256[:12]}`)" for file in manifest.source.weights[:4])
    more = f" and {len(manifest.source.weights) - 4} more" if len(manifest.source.weights) > 4 else ""
    return (
        "### Provenance\n\n"
        f"Source: this repo at `{plain(subject.marker.sha)}`, weights {weights}{more}. Opset {manifest.opset}, "
        f"{plain(manifest.dtype)}. {versions}. The complete record is `{FOLDER}/modelexport.json`; the same input, "
        "versions and options give the same bytes."
    )


def _say(subject: Subject) -> str:
    name = plain(subject.mention)
    return (
        "### Your say\n\n"
        "- New weights in this repo update this pull request; a second one is never opened.\n"
        "- Closing it means no: I do not come back on these weights.\n"
        "- To decline for good, put `modelexport: {enabled: false}` into the metadata of `README.md`, or comment "
        f"`@{name} ignore`.\n"
        f"- If you have write access: `@{name} rebuild`, `@{name} task=<task>`, `@{name} close`, `@{name} help`."
    )


# --- the module tree -------------------------------------------------------------------------------------------------


@dataclass
class _Branch:
    name: str
    type: str = ""
    nodes: int = 0
    children: dict[str, "_Branch"] = field(default_factory=dict)

    def total(self) -> int:
        return self.nodes + sum(child.total() for child in self.children.values())

    def shape(self) -> object:
        """Equal for modules of the same build, so that the layers of a stack fold into one line."""
        return (self.type, tuple((name, child.shape()) for name, child in self.children.items()))


def module_tree(graph: Graph, lines: int) -> str:
    """The modules that own nodes, as an indented tree of at most so many lines; equal list members share one."""
    root = _plant(graph.modules)
    drawn = list(_draw(root, ""))
    if len(drawn) > lines:
        left_out = len(drawn) - lines + 1
        drawn = [*drawn[: lines - 1], f"… {left_out} more lines in {FOLDER}/modelexport.json"]
    return "\n".join(drawn).replace("```", "'''")


def _plant(modules: Iterable[ModuleNode]) -> _Branch:
    root = _Branch("")
    for module in modules:
        branch = root
        for part in filter(None, module.path.split(".")):
            branch = branch.children.setdefault(part, _Branch(part))
        branch.type, branch.nodes = plain(module.type), module.nodes
    return root


def _draw(branch: _Branch, indent: str) -> Iterable[str]:
    label = f"{branch.name} ({branch.type})" if branch.name and branch.type else branch.name or branch.type or "model"
    yield f"{indent}{plain(label)}  {branch.total()}"
    yield from _draw_children(branch, indent + "  ")


def _draw_children(branch: _Branch, indent: str) -> Iterable[str]:
    folded: dict[object, list[_Branch]] = {}
    for child in branch.children.values():
        key = child.shape() if child.name.isdigit() else (child.name,)
        folded.setdefault(key, []).append(child)
    for group in folded.values():
        first = group[0]
        if len(group) == 1:
            yield from _draw(first, indent)
            continue
        kinds = Counter(child.type for child in group)
        label = f"{first.name}…{group[-1].name} ({len(group)} × {kinds.most_common(1)[0][0] or 'module'})"
        yield f"{indent}{plain(label)}  {sum(child.total() for child in group)}"
        yield from _draw_children(first, indent + "  ")


# --- words -----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text of somebody else's without markup, mentions or line breaks."""
    return re.sub(r"[`<>|\[\]@*\r\n]", "", text)[:500]


def _code(text: str) -> str:
    """Text that can stand between backticks, in a table too."""
    return _unmentioned(re.sub(r"[`|<>\r\n]", "", text)[:200])


def _sentence(text: str) -> str:
    """A sentence of ours that may quote a repo: backticks stay, what could become HTML or a mention does not."""
    return _unmentioned(re.sub(r"[<>\r\n]", " ", text)[:2000])


def _unmentioned(text: str) -> str:
    """The same to the eye, with an invisible space after each @, so that nobody is called."""
    return text.replace("@", "@\u200b")


def _short(sha: str) -> str:
    return plain(sha)[:7]


def _size(size: int) -> str:
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"


def _key(marker: Marker) -> str:
    return f"{marker.inputs[:12]}-{marker.options[:12]}"
