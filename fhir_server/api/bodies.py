"""The request bodies that a worker holds: how many bytes at once, and how many of them are worked on.

A body takes up to 25 times its size while it is parsed. Bodies that are received wait as bytes until those that are
worked on leave room; beyond the limit they are refused before they are read.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fhir_server.fhir.outcome import Unavailable

AT_WORK = 32 * 1024 * 1024
"""Bytes of bodies that are worked on at once; a larger one is worked on alone."""

COUNTED_FROM = 64 * 1024
"""Bytes from which a body takes part: smaller ones are bounded by the number of connections."""


class Bodies:
    """The bodies of one server; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = self._at_work = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def hold(self, size: int) -> None:
        """Count bytes as held. Raises Unavailable when they would be too many."""
        if self._held + size > self._limit:
            raise Unavailable(
                f"This server holds request bodies of {self._held:,} bytes, and takes {self._limit:,} at once (setting "
                "`max_bodies`); nothing was written. Try again.",
                headers=(("Retry-After", "5"),),
            )
        self._held += size

    def release(self, size: int) -> None:
        """Count bytes as gone."""
        self._held -= size

    async def begin(self, size: int) -> None:
        """Wait, in the order of arrival, until there is room to work on a body."""
        if not self._waiting and self._has_room(size):
            self._at_work += size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.end(size)
            raise

    def end(self, size: int) -> None:
        """A body is done with: those that wait may begin."""
        self._at_work -= size
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.done():  # given up
                self._waiting.popleft()
                continue
            if not self._has_room(size):
                return
            self._waiting.popleft()
            self._at_work += size
            turn.set_result(None)

    def _has_room(self, size: int) -> bool:
        return self._at_work == 0 or self._at_work + size <= AT_WORK


class Holding:
    """The body of one request: what of it is held and worked on, until `close`."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._held = self._at_work = 0

    def grow(self, size: int) -> None:
        """The body has so many bytes by now. Raises Unavailable."""
        if size > self._held and size >= COUNTED_FROM:
            self._bodies.hold(size - self._held)
            self._held = size

    @property
    def is_large(self) -> bool:
        """Whether the body takes part."""
        return self._held > 0

    async def begin(self) -> None:
        """Wait for the turn of a large body."""
        await self._bodies.begin(self._held)
        self._at_work = self._held

    def close(self) -> None:
        """The request is answered."""
        if self._at_work:
            self._bodies.end(self._at_work)
        if self._held:
            self._bodies.release(self._held)
        self._held = self._at_work = 0
