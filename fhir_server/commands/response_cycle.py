"""One request of uvicorn and its response, head and body in one call of the system (RFC 9112).

uvicorn checks and writes a response field by field, the head before the body. That costs a read a tenth of its time,
and a client that waits for the head wakes up twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Fields = Iterable[tuple[bytes, bytes]]

_OF_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
"""Fields that say how the connection goes on: what they need is done by uvicorn."""
_WITHOUT_BODY = frozenset({204, 304})
_CONTROLS = bytes({*range(32), 127} - {9})
"""Characters that no field value may hold (https://www.rfc-editor.org/rfc/rfc9110#section-5.5)."""
_LINE_END = 2
_CLOSE = (b"connection", b"close")
_LARGE = 256 * 1024
"""Bytes of a body from which on it is not joined to the head: that would take its memory twice."""


class LateEvent:
    """An `asyncio.Event` that is made only when somebody waits: most requests have arrived before they are read."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None

    def set(self) -> None:
        """See `asyncio.Event.set`."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        """See `asyncio.Event.clear`."""
        self._is_set = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> bool:
        """See `asyncio.Event.wait`."""
        if self._is_set:
            return True
        if self._event is None:
            self._event = asyncio.Event()
        return await self._event.wait()


class ResponseCycle(RequestResponseCycle):
    """uvicorn's cycle, where a response whose body comes at once leaves in one piece."""

    _start: Mapping[str, Any] | None = None
    """The start of a response, kept until its body comes."""
    task: asyncio.Task[None]
    """The one that it runs in."""

    async def send(self, message: Any) -> None:
        """Send a message of ASGI. Nothing is written to a client that is gone."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.transport.is_closing():
            self.disconnected = True
            return
        start, self._start = self._start, None
        if start is not None:
            whole = self._join(start, message)
            if whole is not None:
                self.transport.write(whole)
                self._complete()
                return
            await super().send(cast(Any, start))
        await super().send(message)

    def _join(self, start: Mapping[str, Any], message: Mapping[str, Any]) -> bytes | None:
        if message["type"] != "http.response.body" or message.get("more_body"):
            return None
        fields = [*self.default_headers, *start.get("headers", ())]
        head = join_head(start["status"], fields if self.keep_alive else [*fields, _CLOSE])
        if head is None or (given := dict(fields)).keys() & _OF_CONNECTION:
            return None
        body: bytes = message.get("body", b"")
        if self.scope["method"] == "HEAD":
            return head
        if start["status"] in _WITHOUT_BODY:
            return None if body or b"content-length" in given else head
        return head + body if len(body) < _LARGE and given.get(b"content-length") == b"%d" % len(body) else None

    def _complete(self) -> None:
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def join_head(status: int, fields: list[tuple[bytes, bytes]]) -> bytes | None:
    """The head of a response; None where a field holds a character that none may hold, such as the end of a line."""
    head = b"\r\n".join([STATUS_LINE[status][:-_LINE_END], *map(b": ".join, fields), b"\r\n"])
    return head if len(head) - len(head.translate(None, _CONTROLS)) == _LINE_END * (len(fields) + 2) else None
