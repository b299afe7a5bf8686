"""A keep-alive HTTP/1.1 client that costs little: one request at a time per connection (https://www.rfc-editor.org/rfc/rfc9112).

It shares two cores with the server that it measures, so the common answer (one segment with a Content-Length) is
taken apart with a handful of `bytes.find`, without a callback per header.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from bench.answers import Answer

Headers = Iterable[tuple[str, str]]

CHUNKED = -1
UNTIL_CLOSE = -2


@dataclass(frozen=True, slots=True)
class Target:
    """A FHIR base URL taken apart, and the header lines that every request to it carries."""

    url: str
    host: str
    port: int
    secure: bool
    base: str
    common: bytes

    def request(self, method: str, path: str, body: bytes = b"", headers: Headers = ()) -> bytes:
        """The complete text of a request; `path` is relative to the FHIR base and already percent-encoded."""
        location = f"{self.base}/{path}" if path else self.base or "/"
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
        start = f"{method} {location} HTTP/1.1\r\n{extra}".encode("ascii")
        if not body and method not in ("POST", "PUT", "PATCH"):
            return start + self.common + b"\r\n"
        if "content-type" not in extra.lower():
            start += b"Content-Type: application/fhir+json\r\n"
        return b"%bContent-Length: %d\r\n%b\r\n%b" % (start, len(body), self.common, body)


def parse_target(url: str, headers: Iterable[str] = ()) -> Target:
    """The target at `url` (`http` or `https`), with extra headers written `Name: value`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"`{url}` is not the URL of a FHIR server: write it as `http://127.0.0.1:8000/fhir`.")
    given = tuple(headers)
    for line in given:
        name, colon, _ = line.partition(":")
        if not (name.strip() and colon) or "\r" in line or "\n" in line:
            raise ValueError(f"`{line}` is not a header: write it as `Name: value`.")
    secure = parts.scheme == "https"
    lines = [f"Host: {parts.netloc.rpartition('@')[2]}", *given]
    if not any(line.lower().startswith("accept:") for line in given):
        lines.append("Accept: application/fhir+json")
    common = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    return Target(url, parts.hostname, parts.port or (443 if secure else 80), secure, parts.path.rstrip("/"), common)


class Connection(asyncio.Protocol):
    """One connection; `exchange` sends a prepared request and returns its answer."""

    def __init__(self, time_limit: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._time_limit = time_limit
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._without_body = False
        self._pending = b""
        self._headers: bytes | None = None
        self._parts: list[bytes] = []
        self._chunks: list[bytes] = []
        self._reset()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        return transport is not None and not transport.is_closing()

    def exchange(self, request: bytes) -> asyncio.Future[Answer]:
        """The answer to `request`, awaitable. Raises ConnectionError and TimeoutError."""
        waiter = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            waiter.set_exception(ConnectionResetError("The server closed the connection."))
            return waiter
        self._waiter = waiter
        self._without_body = request.startswith(b"HEAD ")
        self._deadline = self._loop.time() + self._time_limit
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._check_time)
        transport.write(request)
        return waiter

    def close(self) -> None:
        """Close without waiting."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits (asyncio calls this)."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        if self._headers is not None and self._missing == UNTIL_CLOSE:
            self._finish(b"".join(self._parts))
            return
        self._fail(ConnectionResetError("The server closed the connection before it answered."))

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer (asyncio calls this)."""
        try:
            if self._headers is None:
                data = self._take_head(self._pending + data if self._pending else data)
                if self._headers is None:
                    return
            if self._missing == len(data) and not self._parts:
                self._finish(data)
            else:
                self._take_body(data)
        except ValueError:
            self._abort(ConnectionError("The server's answer has a length that is not a number."))

    def _take_head(self, data: bytes) -> bytes:
        """Read the status line and the framing headers; returns what follows them."""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._pending = data
                return b""
            status_end = data.find(b"\r\n")
            if not (data.startswith(b"HTTP/1.") and data[9:12].isdigit()):
                self._abort(ConnectionError("The server does not speak HTTP/1.1."))
                return b""
            self._status = int(data[9:12])
            head, data = data[status_end + 2 : end + 2], data[end + 4 :]
            if self._status >= 200:
                break
        self._pending = b""
        self._headers = head
        self._missing = self._find_framing(head.lower())
        return data

    def _find_framing(self, lowered: bytes) -> int:
        """The length of the body, CHUNKED or UNTIL_CLOSE (RFC 9112 §6.3)."""
        text = b"\r\n" + lowered
        self._closing = b"\r\nconnection: close" in text
        if self._without_body or self._status in (204, 304):
            return 0
        if b"\r\ntransfer-encoding:" in text:
            return CHUNKED
        start = text.find(b"\r\ncontent-length:")
        if start < 0:
            return UNTIL_CLOSE
        return int(text[start + 17 : text.find(b"\r\n", start + 17)])

    def _take_body(self, data: bytes) -> None:
        self._parts.append(data)
        if self._missing == UNTIL_CLOSE:
            return
        if self._missing == CHUNKED:
            self._take_chunks()
            return
        self._received += len(data)
        if self._received >= self._missing:
            self._finish(b"".join(self._parts)[: self._missing])

    def _take_chunks(self) -> None:
        """Decode the chunks received so far (RFC 9112 §7.1); what is incomplete stays in `_parts`."""
        text, position = b"".join(self._parts), 0
        while (line_end := text.find(b"\r\n", position)) >= 0:
            size = int(text[position:line_end].partition(b";")[0], 16)
            start = line_end + 2
            if size == 0:
                # The end is an empty line; trailers may stand before it.
                if text.startswith(b"\r\n", start) or text.find(b"\r\n\r\n", start) >= 0:
                    self._finish(b"".join(self._chunks))
                    return
                break
            if len(text) < start + size + 2:
                break
            self._chunks.append(text[start : start + size])
            position = start + size + 2
        self._parts = [text[position:]]

    def _reset(self) -> None:
        self._pending = b""
        self._headers = None
        self._status = 0
        self._missing = 0
        self._received = 0
        self._closing = False
        self._parts = []
        self._chunks = []

    def _finish(self, body: bytes) -> None:
        answer = Answer(self._status, self._headers or b"", body)
        if self._closing and self._transport is not None:
            self._transport.close()
        if self._missing == len(body) and not self._parts:
            self._headers = None
        else:
            self._reset()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _fail(self, error: OSError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _abort(self, error: OSError) -> None:
        self._fail(error)
        if self._transport is not None:
            self._transport.abort()

    def _check_time(self) -> None:
        """One timer per connection that looks again when it was early: cheaper than a timer per request."""
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_time)
            return
        self._abort(TimeoutError(f"The server did not answer within {self._time_limit:g} s."))


async def connect(target: Target, time_limit: float = 60.0) -> Connection:
    """An open connection whose answers may take `time_limit` seconds. Raises OSError."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context() if target.secure else None
    _, connection = await loop.create_connection(lambda: Connection(time_limit), target.host, target.port, ssl=context)
    return connection
