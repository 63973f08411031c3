"""Which paths a commit may contain."""

from .errors import HubError

MAX_LENGTH = 4096


def check_path(path: str) -> str:
    """The path itself. Raises 422 when git, Windows or a careless client would take it for something else."""
    segments = path.split("/")
    bad = (
        any(segment in ("", ".", "..") or segment.lower() == ".git" for segment in segments)
        or any(character in path for character in "\\\0\n\r")
        or len(path) > MAX_LENGTH
    )
    if bad:
        raise HubError(422, f"Invalid path: {path!r}")
    return path
