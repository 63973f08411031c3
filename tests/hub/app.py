"""The ASGI application: every request is journalled, may suffer a fault, and is answered by one handler.

Resets need the connection itself, so the server (`server.py`) puts its transport into the scope.
"""

import asyncio
import socket
import struct
import traceback
import uuid
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from . import account, commits, control, discussions, info, listing, oidc, repos, resolve, storage, uploads, webhooks
from .access import identify
from .errors import BAD_CREDENTIALS, HubError, StorageError
from .faults import Fault
from .journal import Entry
from .limits import too_many_requests
from .records import Token
from .routing import Call, Route, Router, parse_query

if TYPE_CHECKING:
    from .hub import Hub

Scope = dict[str, Any]
MODULES = (account, commits, discussions, info, listing, oidc, repos, resolve, storage, uploads, webhooks)
CONTROL = "/_control/"
RESOLVERS = ("resolve", "resolve_cache")
FLIPPED = 64


class App:
    def __init__(self, hub: "Hub"):
        self.hub = hub
        self.router = Router()
        # The most specific paths first: `/api/models/a/b` would match almost anything.
        for module in sorted(MODULES, key=lambda module: module is info):
            self.router.include(module.router)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        raw_path = scope["raw_path"].decode("latin-1")
        if raw_path.startswith(CONTROL):
            response = await self._answer(Exchange(scope, receive, raw_path, control.router, self.hub))
            await response(scope, receive, send)
            return
        exchange = Exchange(scope, receive, raw_path, self.router, self.hub)
        query = scope["query_string"].decode("latin-1")
        entry = self.hub.journal.begin(exchange.method, raw_path, query, "authorization" in exchange.request.headers)
        entry.route = exchange.route.name if exchange.route else None
        entry.repo = exchange.params.get("repo") or self.hub.name_of(exchange.params.get("repo_id"))
        target = f"{raw_path}?{query}" if query else raw_path
        fault = self.hub.faults.due(entry.index, entry.method, entry.route, target)
        entry.fault = fault.kind if fault else None
        try:
            if fault is None:
                await self._serve(exchange, entry, send)
            else:
                await self._suffer(fault, exchange, entry, receive, send)
        except ClientDisconnect:  # it did not even wait for its fault
            pass
        finally:
            self.hub.journal.end(entry)

    async def _serve(self, exchange: "Exchange", entry: Entry, send: Any) -> None:
        response = await self._apply(exchange, entry)
        await response(exchange.scope, exchange.request.receive, send)

    async def _apply(self, exchange: "Exchange", entry: Entry) -> Response:
        """Let the Hub handle a request, and note in the journal what it decided."""
        response = await self._answer(exchange, entry)
        entry.status = response.status_code
        entry.wrote = exchange.route is not None and exchange.route.writes and response.status_code < 300
        return response

    async def _answer(self, exchange: "Exchange", entry: Entry | None = None) -> Response:
        limits: dict[str, str] = {}
        try:
            if exchange.missing is not None:
                raise exchange.missing
            call = exchange.call()
            if entry is not None and not call.route.public:
                call.identity = identify(self.hub.records, call.headers.get("authorization"))
                entry.user = call.identity.user.name if call.identity else None
                limits = self._count(call)
            response = await call.route.handler(self.hub, call)
        except HubError as error:
            response = error.response()
        except ClientDisconnect:  # in the middle of its body: nobody reads the answer
            response = Response(status_code=400)
        except Exception:  # noqa: BLE001 - whatever is wrong here, the client gets an answer and we a traceback
            traceback.print_exc()
            response = JSONResponse({"error": "Internal Error"}, 500, {"X-Error-Message": "Internal Error"})
        for name, value in limits.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = f"Root=1-{uuid.uuid4().hex}"
        return response

    def _count(self, call: Call) -> dict[str, str]:
        resource = "resolvers" if call.route.name in RESOLVERS else "api"
        if resource not in self.hub.settings.rate_limits:
            return {}
        quota, seconds = self.hub.settings.rate_limits[resource]
        address = call.request.client.host if call.request.client else ""
        who = call.identity.user.name if call.identity else f"ip:{address}"
        return self.hub.limits.count(resource, who, int(quota), seconds)

    # faults

    async def _suffer(self, fault: Fault, exchange: "Exchange", entry: Entry, receive: Any, send: Any) -> None:
        transport = exchange.scope["state"]["transport"]
        if fault.kind in ("refuse", "reset_before") or (fault.kind == "status" and fault.when == "before"):
            async for _ in exchange.request.stream():
                pass  # the client has sent everything when it fails: it always sees the same error
        if fault.kind == "refuse":
            transport.close()
            await _disconnected(receive)
        elif fault.kind == "reset_before":
            _reset(transport)
            await _disconnected(receive)
        elif fault.kind == "reset_after":
            await self._apply(exchange, entry)
            _reset(transport)
            await _disconnected(receive)
        elif fault.kind == "timeout":
            if fault.when == "after":
                await self._apply(exchange, entry)
            await asyncio.sleep(fault.seconds)
            transport.abort()
            await _disconnected(receive)
        elif fault.kind == "status":
            if fault.when == "after":
                await self._apply(exchange, entry)
            response = _refusal(fault, exchange.raw_path.startswith("/_storage/"))
            entry.status = response.status_code
            await response(exchange.scope, receive, send)
        elif fault.kind == "truncate":
            response = await self._apply(exchange, entry)
            await _send_half(response, exchange, transport, send)
            await _disconnected(receive)
        elif fault.kind == "wrong_bytes":
            response = await self._apply(exchange, entry)
            await _send_flipped(response, exchange, send)
        else:
            if fault.when == "before":
                self._expire(fault, exchange)
            await self._serve(exchange, entry, send)
            if fault.when == "after":
                self._expire(fault, exchange)

    def _expire(self, fault: Fault, exchange: "Exchange") -> None:
        if fault.kind == "expire_upload_urls":
            self.hub.signer.expire_all()
            return
        value = exchange.request.headers.get("authorization", "").partition(" ")[2].strip()
        if token := self.hub.records.get(Token, value):
            token.expires = 0.0
            self.hub.records.save(token)


class Exchange:
    """A request and the route it takes; `missing` is the refusal when it takes none."""

    def __init__(self, scope: Scope, receive: Any, raw_path: str, router: Router, hub: "Hub"):
        self.scope, self.raw_path, self.hub = scope, raw_path, hub
        self.request = Request(scope, receive)
        self.method: str = scope["method"]
        self.route: Route | None = None
        self.params: dict[str, str] = {}
        self.missing: HubError | None = None
        try:
            self.route, self.params = router.find(self.method, raw_path)
        except HubError as error:
            self.missing = error

    def call(self) -> Call:
        assert self.route is not None
        return Call(self.request, self.raw_path, self.route, self.params, query=parse_query(self.scope["query_string"]))


USUAL_MESSAGES = {
    401: BAD_CREDENTIALS,
    403: "Forbidden",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def _refusal(fault: Fault, storage: bool) -> Response:
    if fault.code == 429 or fault.rate_limit:
        seconds = fault.retry_after if fault.retry_after is not None else 1
        error = too_many_requests("api", seconds)
        if fault.code != 429:
            error.status = fault.code
        if not fault.rate_limit and fault.retry_after is None:
            error.headers = {}
        elif not fault.rate_limit:
            error.headers = {"Retry-After": str(seconds)}
        return error.response()
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
    message = fault.message or USUAL_MESSAGES.get(fault.code, "Injected fault")
    return (StorageError if storage else HubError)(fault.code, message, headers=headers).response()


async def _disconnected(receive: Any) -> None:
    """Wait for the server to notice that the connection is gone; it would answer 500 otherwise."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN: the peer sees "connection reset", not a clean end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _send_half(response: Response, exchange: Exchange, transport: asyncio.Transport, send: Any) -> None:
    """Start an answer with its full length, stop in the middle of the body, and hang up.

    An answer without a body is not sent at all: the client would take it for complete and reuse a dead connection.
    """
    length = int(response.headers.get("content-length", "0"))
    left = length // 2

    async def limited(message: MutableMapping[str, Any]) -> None:
        nonlocal left
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")[:left]
        left -= len(body)
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})

    if exchange.method != "HEAD" and length > 1:
        await response(exchange.scope, exchange.request.receive, limited)
    transport.close()


async def _send_flipped(response: Response, exchange: Exchange, send: Any) -> None:
    """Send as many bytes as announced, some of them wrong."""

    async def flipped(message: MutableMapping[str, Any]) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body:
            middle = len(body) // 2
            wrong = bytes(byte ^ 0xFF for byte in body[middle : middle + FLIPPED])
            message = {**message, "body": body[:middle] + wrong + body[middle + FLIPPED :]}
        await send(message)

    await response(exchange.scope, exchange.request.receive, flipped)
