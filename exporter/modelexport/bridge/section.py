"""One config, or one sub-config of it, on its way from transformers 5 to 4.57."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from modelexport.contract.errors import CheckpointTooNewError


@dataclass
class Section:
    """A mutable copy of one config dictionary and the class that 4.57 reads it with.

    Attributes:
        values: what is written in the end.
        config_class: the class of transformers 4.57, a subclass of ``PretrainedConfig``.
        path: ``""`` for the root, ``text_config.`` for a sub-config; prefix of keys in messages.
        notes: shared by all sections of a checkpoint.
        ties: shared; parameters that must be tied by hand, target to source.
    """

    values: dict[str, Any]
    config_class: Any
    path: str = ""
    notes: list[str] = field(default_factory=list)
    ties: dict[str, str] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        return str(self.values.get("model_type") or self.config_class.model_type)

    def sections(self) -> "Iterator[Section]":
        """The section itself and every sub-config below it."""
        yield self
        for key, value in self.values.items():
            if isinstance(value, dict) and (sub_class := _sub_config_class(self.config_class, key, value)):
                yield from Section(value, sub_class, f"{self.path}{key}.", self.notes, self.ties).sections()

    def declares(self, key: str) -> bool:
        """Whether 4.57's class takes ``key`` as an argument of its own."""
        return key in _parameters(self.config_class)

    def reads(self, key: str) -> bool:
        """Whether 4.57 reads ``key``: the class takes or sets it, or its modelling code mentions it."""
        return (
            self.declares(key)
            or key in _base_keys()
            or key in _attributes(self.config_class)
            or key in self.config_class.attribute_map
            or key in _mentions(self.config_class)
        )

    def is_sub_config(self, key: str) -> bool:
        value = self.values.get(key)
        return isinstance(value, dict) and _sub_config_class(self.config_class, key, value) is not None

    def stop(self, key: str, why: str) -> NoReturn:
        """End the export because of one key."""
        raise CheckpointTooNewError(
            f"The checkpoint was saved by transformers 5, and {self.path}{key} in its config.json has no equivalent "
            f"in transformers 4.57, which Optimum's ONNX export needs: {why}. The exported model would compute "
            "something else, so nothing was exported. Wait for an Optimum release that supports transformers 5."
        )


def root_class(model_type: str) -> type[PretrainedConfig] | None:
    """4.57's config class of a model type, None where it has none."""
    return CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401 - it has no get


def _sub_config_class(
    owner: type[PretrainedConfig], key: str, value: Mapping[str, Any]
) -> type[PretrainedConfig] | None:
    declared = owner.sub_configs if isinstance(owner.sub_configs, Mapping) else {}
    found = declared.get(key)
    if found is not None and found not in (AutoConfig, PretrainedConfig):
        return found
    return root_class(str(value.get("model_type", "")))


@cache
def _parameters(config_class: Any) -> frozenset[str]:
    names: set[str] = set()
    for cls in _classes(config_class):
        if "__init__" in cls.__dict__:
            names.update(inspect.signature(cls.__dict__["__init__"]).parameters)
    return frozenset(names - {"self", "args", "kwargs"})


@cache
def _attributes(config_class: Any) -> frozenset[str]:
    """What an instance made of defaults has; composite classes that have no defaults contribute nothing."""
    try:
        return frozenset(vars(config_class()))
    except (ValueError, TypeError):
        return frozenset()


@cache
def _base_keys() -> frozenset[str]:
    """What :class:`PretrainedConfig` itself takes, sets or pops from its keyword arguments."""
    popped = re.findall(r'kwargs\.pop\("(\w+)"', inspect.getsource(PretrainedConfig.__init__))
    return frozenset(PretrainedConfig().to_dict()) | frozenset(popped) | _own_parameters()


def _own_parameters() -> frozenset[str]:
    return frozenset(inspect.signature(PretrainedConfig.__init__).parameters) - {"self", "kwargs"}


@cache
def _mentions(config_class: Any) -> frozenset[str]:
    """Names that the class pops from its arguments, and that the modelling code beside it reads from a config."""
    source = "".join(inspect.getsource(cls) for cls in _classes(config_class))
    names = set(re.findall(r'kwargs\.(?:pop|get)\(\s*"(\w+)"', source))
    if modelling := modelling_source(config_class):
        names.update(re.findall(r"config\.(\w+)", modelling))
        names.update(re.findall(r'(?:get|has)attr\(\s*[\w.]*config,\s*"(\w+)"', modelling))
    return frozenset(names)


@cache
def modelling_source(config_class: Any) -> str:
    """The source of the ``modeling_*.py`` beside a config class, empty where there is none."""
    configuration = Path(inspect.getfile(config_class))
    path = configuration.with_name(configuration.name.replace("configuration_", "modeling_", 1))
    return path.read_text(encoding="utf-8") if path.is_file() and path != configuration else ""


def _classes(config_class: Any) -> list[type]:
    return [cls for cls in config_class.__mro__ if issubclass(cls, PretrainedConfig) and cls is not PretrainedConfig]
