"""A TCP proxy before a MongoDB server, for the faults that networks have: cuts, lost replies, delays, an absent server.

Commands are recognised by their name in the message (https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pymongo

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Seen = Callable[[bytes], bool]


def nothing(message: bytes) -> bool:
    """Passes every message."""
    return False


def first(*names: str, times: int = 1) -> Seen:
    """The first messages that hold all names."""
    left = [times]

    def seen(message: bytes) -> bool:
        found = bool(left[0]) and all(name.encode() in message for name in names)
        left[0] -= found
        return found

    return seen


@dataclass
class Proxy:
    """Forwards to `target`; all of it may be changed while it runs. `user`: `NAME:PASSWORD@` of the URI, or nothing.

    `cut_before`: a request that is not forwarded, its connection is cut. `cut_after`: a request that is forwarded and
    answered, but the connection is cut instead of the answer. `delay`: s before each answer. `absent`: refuse all.
    """

    target: tuple[str, int]
    user: str = ""
    port: int = 0
    cut_before: Seen = nothing
    cut_after: Seen = nothing
    delay: float = 0.0
    absent: bool = False
    cuts: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def uri(self, name: str) -> str:
        """The URI of a database behind the proxy."""
        options = f"directConnection=true&serverSelectionTimeoutMS=500{'&authSource=admin' if self.user else ''}"
        return f"mongodb://{self.user}127.0.0.1:{self.port}/{name}?{options}"

    def drop(self) -> None:
        """Cut every connection, and refuse new ones until `absent` is taken back."""
        self.absent = True
        for writer in list(self._open):
            writer.close()

    async def serve(self, *client: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        """One connection of a client."""
        reader, writer = client
        assert isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if not self.absent:
                    server = await asyncio.open_connection(*self.target)
                    await self._forward((reader, writer), server)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _forward(self, client: Streams, server: Streams) -> None:
        try:
            while True:
                request = await _message(client[0])
                if self.cut_before(request):
                    self.cuts += 1
                    return
                server[1].write(request)
                if request[12:16] == _OP_MSG and request[16] & 2:  # moreToCome: no answer follows
                    continue
                reply = await _message(server[0])
                if self.cut_after(request):
                    self.cuts += 1
                    return
                await asyncio.sleep(self.delay)
                client[1].write(reply)
                await client[1].drain()
        finally:
            server[1].close()


_OP_MSG = (2013).to_bytes(4, "little")


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "little") - 4)


def _find_server(url: str) -> tuple[str, int]:
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.admin.command("ping")
        address = client.address
    assert address is not None
    return address[0], address[1] or 27017


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server at a `mongodb://` URL: of a replica set its primary, of several `mongos` one."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    proxy = Proxy(await asyncio.to_thread(_find_server, url), f"{user}{at}")
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        proxy.drop()
