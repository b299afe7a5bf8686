"""HTTP responses sent in one piece: head and body in one call of the system, and one packet where they fit (RFC 9112).

uvicorn writes the two one after the other. That costs a call more, and a client that waits for the head wakes up twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1."
_INTERIM = b"HTTP/1.1 1"
"""How an interim response begins, such as 100 Continue: it has no body, and the client waits for it."""


class HeadBuffer:
    """A transport that keeps a response's head until its body is written; `flush` writes a head without body."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep a head; write anything else, behind the head that is kept. Nothing to a client that is gone."""
        if self.is_closing():
            self._head = b""
            return
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        """Write what is kept, and close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what is kept."""
        if self._head:
            head, self._head = self._head, b""
            if not self.is_closing():
                self._transport.write(head)
