"""Hidden notes to ourselves in what we post: HTML comments that the Hub does not show.

The Hub is the only memory of a pull request's state. The *marker* in its body says which export the body describes; a
*tag* in a comment says what the comment was for, so that nothing is said twice. Only what our own account wrote is ever
read back: anyone could type the same.
"""

import re

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA = 1

_MARKER = re.compile(r"<!-- modelexport:marker (\{.*?\}) -->")


class Marker(BaseModel):
    """Which export a pull request's body describes.

    Attributes:
        sha: commit of the source.
        weights, inputs: digests of the source's weight files, and of all files that the export reads.
        options: digest of the export options.
        replaces: the pull request replaces an ``onnx/`` folder that is not ours.
        complete: False while the draft is being filled.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = SCHEMA
    sha: str
    weights: str
    inputs: str
    options: str
    replaces: bool = False
    complete: bool = False

    def __str__(self) -> str:
        return f"<!-- modelexport:marker {self.model_dump_json()} -->"


def read(text: str) -> Marker | None:
    """The marker in a text; None if there is none or it is of a later schema."""
    match = _MARKER.search(text)
    if match is None:
        return None
    try:
        marker = Marker.model_validate_json(match.group(1))
    except ValidationError:
        return None
    return marker if marker.schema_version <= SCHEMA else None


def tag(purpose: str, key: str = "-") -> str:
    """A tag for a comment: its purpose, and what distinguishes two comments of one purpose."""
    return f"<!-- modelexport:{purpose} {key} -->"


def tagged(text: str, purpose: str, key: str | None = None) -> bool:
    """Whether a text carries this tag; without a key, any of this purpose."""
    return (f"<!-- modelexport:{purpose} " if key is None else tag(purpose, key)) in text


def key_of(text: str, purpose: str) -> str | None:
    """The key of the tag of this purpose in a text; None without one."""
    match = re.search(rf"<!-- modelexport:{re.escape(purpose)} (\S+) -->", text)
    return match.group(1) if match else None


def is_automatic(text: str) -> bool:
    """Whether a text of our account was written by us, and not by the person whose account it is."""
    return "<!-- modelexport:" in text
