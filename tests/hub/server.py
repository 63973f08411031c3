"""Runs the application: two listening sockets (Hub and storage), which can be closed and reopened while it runs.

SIGUSR1 stops listening and drops every connection (clients get "connection refused"), SIGUSR2 listens again.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import App
from .hub import Hub

KEEP_ALIVE = 600  # longer than any test: an idle connection must not be closed just when a client reuses it


class Protocol(H11Protocol):
    """uvicorn's HTTP protocol, with the transport in `scope["state"]` so that faults can reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = self.app_state | {"transport": transport}


class Server(uvicorn.Server):
    def __init__(self, hub: Hub, host: str, port: int, storage_port: int):
        config = uvicorn.Config(
            App(hub), http=Protocol, lifespan="off", log_level="warning", timeout_keep_alive=KEEP_ALIVE
        )
        super().__init__(config)
        self.hub = hub
        self.listening = [_bind(host, port), _bind(host, storage_port)]
        self.addresses: list[tuple[str, int]] = [sock.getsockname()[:2] for sock in self.listening]
        hub.url, hub.storage_url = (f"http://{host}:{port}" for host, port in self.addresses)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.pause)
        loop.add_signal_handler(signal.SIGUSR2, lambda: loop.create_task(self.resume()))
        print(json.dumps({"url": self.hub.url, "storage_url": self.hub.storage_url}), flush=True)

    def pause(self) -> None:
        for server in self.servers:
            server.close()
        self.servers = []
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def resume(self) -> None:
        if self.servers:
            return
        loop = asyncio.get_running_loop()
        for host, port in self.addresses:
            sock = _bind(host, port)
            self.servers.append(await loop.create_server(self._protocol, sock=sock, backlog=self.config.backlog))

    def _protocol(self) -> asyncio.Protocol:
        return Protocol(config=self.config, server_state=self.server_state, app_state={})


def _bind(host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's algorithm off; without, every answer takes 40 ms more.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def run(root: Path, host: str, port: int, storage_port: int, until_eof: bool) -> None:
    """Serve until SIGINT or SIGTERM; `until_eof`, until standard input ends: no server outlives who started it."""
    hub = Hub(root)

    async def serve() -> None:
        server = Server(hub, host, port, storage_port)
        if until_eof:
            await _watch_stdin(server)
        await server.serve(sockets=server.listening)

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass
    finally:
        hub.close()


async def _watch_stdin(server: Any) -> None:
    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            server.should_exit = server.force_exit = True
            asyncio.get_running_loop().remove_reader(sys.stdin)

    asyncio.get_running_loop().add_reader(sys.stdin, read)
