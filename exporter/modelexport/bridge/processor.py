"""Processor files of transformers 5 for readers that know only the older layout.

5.x may keep the image processor or feature extractor inside ``processor_config.json`` and write no
``preprocessor_config.json``. transformers 4.57 reads both; older releases of Optimum and transformers.js read only the
latter. The part is therefore also written there; ``processor_config.json`` stays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport.checkpoint.folder import Folder
from modelexport.contract.errors import ConfigInvalidError

_WHOLE, _PART = "processor_config.json", "preprocessor_config.json"


def translate_processor(root: Path) -> Mapping[str, Any] | None:
    """The content of a new ``preprocessor_config.json``, None where none is needed or none is to be had.

    Raises:
        ConfigInvalidError: ``processor_config.json`` is not JSON.
    """
    folder = Folder(root)
    if folder.has(_PART) or not folder.has(_WHOLE):
        return None
    whole = folder.json(_WHOLE, ConfigInvalidError)
    parts = [whole[key] for key in ("image_processor", "feature_extractor") if isinstance(whole.get(key), dict)]
    if len(parts) != 1:  # none, or images and sound: the older layout has room for one
        return None
    part = dict(parts[0])
    if "processor_class" in whole:
        part.setdefault("processor_class", whole["processor_class"])
    return part
