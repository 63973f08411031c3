"""Secrets in hand: a token that does not print itself, and a filter that keeps tokens out of what we show."""

import re
from typing import NoReturn


class Token:
    """An access token. It prints as ``***`` and cannot be pickled, so it cannot slip into a log or a job record."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value.strip()

    def reveal(self) -> str:
        """The token itself, for an ``Authorization`` header and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return "Token(***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("A token is not to be stored.")


_LOOKS_LIKE_A_TOKEN = re.compile(
    r"""
    \bhf_[A-Za-z0-9_.\-]{8,}            # Hub: user, organisation, OAuth and JWT tokens
    | \b(?:gh[pousr]|github_pat)_\w{8,}  # GitHub
    | \beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*  # any JWT
    | (?i:(?<=bearer\ )|(?<=authorization:\ ))\S{8,}
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)   # user:password in a URL
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """The text with ``***`` in place of everything that looks like a token."""
    return _LOOKS_LIKE_A_TOKEN.sub("***", text)
