"""The classes that code of the repo defines: imported by transformers' own loader, in a process without network."""

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, dynamic_module_utils
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from modelexport import confinement
from modelexport.bridge import Prepared
from modelexport.bridge.preparing import CODE
from modelexport.checkpoint import CustomCode
from modelexport.contract.errors import ConfigInvalidError, CustomCodeError, TaskUnknownError
from modelexport.task import auto_classes

_BOOKKEEPING = frozenset({"_name_or_path", "auto_map", "architectures", "model_type", "transformers_version"})


def load_config(prepared: Prepared, native: PretrainedConfig) -> PretrainedConfig:
    """The config in the repo's class, or ``native`` where the repo has none of its own.

    Raises:
        CustomCodeError: the code fails, or reads ``config.json`` otherwise than transformers does, so that who loads
            the exported folder without the code would get another config.
        ConfigInvalidError: the class rejects a value.
    """
    code = prepared.custom_code
    if code is None or "AutoConfig" not in code.auto_map:
        return native
    config_class = _class(prepared, code, "AutoConfig")
    try:
        config: PretrainedConfig = config_class.from_pretrained(prepared.folder, local_files_only=True)
    except Exception as error:  # whatever the code raises
        raise ConfigInvalidError(f"The repo's {config_class.__name__} rejects config.json: {_brief(error)}") from error
    theirs, own = config.to_dict(), native.to_dict()
    differing = [key for key in own if key not in _BOOKKEEPING and theirs.get(key) != own[key]]
    if differing:
        key = differing[0]
        raise CustomCodeError(
            f"The repo's {config_class.__name__} takes {key} to be {theirs.get(key)!r} and transformers' "
            f"{type(native).__name__} takes it to be {own[key]!r}, so the exported folder would mean something else to "
            "who loads it without the code. Write the value into config.json."
        )
    return config


def model_class(prepared: Prepared, task: str) -> type[PreTrainedModel]:
    """The class that the repo has for a task.

    Raises:
        TaskUnknownError: it has none. transformers may have, but that would be another model.
        CustomCodeError: the code fails, or the class is not a transformers model.
    """
    code = prepared.custom_code
    assert code is not None
    name = next((name for name in auto_classes(task) if name in code.auto_map), None)
    if name is None:
        raise TaskUnknownError(
            f"The code of the repo has no {' or '.join(auto_classes(task))}, which the task {task!r} needs; it has "
            f"{', '.join(sorted(set(code.auto_map) - {'AutoConfig'}))}. Choose another task."
        )
    found = _class(prepared, code, name)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise CustomCodeError(
            f"{code.auto_map[name]} of the repo is not a subclass of transformers' PreTrainedModel, so nobody knows "
            "how to load its weights. Make it one."
        )
    return found


def _class(prepared: Prepared, code: CustomCode, auto_class: str) -> Any:
    confinement.require()
    dynamic_module_utils.HF_MODULES_CACHE = str(Path(prepared.folder) / f"{CODE}_cache")
    try:
        return get_class_from_dynamic_module(code.auto_map[auto_class], prepared.folder / CODE, local_files_only=True)
    except Exception as error:  # whatever the code raises
        raise CustomCodeError(f"The code of the repo cannot be imported: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    line = (str(error).strip() or "no message").splitlines()[0][:300]
    return f"{type(error).__name__}: {line}"
