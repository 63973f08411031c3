"""Finds the handler of a request: patterns over the path as it was sent, still percent-encoded.

Encoded, because `refs%2Fpr%2F1` is one path segment: decoding first would make it three.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import Response

from .errors import HubError, bad_request

if TYPE_CHECKING:
    from .access import Identity
    from .hub import Hub

SEGMENTS = {
    "kind": r"(?P<kind>models|datasets|spaces)",
    "prefix": r"(?:(?P<prefix>datasets|spaces)/)?",
    "repo": r"(?P<repo>[^/]+(?:/[^/]+)?)",
    "path": r"(?P<path>.+)",
    "num": r"(?P<num>\d+)",
    "commit": r"(?P<commit>[0-9a-f]{40})",
}


@dataclass
class Call:
    """One request, as handlers see it: what was asked (decoded), by whom, and the body on demand."""

    request: Request
    raw_path: str
    route: "Route"
    params: dict[str, str]
    identity: "Identity | None" = None
    query: dict[str, list[str]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def headers(self) -> Any:
        return self.request.headers

    @property
    def base_url(self) -> str:
        """The Hub's address as this client wrote it, so that links work through any port mapping."""
        return f"http://{self.request.headers.get('host', 'localhost')}"

    @property
    def kind(self) -> str:
        """`model`, `dataset` or `space`."""
        plural = self.params.get("kind") or self.params.get("prefix") or "models"
        return plural.removesuffix("s")

    def text(self, name: str, default: str | None = None) -> str | None:
        return self.query[name][-1] if name in self.query else default

    def flag(self, name: str) -> bool:
        return (self.text(name) or "").lower() in ("1", "true")

    def integer(self, name: str, default: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if not text.isdigit():
            raise bad_request(f"{name} must be a number")
        return int(text)

    async def body(self) -> bytes:
        return await self.request.body()

    async def json(self) -> dict[str, Any]:
        """The JSON object in the body; `{}` for an empty body (the client sends none for some POSTs)."""
        body = await self.request.body()
        if not body.strip():
            return {}
        try:
            value = json.loads(body)
        except ValueError as error:
            raise bad_request("Invalid JSON") from error
        if not isinstance(value, dict):
            raise bad_request("Expected a JSON object")
        return value

    def chunks(self) -> AsyncIterator[bytes]:
        return self.request.stream()


Handler = Callable[["Hub", Call], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """`writes`: a success of this route changes what the Hub holds. `public`: served without looking at the token."""

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler
    writes: bool
    public: bool


class Router:
    def __init__(self) -> None:
        self.routes: dict[str, list[Route]] = {}

    def add(
        self, method: str, template: str, *, writes: bool = False, public: bool = False, name: str | None = None
    ) -> Callable[[Handler], Handler]:
        """Register a handler under its function's name. GET serves HEAD too; the server drops the body."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", lambda m: SEGMENTS.get(m[1], rf"(?P<{m[1]}>[^/]+)"), template))

        def register(handler: Handler) -> Handler:
            route = Route(name or handler.__name__, method, pattern, handler, writes, public)
            self.routes.setdefault(method, []).append(route)
            if method == "GET":
                self.routes.setdefault("HEAD", []).append(route)
            return handler

        return register

    def include(self, other: "Router") -> None:
        for method, routes in other.routes.items():
            self.routes.setdefault(method, []).extend(routes)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route and its decoded parameters. Raises `HubError`: 404 for no such path, 405 for another method."""
        for route in self.routes.get(method, ()):
            if match := route.pattern.fullmatch(raw_path):
                return route, {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
        if any(route.pattern.fullmatch(raw_path) for routes in self.routes.values() for route in routes):
            raise HubError(405, "Method not allowed")
        raise HubError(404, "Sorry, we can't find the page you are looking for.")


def parse_query(query_string: bytes) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query
