"""Rotary position embeddings: one ``rope_parameters`` in transformers 5, several fields in 4.57.

5.x keeps everything in ``rope_parameters``: flat, or nested by layer type. 4.57 reads

* the base from ``rope_theta`` (GPT-NeoX: ``rotary_emb_base``),
* the rotated share of a head from ``partial_rotary_factor`` (GPT-NeoX: ``rotary_pct``),
* everything else from ``rope_scaling``, which is None for the default type,
* and, per layer type, from ``rope_local_base_freq`` (Gemma 3) or ``global_rope_theta`` and ``local_rope_theta``
  (ModernBERT).

The formulas are the same (``modeling_rope_utils.py`` of 4.57.6 and 5.23.0 compared) but for these:

1. longrope: 4.57 takes the length at which it switches from the config's top level, and derives the attention factor
   from it; 5.x takes both from ``rope_parameters``. The length is written to the top level and the attention factor
   spelled out.
2. yarn: a missing ``factor`` is derived by 5.x from the two lengths; it is written out.
3. Phi-3 and OLMo of 4.57 accept only the keys of their first release.

``rope_parameters`` itself stays in the config: 4.57 does not read it and 5.x does.
"""

import math
from collections.abc import Mapping
from typing import Any

from modelexport.bridge.section import Section, modelling_source

_YARN = {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
_KEYS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset(_YARN | {"original_max_position_embeddings"}),
    "longrope": frozenset(
        {"short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"}
    ),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}
"""The types that 4.57 computes as 5.x does, and the keys that each reads."""

_COMMON = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})


def length_limit(config: Mapping[str, Any]) -> int | None:
    """The sequence length up to which a traced graph rotates as the model does, None where there is no limit.

    The types dynamic and longrope change their frequencies for longer sequences, by a branch in Python
    (``dynamic_rope_update``): a trace keeps the side that its short input took.
    """
    parameters = config.get("rope_scaling") or config.get("rope_parameters")
    found: list[int] = []
    if isinstance(parameters, Mapping):
        longest = config.get("max_position_embeddings")
        original = config.get("original_max_position_embeddings", parameters.get("original_max_position_embeddings"))
        limit = {"dynamic": longest, "longrope": original or longest}.get(_type(parameters))
        found += [limit] if isinstance(limit, int) else []
    parts = (
        length_limit(value) for key, value in config.items() if key.endswith("_config") and isinstance(value, Mapping)
    )
    found += [limit for limit in parts if limit is not None]
    return min(found, default=None)


def translate_rope(section: Section) -> None:
    """Write what 4.57 reads for the section's ``rope_parameters``.

    Raises:
        CheckpointTooNewError: 4.57 cannot rotate in that way.
    """
    parameters = section.values.get("rope_scaling") or section.values.get("rope_parameters")
    if not isinstance(parameters, dict):
        if parameters is not None:
            section.stop("rope_parameters", "it is not an object")
        return
    nested = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    if not nested:
        _flat(section, parameters)
    elif section.declares("rope_local_base_freq"):
        _flat(section, _layer(section, nested, "full_attention"))
        section.values["rope_local_base_freq"] = _default_theta(section, nested, "sliding_attention")
    elif section.declares("global_rope_theta"):
        section.values["global_rope_theta"] = _default_theta(section, nested, "full_attention")
        section.values["local_rope_theta"] = _default_theta(section, nested, "sliding_attention")
    else:
        section.stop("rope_parameters", f"{section.model_type} has one rotation for all layers there")


def _layer(section: Section, nested: Mapping[str, Mapping[str, Any]], layer_type: str) -> Mapping[str, Any]:
    if unknown := sorted(set(nested) - {"full_attention", "sliding_attention"}):
        section.stop(f"rope_parameters.{unknown[0]}", "the layer type is unknown there")
    if layer_type not in nested:
        section.stop(f"rope_parameters.{layer_type}", "it is missing, and the default there may be another")
    return nested[layer_type]


def _default_theta(section: Section, nested: Mapping[str, Mapping[str, Any]], layer_type: str) -> float:
    """The base of layers for which 4.57 has no other setting."""
    parameters = _layer(section, nested, layer_type)
    if _type(parameters) != "default" or parameters.get("partial_rotary_factor", 1.0) != 1.0:
        section.stop(f"rope_parameters.{layer_type}", "layers of this type rotate in the default way there")
    return _theta(section, parameters, f"rope_parameters.{layer_type}.rope_theta")


def _flat(section: Section, parameters: Mapping[str, Any]) -> None:
    values, kind = section.values, _type(parameters)
    known = _KEYS.get(kind)
    if known is None:
        section.stop("rope_parameters.rope_type", f"{kind!r} is unknown there")
    scaling = {key: value for key, value in parameters.items() if key not in _COMMON and value is not None}
    if kind == "default":
        scaling = {}
    for key in scaling:
        if key not in known:
            section.stop(f"rope_parameters.{key}", f"the type {kind!r} does not read it there")
    values["rotary_emb_base" if section.declares("rotary_emb_base") else "rope_theta"] = _theta(section, parameters)
    _partial(section, parameters)
    if kind == "default":
        values["rope_scaling"] = None
        return
    if "rope_scaling" not in modelling_source(section.config_class):
        section.stop("rope_parameters.rope_type", f"{section.model_type} knows only the default rotation there")
    if kind == "longrope":
        _longrope(section, scaling)
    if kind == "yarn" and "factor" not in scaling:
        scaling["factor"] = values["max_position_embeddings"] / scaling["original_max_position_embeddings"]
    values["rope_scaling"] = {"rope_type": kind, **_first_release(section, kind, scaling)}
    if "type" in values["rope_scaling"]:
        del values["rope_scaling"]["rope_type"]


def _type(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type", parameters.get("type", "default")))


def _theta(section: Section, parameters: Mapping[str, Any], key: str = "rope_parameters.rope_theta") -> float:
    theta = parameters.get("rope_theta", section.values.get("rope_theta"))
    if not isinstance(theta, int | float) or isinstance(theta, bool):
        section.stop(key, "it is missing, and the default there may be another")
    return theta


def _partial(section: Section, parameters: Mapping[str, Any]) -> None:
    share = parameters.get("partial_rotary_factor", section.values.get("partial_rotary_factor"))
    for field in ("rotary_pct", "partial_rotary_factor"):
        if section.declares(field):
            section.values[field] = 1.0 if share is None else share
            return
    if share is not None and share != 1.0:
        section.stop("rope_parameters.partial_rotary_factor", f"{section.model_type} rotates whole heads there")


def _longrope(section: Section, scaling: dict[str, Any]) -> None:
    """Rule 1 of the module."""
    values = section.values
    original = scaling.get("original_max_position_embeddings", values.get("original_max_position_embeddings"))
    longest = values.get("max_position_embeddings")
    if not isinstance(original, int) or not isinstance(longest, int) or original < 2:
        section.stop("rope_parameters.original_max_position_embeddings", "it is missing or not a length")
    scaling.setdefault("attention_factor", _attention_factor(scaling.get("factor", longest / original), original))
    values["original_max_position_embeddings"] = original


def _attention_factor(factor: float, original: int) -> float:
    return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))


def _first_release(section: Section, kind: str, scaling: dict[str, Any]) -> dict[str, Any]:
    """Rule 3 of the module: the exact keys that ``_rope_scaling_validation`` of Phi-3 and OLMo asks for."""
    if not hasattr(section.config_class, "_rope_scaling_validation"):
        return scaling
    if section.model_type == "phi3" and kind == "longrope":
        original = section.values["original_max_position_embeddings"]
        implied = _attention_factor(section.values["max_position_embeddings"] / original, original)
        if not math.isclose(scaling["attention_factor"], implied, rel_tol=1e-9):
            section.stop("rope_parameters.attention_factor", "phi3 derives it from the two lengths there")
        return {"type": kind, "short_factor": scaling["short_factor"], "long_factor": scaling["long_factor"]}
    if section.model_type == "phi3" or kind not in ("linear", "dynamic"):
        section.stop("rope_parameters.rope_type", f"{section.model_type} does not accept {kind!r} there")
    return {"type": kind, "factor": float(scaling["factor"])}
