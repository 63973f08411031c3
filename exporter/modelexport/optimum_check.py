"""Load the folder the way a user would: ``ORTModelForX.from_pretrained(folder)``, offline, stock Optimum.

``from_pretrained`` exports silently when it finds no ONNX file, and picks one by name when it finds several; so the
files that its sessions really opened are compared with ours.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from modelexport.contract.errors import OptimumLoadFailedError
from modelexport.parity.session import session_options
from modelexport.plan import DECODER, DECODER_MERGED, DECODER_WITH_PAST

_SESSION_HOLDERS = ("session", "encoder", "decoder", "decoder_with_past", "vision_encoder", "text_encoder")


def load(folder: Path, model_class: type, files: frozenset[str]) -> Any:
    """An ORTModel of ``model_class`` from ``folder``.

    Args:
        files: names of the ``.onnx`` files of which Optimum must have opened at least one, and no other.

    Raises:
        OptimumLoadFailedError: it did not load, or loaded something else.
    """
    options = session_options()
    arguments: dict[str, Any] = {"local_files_only": True, "session_options": options, "trust_remote_code": False}
    if f"{DECODER}.onnx" in files and not files & {f"{DECODER_MERGED}.onnx", f"{DECODER_WITH_PAST}.onnx"}:
        arguments["use_cache"] = False
    try:
        with _quiet():
            model = model_class.from_pretrained(folder, **arguments)  # type: ignore[attr-defined]
            if hasattr(model, "generate") and not model.can_use_cache and "use_cache" not in arguments:
                model = model_class.from_pretrained(folder, **arguments, use_cache=False)  # type: ignore[attr-defined]
    except Exception as error:
        raise OptimumLoadFailedError(
            f"{model_class.__name__}.from_pretrained failed on {folder}: {type(error).__name__}: {_first_line(error)} "
            "The folder would be useless to Optimum's users."
        ) from error
    opened = {path.resolve() for path in loaded_files(model)}
    ours = {(folder / name).resolve() for name in files}
    if not opened or not opened <= ours:
        names = ", ".join(sorted(path.name for path in opened)) or "nothing"
        raise OptimumLoadFailedError(
            f"{model_class.__name__} loaded {names} instead of {', '.join(sorted(files))}: it exported the model "
            "again or picked another file."
        )
    return model


def loaded_files(model: Any) -> set[Path]:
    """The ONNX files that the sessions of an ORTModel opened."""
    return {Path(session._model_path) for session in sessions(model).values()}


def sessions(model: Any) -> dict[str, onnxruntime.InferenceSession]:
    """The sessions of an ORTModel by the stem of the file they opened."""
    found: dict[str, onnxruntime.InferenceSession] = {}
    for name in _SESSION_HOLDERS:
        part = getattr(model, name, None)
        session = part if isinstance(part, onnxruntime.InferenceSession) else getattr(part, "session", None)
        if isinstance(session, onnxruntime.InferenceSession):
            found[Path(session._model_path).stem] = session
    return found


def forward(model: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call an ORTModel with tensors, as a user does, and return its outputs by name.

    Raises:
        OptimumLoadFailedError: it loaded, but cannot be called.
    """
    try:
        with _quiet(), torch.no_grad():
            outputs = model(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    except Exception as error:
        raise OptimumLoadFailedError(
            f"{type(model).__name__} loads the folder but fails when it is called with {', '.join(feeds)}: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    return {name: np.asarray(value) for name, value in outputs.items() if isinstance(value, (torch.Tensor, np.ndarray))}


def generate(model: Any, inputs: Mapping[str, np.ndarray]) -> None:
    """Let an ORTModel generate a few tokens.

    Raises:
        OptimumLoadFailedError: it loaded, but cannot generate.
    """
    try:
        with _quiet():
            model.generate(**{name: torch.from_numpy(value) for name, value in inputs.items()}, max_new_tokens=3)
    except Exception as error:
        raise OptimumLoadFailedError(
            f"{type(model).__name__} loads the folder but cannot generate text: {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error


def forbid_network() -> None:
    """Make any connection attempt of this process fail from now on; for a process that ends after the check."""

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise ConnectionRefusedError("the Optimum check runs offline")

    sys.addaudithook(refuse)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optimum and transformers warn about things that are right here; what is wrong becomes an error above."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
