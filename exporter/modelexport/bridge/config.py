"""Translate ``config.json``: every key is known to mean the same, is translated, or stops the export."""

import copy
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelexport.bridge.rules import DEFAULTS, NEUTRAL, NO_EFFECT, REVIEWED, TRANSLATIONS
from modelexport.bridge.section import Section, root_class

_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


@dataclass(frozen=True)
class Translated:
    """A config that 4.57 reads as 5.x reads the original.

    Attributes:
        config: the original where ``changed`` is false.
        changed: whether anything was written that the original does not hold.
        notes: one sentence each.
        ties: parameters to tie by hand after loading, target to source.
    """

    config: Mapping[str, Any]
    changed: bool = False
    notes: tuple[str, ...] = ()
    ties: Mapping[str, str] | None = None


def is_from_5(config: Mapping[str, Any]) -> bool:
    """Whether transformers 5 wrote a config: by the version it names, or by a key that 4.57 does not write."""
    version = _version(config)
    return (version is not None and version >= (4, 58)) or any("rope_parameters" in part for part in _parts(config))


def translate(config: Mapping[str, Any], model_type: str) -> Translated:
    """Translate a config that transformers 5 saved.

    Raises:
        CheckpointTooNewError: a key has no equivalent in 4.57; the message names it.
    """
    config_class = root_class(model_type)
    if config_class is None:
        return Translated(config)  # loading it says so, with the reason
    values = _decode_floats(copy.deepcopy(dict(config)))
    root = Section(values, config_class)
    for section in list(root.sections()):
        _check(section, _version(config))
        _apply(section)
    changed = values != config
    return Translated(values if changed else config, changed, tuple(dict.fromkeys(root.notes)), root.ties)


def _check(section: Section, version: tuple[int, int] | None) -> None:
    """Account for every key of a section."""
    translated: set[str] = set()
    for translation in TRANSLATIONS:
        if translation.applies(section):
            translated |= {translation.key, *translation.beside}
    unread: list[str] = []
    for key, value in section.values.items():
        if key in translated or key in NO_EFFECT or key in ("model_type", "transformers_version", "auto_map"):
            continue
        if section.reads(key) or section.is_sub_config(key):
            continue
        rule = NEUTRAL.get(key)
        if rule is not None and (rule.model_types is None or section.model_type in rule.model_types):
            if not rule.accepts(value, section):
                section.stop(key, f"it is {value!r}, and {section.model_type} has {rule.always} there")
        elif version is None or version > REVIEWED:
            section.stop(key, "it is unknown there, and the release that wrote it may read it")
        else:
            unread.append(key)
    if unread:
        section.notes.append(
            f"{section.path or 'config.json'} holds keys that no release of transformers reads: "
            f"{', '.join(sorted(unread))}."
        )


def _apply(section: Section) -> None:
    for (model_type, key), value in DEFAULTS.items():
        if section.model_type == model_type:
            section.values.setdefault(key, value)
    for translation in TRANSLATIONS:
        if translation.applies(section):
            before = copy.deepcopy(section.values)
            translation.rewrite(section)
            if section.values != before:
                section.notes.append(f"{section.path or 'config.json: '}{translation.note}.")


def _parts(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _version(config: Mapping[str, Any]) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", str(config.get("transformers_version", "")))
    return (int(match[1]), int(match[2])) if match else None


def _decode_floats(value: Any) -> Any:
    """``{"__float__": "Infinity"}`` as 5.x writes it (``PreTrainedConfig._encode_special_floats``) to the float."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in _FLOATS:
            return _FLOATS[value["__float__"]]
        return {key: _decode_floats(item) for key, item in value.items()}
    return [_decode_floats(item) for item in value] if isinstance(value, list) else value
