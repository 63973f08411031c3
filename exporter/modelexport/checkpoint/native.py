"""Which classes the installed transformers has, found without importing it.

``models/auto/*_auto.py`` map model types to class names as literals, so the syntax tree tells what an import of several
seconds would. Where transformers is not installed (the light command line) nothing is known and nothing is refused.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def is_native_model_type(model_type: str) -> bool | None:
    """Whether transformers has a config class for the model type; None where transformers is not installed."""
    names = _strings("configuration_auto")
    return None if names is None else model_type in names


def is_native_model_class(name: str) -> bool | None:
    """Whether transformers has a model class of that name; None where transformers is not installed."""
    names = _strings("modeling_auto")
    return None if names is None else name in names


def model_type_of(architecture: str) -> str | None:
    """The model type that a model class belongs to, None where no class of that name or more than one type has it."""
    types = {model_type for model_type, name in _pairs("modeling_auto") if name == architecture}
    return types.pop() if len(types) == 1 else None


@cache
def _tree(module: str) -> ast.Module | None:
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "models" / "auto" / f"{module}.py"
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None


@cache
def _strings(module: str) -> frozenset[str] | None:
    tree = _tree(module)
    if tree is None:
        return None
    return frozenset(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))


@cache
def _pairs(module: str) -> frozenset[tuple[str, str]]:
    """Every ``("model_type", "ClassName")`` literal of the module."""
    tree = _tree(module)
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            key, value = node.elts
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                found.add((str(key.value), str(value.value)))
    return frozenset(found)
