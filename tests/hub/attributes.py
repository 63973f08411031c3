"""Decides whether a file is stored with LFS: by `.gitattributes`, by size, or because it is binary."""

import re
from functools import lru_cache

MAX_REGULAR = 10 * 1024 * 1024
SAMPLE = 512

LFS_PATTERNS = (
    "*.7z",
    "*.arrow",
    "*.bin",
    "*.bz2",
    "*.ckpt",
    "*.ftz",
    "*.gz",
    "*.h5",
    "*.joblib",
    "*.lfs.*",
    "*.mlmodel",
    "*.model",
    "*.msgpack",
    "*.npy",
    "*.npz",
    "*.onnx",
    "*.ot",
    "*.parquet",
    "*.pb",
    "*.pickle",
    "*.pkl",
    "*.pt",
    "*.pth",
    "*.rar",
    "*.safetensors",
    "saved_model/**/*",
    "*.tar.*",
    "*.tar",
    "*.tflite",
    "*.tgz",
    "*.wasm",
    "*.xz",
    "*.zip",
    "*.zst",
    "*tfevents*",
)


def lfs_line(pattern: str) -> str:
    return f"{pattern.replace(' ', '[[:space:]]')} filter=lfs diff=lfs merge=lfs -text\n"


DEFAULT_GITATTRIBUTES = "".join(lfs_line(pattern) for pattern in LFS_PATTERNS).encode()


def is_binary(sample: bytes) -> bool:
    """Whether the first bytes of a file look binary: a NUL, or too much that no text encoding would hold."""
    sample = sample[:SAMPLE]
    if b"\0" in sample:
        return True
    try:
        sample.decode("utf-8")
        return False
    except UnicodeDecodeError as error:
        if len(sample) == SAMPLE and error.start >= SAMPLE - 3:  # a character cut by the end of the sample
            return False
    odd = sum(byte > 126 or (byte < 32 and byte not in b"\t\n\r\f\b\x1b") for byte in sample)
    return odd > 0.3 * len(sample)


@lru_cache(maxsize=512)
def _rules(gitattributes: bytes) -> list[tuple[re.Pattern[str], bool]]:
    rules = []
    for line in gitattributes.decode("utf-8", "replace").splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", "[attr]")):
            continue
        filters = [word for word in words[1:] if word.lstrip("-!").split("=")[0] == "filter"]
        if filters:
            rules.append((_glob(words[0]), filters[-1] == "filter=lfs"))
    return rules


def _glob(pattern: str) -> re.Pattern[str]:
    """A .gitattributes pattern as a regular expression over whole paths; without a slash it matches the file name."""
    pattern = pattern.replace("[[:space:]]", " ")
    anchored = "/" in pattern
    out, i = "", 0
    pattern = pattern.removeprefix("/")
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif pattern[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif pattern[i] == "?":
            out, i = out + "[^/]", i + 1
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    return re.compile(out if anchored else f"(?:.*/)?{out}")


def tracked_by_lfs(path: str, gitattributes: bytes) -> bool:
    """What `.gitattributes` says about a path; the last matching line wins, as in git."""
    tracked = False
    for pattern, is_lfs in _rules(gitattributes):
        if pattern.fullmatch(path):
            tracked = is_lfs
    return tracked


def upload_mode(path: str, size: int, sample: bytes, gitattributes: bytes) -> str:
    """`lfs` or `regular`. An empty file is always regular: the storage refuses empty objects."""
    if size == 0:
        return "regular"
    if tracked_by_lfs(path, gitattributes) or size > MAX_REGULAR or is_binary(sample):
        return "lfs"
    return "regular"
