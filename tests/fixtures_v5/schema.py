"""What the configs of transformers 5 hold and what its models read, for every model type that Optimum exports.

``python -m tests.fixtures_v5.schema [TYPES]`` with transformers 5; TYPES is a JSON list of model types, those of the
last time without it. Writes ``schema.json``: for each type the default config as saved, and the names that its
modelling code reads from a config.
"""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

OUT = Path(__file__).parent / "schema.json"
_IRRELEVANT = {"id2label", "label2id", "transformers_version", "architectures", "dtype", "_name_or_path", "model_type"}


def main(model_types: list[str]) -> None:
    """Write the schema; types that transformers 5 no longer has are left out."""
    lines = []
    for model_type in sorted(set(model_types) & set(CONFIG_MAPPING.keys())):
        config_class = CONFIG_MAPPING[model_type]
        entry = {"written": _written(config_class), "read": _read(config_class)}
        lines.append(f"{json.dumps(model_type)}: {json.dumps(entry, separators=(',', ':'), sort_keys=True)}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _written(config_class: Any) -> dict[str, Any]:
    def relevant(values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if key not in _IRRELEVANT - {"model_type"}}
        return {key: relevant(value) if isinstance(value, dict) else value for key, value in kept.items()}

    written = relevant(json.loads(config_class().to_json_string()))
    written.pop("model_type", None)
    return written


def _read(config_class: Any) -> list[str]:
    configuration = Path(inspect.getfile(config_class))
    modelling = configuration.with_name(configuration.name.replace("configuration_", "modeling_", 1))
    source = modelling.read_text(encoding="utf-8") if modelling.is_file() else ""
    names = set(re.findall(r"config\.(\w+)", source))
    names |= set(re.findall(r'(?:get|has)attr\(\s*[\w.]*config,\s*"(\w+)"', source))
    aliases = set(config_class.attribute_map)
    return sorted(name for name in names - aliases if not name.startswith("_") and not _computed(config_class, name))


def _computed(config_class: Any, name: str) -> bool:
    """Whether the name is a method or a property, so a function of what is written."""
    attribute = inspect.getattr_static(config_class, name, None)
    return isinstance(attribute, property) or callable(attribute)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else list(json.loads(OUT.read_text())))
