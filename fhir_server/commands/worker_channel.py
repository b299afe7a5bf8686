"""A worker's end of the channel by which the accepting process hands it connections (`worker_processes.py`).

They come as descriptors (SCM_RIGHTS, https://man7.org/linux/man-pages/man7/unix.7.html); what goes back are single
letters: that the worker is ready, that a connection has ended, that its event loop turns.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from fhir_server.commands.certificate import HANDSHAKE_SECONDS
from fhir_server.commands.single_server import TURN_SECONDS

CONNECTION, READY, CLOSED, TURN = b"c", b"r", b"-", b"t"
MOST_WAITING = 64
"""Connections that wait in the accepting process at most."""
_MOST_TAKEN = 16

MakeProtocol = Callable[[], asyncio.Protocol]
"""What serves a new connection."""


class WorkerChannel:
    """Serves the connections that come by a socket, each by a protocol of its own, and tells what becomes of them.

    `end` is called when the accepting process stops or is gone; `at_turn` once a second, on the loop.
    """

    def __init__(
        self,
        channel: socket.socket,
        make_protocol: MakeProtocol,
        tls: ssl.SSLContext | None,
        end: Callable[[], None],
        at_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel, self._make_protocol, self._tls = channel, make_protocol, tls
        self._end, self._at_turn = end, at_turn
        self._opening: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Take connections from now on."""
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        self._say(READY)
        self._turn()

    async def close(self) -> None:
        """Begin to serve what was handed over already, and take no more."""
        self._take(MOST_WAITING * _MOST_TAKEN)
        asyncio.get_running_loop().remove_reader(self._channel)
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _turn(self) -> None:
        """Tell that the loop turns."""
        self._say(TURN)
        self._at_turn()
        asyncio.get_running_loop().call_later(TURN_SECONDS, self._turn)

    def _take(self, most: int = _MOST_TAKEN) -> None:
        """On the loop: begin to serve the connections that lie in the channel."""
        loop = asyncio.get_running_loop()
        for _ in range(most):  # what is closed to make room for them is closed when the loop goes on
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # the accepting process stops, or is gone
                loop.remove_reader(self._channel)
                self._end()
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                handshake = HANDSHAKE_SECONDS if self._tls is not None else None
                opening: asyncio.Task[object] = loop.create_task(
                    loop.connect_accepted_socket(
                        self._watch_protocol, connection, ssl=self._tls, ssl_handshake_timeout=handshake
                    )
                )
                self._opening.add(opening)
                opening.add_done_callback(self._finish_opening)

    def _finish_opening(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            self._say(CLOSED)

    def _watch_protocol(self) -> asyncio.Protocol:
        """A protocol of which the accepting process learns when it has lost its connection."""
        made = self._make_protocol()
        lost = made.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            lost(exc)
            self._say(CLOSED)

        made.connection_lost = connection_lost  # type: ignore[method-assign]
        return made

    def _say(self, what: bytes) -> None:
        # The other side reads nothing any more while it stops; then there is nothing to say.
        with suppress(OSError):
            self._channel.send(what)
