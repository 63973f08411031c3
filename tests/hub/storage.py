"""The object storage beside the Hub: its own origin, signed URLs, and no idea of users.

Served on a second port, so that clients see another host and drop the Authorization header, as they do with the
Hub's CDN. PUT stores an object or one part of it; GET serves an object, whole or a range.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from .errors import HubError, StorageError
from .lfs import LfsObjects
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
BLOCK = 1 << 20


class Signer:
    """Signs `method path` until a moment. Raising the epoch makes every URL given out so far invalid."""

    def __init__(self, secret_file: Path):
        if not secret_file.exists():
            secret_file.write_text(secrets.token_hex(32))
        self.secret = secret_file.read_text().encode()
        self.epoch = 0

    def sign(self, method: str, path: str, lifetime: float) -> str:
        expires = f"{time.time() + lifetime:.3f}"
        return f"{path}?expires={expires}&sig={self._signature(method, path, expires)}"

    def check(self, method: str, call: Call) -> None:
        """Raises `StorageError` 403 for a signature that is missing, wrong, or past its time."""
        expires, signature = call.text("expires") or "", call.text("sig") or ""
        if not hmac.compare_digest(signature, self._signature(method, call.raw_path, expires)):
            raise StorageError(403, "The request signature we calculated does not match.", "SignatureDoesNotMatch")
        if float(expires) < time.time():
            raise StorageError(403, "Request has expired", "AccessDenied")

    def expire_all(self) -> None:
        self.epoch += 1

    def _signature(self, method: str, path: str, expires: str) -> str:
        message = f"{self.epoch} {method} {path} {expires}".encode()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()


@router.add("PUT", "/_storage/lfs/{repo_id}/{oid}/{size}", writes=True, public=True)
async def storage_put(hub: "Hub", call: Call) -> Response:
    """Store one object, checked against the sha256 and size that the URL was signed for."""
    length = _check_upload(hub, call)
    objects = hub.lfs_by_id(call.params["repo_id"])
    oid, size = call.params["oid"], int(call.params["size"])
    temporary = objects.temporary()
    try:
        digest, received = await _receive(call, temporary, hashlib.sha256())
        if length != size or received != size:
            raise StorageError(400, f"Expected {size} bytes, got {received}.", "IncompleteBody")
        if digest != oid:
            raise StorageError(400, "The content does not have the sha256 that was announced.", "BadDigest")
        objects.adopt(temporary, oid)
    finally:
        temporary.unlink(missing_ok=True)
    return Response(status_code=200, headers={"ETag": f'"{digest}"'})


@router.add("PUT", "/_storage/parts/{upload}/{part}", writes=True, public=True)
async def storage_put_part(hub: "Hub", call: Call) -> Response:
    _check_upload(hub, call)
    folder = hub.multipart_folder(call.params["upload"])
    if not folder.is_dir():
        raise StorageError(404, "The specified upload does not exist.", "NoSuchUpload")
    number = int(call.params["part"])
    temporary = folder / f".incoming-{secrets.token_hex(8)}"
    digest, _ = await _receive(call, temporary, hashlib.md5(usedforsecurity=False))
    temporary.replace(folder / f"{number:05d}-{digest}")
    return Response(status_code=200, headers={"ETag": f'"{digest}"'})


@router.add("GET", "/_storage/lfs/{repo_id}/{oid}", public=True)
async def storage_get(hub: "Hub", call: Call) -> Response:
    _refuse_authorization(call)
    hub.signer.check("GET", call)
    objects = hub.lfs_by_id(call.params["repo_id"])
    if objects.size(call.params["oid"]) is None:
        raise StorageError(404, "The specified key does not exist.", "NoSuchKey")
    return file_response(call, objects.path(call.params["oid"]), {"ETag": f'"{call.params["oid"]}"'})


def assemble(objects: LfsObjects, folder: Path, parts: list[tuple[int, str]], oid: str, size: int) -> None:
    """Join uploaded parts into one object. Raises `HubError` 400 when a part is missing or the result is not `oid`."""
    temporary = objects.temporary()
    digest, total = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as writer:
            for number, etag in sorted(parts):
                part = folder / f"{number:05d}-{etag}"
                if not part.is_file():
                    raise HubError(400, f"Part {number} with ETag {etag} was not uploaded.")
                with part.open("rb") as reader:
                    while block := reader.read(BLOCK):
                        digest.update(block)
                        writer.write(block)
                        total += len(block)
        if total != size or digest.hexdigest() != oid:
            raise HubError(400, "The parts do not make up the object that was announced.")
        objects.adopt(temporary, oid)
    finally:
        temporary.unlink(missing_ok=True)


def file_response(call: Call, path: Path, headers: dict[str, str]) -> Response:
    """A file's bytes from disk, or the range that was asked for."""
    size = path.stat().st_size
    start, end = requested_range(call, size)
    headers = headers | range_headers(call, start, end, size)

    async def blocks() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            file.seek(start)
            remaining = end - start
            while remaining > 0 and (block := file.read(min(BLOCK, remaining))):
                remaining -= len(block)
                yield block

    status = 206 if "Content-Range" in headers else 200
    if call.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    return StreamingResponse(blocks(), status, headers, media_type="application/octet-stream")


def bytes_response(call: Call, content: bytes, headers: dict[str, str], media_type: str) -> Response:
    """The same for content in memory."""
    start, end = requested_range(call, len(content))
    headers = headers | range_headers(call, start, end, len(content))
    status = 206 if "Content-Range" in headers else 200
    body = b"" if call.method == "HEAD" else content[start:end]
    return Response(body, status, headers, media_type=media_type)


def requested_range(call: Call, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of what to send. Raises 416 for a range outside the file."""
    header = call.headers.get("range", "").strip()
    if not header.startswith("bytes=") or "," in header:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not (first.isdigit() or first == "") or not (last.isdigit() or last == "") or first == last == "":
        return 0, size
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size or start >= end:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def range_headers(call: Call, start: int, end: int, size: int) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if call.headers.get("range", "").startswith("bytes=") and size:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return headers


def _refuse_authorization(call: Call) -> None:
    if "authorization" in call.headers:
        raise StorageError(400, "Only one auth mechanism allowed.", "InvalidArgument")


def _check_upload(hub: "Hub", call: Call) -> int:
    """Everything that is refused before a byte is stored. Returns the announced length."""
    _refuse_authorization(call)
    hub.signer.check("PUT", call)
    length = call.headers.get("content-length")
    if length is None:
        if "transfer-encoding" in call.headers:
            raise StorageError(411, "You must provide the Content-Length HTTP header.", "MissingContentLength")
        raise StorageError(501, "A body is required.", "NotImplemented")
    if int(length) == 0:
        raise StorageError(501, "Empty objects are not supported.", "NotImplemented")
    return int(length)


async def _receive(call: Call, target: Path, digest: "hashlib._Hash") -> tuple[str, int]:
    received = 0
    with target.open("wb") as file:
        async for chunk in call.chunks():
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
    return digest.hexdigest(), received
