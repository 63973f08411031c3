"""The Python code that a repo defines its model with: read, judged and hashed here, never run.

``auto_map`` in ``config.json`` says which class stands for which Auto class (``"AutoModel": "modeling_x.MyModel"``).
The files that it names and those that they import from beside themselves are all there is; what was read is what is
run, byte for byte. Each name is a plain module name at the top of the folder: no other repo (``org/name--file.Class``),
no folders, no ``..``.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelexport.checkpoint.folder import Folder
from modelexport.contract.errors import CustomCodeError

_REFERENCE = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_IMPORT_BY_TEXT = re.compile(r"^\s*(?:import|from)\s+\.(\S+)", re.MULTILINE)
"""How transformers finds relative imports (``dynamic_module_utils.get_relative_imports``), in comments and strings too;
it copies the files of those names."""

_MAX_BYTES = 4 << 20
"""Of one file; the longest modelling files of transformers itself have 0.3 MB."""


@dataclass(frozen=True)
class CodeFile:
    """One file of code: its name, sha256, and bytes."""

    name: str
    sha256: str
    content: bytes


@dataclass(frozen=True)
class CustomCode:
    """The code that defines a model.

    Attributes:
        auto_map: class reference (``modeling_x.MyModel``) by Auto class, of the config and the models only.
        files: the files that are run, by name.
    """

    auto_map: Mapping[str, str]
    files: tuple[CodeFile, ...]

    def auto_classes(self, architectures: tuple[str, ...]) -> tuple[str, ...]:
        """The Auto classes that the code defines models for; those of ``architectures`` only, if there are any."""
        models = {name: reference.rpartition(".")[2] for name, reference in self.auto_map.items()}
        models.pop("AutoConfig", None)
        return tuple(name for name, made in models.items() if made in architectures) or tuple(models)

    @property
    def note(self) -> str:
        """What the manifest says about it."""
        files = ", ".join(f"{file.name} (sha256 {file.sha256})" for file in self.files)
        return f"The model is code of the repo, which was run because the operator allowed it: {files}."


def models_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``auto_map`` for models. Those for tokenizers and processors are never used."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return {}
    return {name: value for name, value in auto_map.items() if name.startswith("AutoModel")}


def read_custom_code(folder: Folder, config: Mapping[str, Any]) -> CustomCode | None:
    """The code that ``config`` names; None where it names no model class.

    Raises:
        CustomCodeError: a name leads elsewhere, or a file is missing or is not Python.
        UnsafePathError: a file is a link that leads out of the folder.
    """
    auto_map = models_of(config)
    if not auto_map:
        return None
    if own_config := config["auto_map"].get("AutoConfig"):
        auto_map["AutoConfig"] = own_config
    waiting = [_module_of(name, value) for name, value in auto_map.items()]
    files: dict[str, CodeFile] = {}
    while waiting:
        name = f"{waiting.pop()}.py"
        if name not in files:
            files[name] = _read(folder, name)
            waiting += _imports(files[name])
    return CustomCode(auto_map, tuple(files[name] for name in sorted(files)))


def _module_of(auto_class: str, reference: Any) -> str:
    if isinstance(reference, str) and "--" in reference:
        raise CustomCodeError(
            f"auto_map in config.json takes {auto_class} from another repo ({reference}). Only code in the repo itself "
            "is run, because that is what the operator allowed. Copy the file into the repo and name it there."
        )
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise CustomCodeError(
            f"auto_map in config.json names {reference!r} for {auto_class}, which is not a class in a file at the top "
            "of the repo (modeling_x.MyModel). Correct the entry."
        )
    return match[1]


def _read(folder: Folder, name: str) -> CodeFile:
    try:
        path = folder.path(name)
    except FileNotFoundError:
        raise CustomCodeError(
            f"The model needs the code file {name}, which the folder does not have. Upload it, or correct auto_map in "
            "config.json."
        ) from None
    if path.stat().st_size > _MAX_BYTES:
        raise CustomCodeError(f"{name} is larger than {_MAX_BYTES >> 20} MB, which no modelling code is.")
    content = path.read_bytes()
    return CodeFile(name, hashlib.sha256(content).hexdigest(), content)


def _imports(file: CodeFile) -> list[str]:
    """The modules beside it that a file imports."""
    try:
        text = file.content.decode("utf-8")
        found = [*_by_syntax(ast.parse(text)), *_IMPORT_BY_TEXT.findall(text)]
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise CustomCodeError(f"{file.name} is not Python ({str(error)[:120]}). Correct the file.") from error
    for module in found:
        if not _MODULE.fullmatch(module):
            raise CustomCodeError(
                f"{file.name} imports '.{module}', which is not a file beside it. Code is run from the top of the repo "
                "only; put the file there."
            )
    return found


def _by_syntax(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            dots = "." * (node.level - 1)
            if node.module:
                yield dots + node.module
            else:
                yield from (dots + alias.name for alias in node.names)
