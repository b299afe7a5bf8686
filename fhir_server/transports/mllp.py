"""MLLP: messages in frames over TCP, received by many connections and sent over one.

https://www.hl7.org/documentcenter/public/wg/inm/mllp_transport_specification.PDF (release 1): a frame is 0x0B, the
message, 0x1C 0x0D. A connection whose framing is broken is closed without an answer, and no other one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

START, END, RETURN = 0x0B, 0x1C, 0x0D
_BETWEEN = b"\r\n"
_PIECE = 64 * 1024
_SHOWN = 16
_HANDSHAKE_SECONDS = 10.0

Log = Callable[..., None]
"""(level, message, **fields) → None."""

Take = Callable[[bytes], Awaitable[Sequence[bytes] | None]]
"""What becomes of a message: the acknowledgements that go back; None where the connection ends without any."""


class BrokenFraming(Exception):
    """Bytes that are no frame: the position in the connection, counted from 0, and what stands there."""

    def __init__(self, position: int, found: bytes, reason: str) -> None:
        super().__init__(f"Octet {position} of the connection: {reason}; found {found[:_SHOWN].hex(' ')}.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener takes: bytes of a message, seconds from its start to its end, of silence between messages, and
    for an answer to be taken; connections at once; and messages of more than `small` bytes at once.
    """

    message: int = 10 * 1024 * 1024
    message_seconds: float = 60.0
    idle_seconds: float = 3600.0
    answer_seconds: float = 30.0
    connections: int = 256
    small: int = 1024 * 1024
    large_messages: int = 4


class Frame(NamedTuple):
    """A message out of its frame. `cut`: it was longer than the limit, and this is its beginning."""

    message: bytes
    cut: bool = False


class FrameReader:
    """Takes a connection's bytes in whatever pieces they come, and gives its messages."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._inside = False
        self._searched = 0
        self._looked_through = 0
        self._position = 0

    @property
    def size(self) -> int:
        """Bytes that wait for the rest of their message; 0 between messages."""
        return len(self._buffer) + self._inside

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._buffer += data

    def next(self) -> Frame | None:
        """The next message, None where more bytes have to come. Raises BrokenFraming."""
        if not self._inside and not self._begin():
            return None
        end = self._buffer.find(END, self._searched)
        self._searched = len(self._buffer) if end < 0 else end
        inner = self._buffer.find(START, self._looked_through, self._searched)
        self._looked_through = self._searched
        if inner >= 0:
            self._break(inner, "a message begins (0B) inside another one")
        if self._searched > self._limit:
            beginning = self._copy(self._limit + 1)
            self._buffer.clear()
            return Frame(beginning, cut=True)
        if end < 0 or end + 1 == len(self._buffer):
            return None
        if self._buffer[end + 1] != RETURN:
            self._break(end, "0D has to follow the end of a message (1C)")
        message = self._copy(end)
        self._drop(end + 2)
        self._inside, self._searched, self._looked_through = False, 0, 0
        return Frame(message)

    def _begin(self) -> bool:
        """Step into the next frame; line ends between frames are passed over."""
        between = len(self._buffer) - len(self._buffer.lstrip(_BETWEEN))
        self._drop(between)
        if not self._buffer:
            return False
        if self._buffer[0] != START:
            self._break(0, "a message has to begin with 0B")
        self._drop(1)
        self._inside = True
        return True

    def _copy(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            return bytes(view[:count])

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._position += count

    def _break(self, at: int, reason: str) -> None:
        raise BrokenFraming(self._position + at, bytes(self._buffer[at : at + _SHOWN]), reason)


def write_frame(message: bytes) -> bytes:
    """A message in its frame."""
    return b"%c%b%c%c" % (START, message, END, RETURN)


class Listener:
    """Takes messages of many connections: of each one after the other, and answers before it reads on."""

    def __init__(self, take: Take, log: Log, limits: Limits | None = None) -> None:
        self._take = take
        self._log = log
        self._limits = limits or Limits()
        self._large = asyncio.Semaphore(self._limits.large_messages)
        self._connections: dict[asyncio.Task[None], bool] = {}
        self._silent: dict[asyncio.Task[None], object] = {}
        """Those that have sent no whole message yet, the oldest first, and who they are."""
        self._servers: list[asyncio.Server] = []
        self._stopping = False

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Accept connections on bound sockets."""
        for each in sockets:
            seconds = _HANDSHAKE_SECONDS if tls is not None else None
            self._servers.append(
                await asyncio.start_server(self._serve, sock=each, ssl=tls, limit=_PIECE, ssl_handshake_timeout=seconds)
            )

    def make_protocol(self) -> asyncio.Protocol:
        """What serves a connection that was accepted elsewhere."""
        reader = asyncio.StreamReader(limit=_PIECE, loop=asyncio.get_running_loop())
        return asyncio.StreamReaderProtocol(reader, self._serve)

    async def stop(self, seconds: float = 10.0) -> None:
        """Accept no more; what is being stored is stored and answered, within so many seconds."""
        self._stopping = True
        for server in self._servers:
            server.close()
        for task, at_work in self._connections.items():
            if not at_work:
                task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=seconds)
        left = list(self._connections)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = writer.get_extra_info("peername")
        if self._stopping or not self._make_room():
            self._log("warning", "connection refused", peer=peer, connections=len(self._connections))
            writer.transport.abort()
            return
        self._connections[task], self._silent[task] = False, peer
        incoming = _Incoming(reader, self._limits, self._large)
        try:
            await self._exchange(incoming, writer, task)
        except BrokenFraming as error:
            self._log("warning", "connection closed: broken framing", peer=peer, reason=str(error))
        except TimeoutError as error:
            self._log("warning", "connection closed: too slow", peer=peer, reason=str(error))
        except (OSError, asyncio.CancelledError):
            pass  # the sender is gone, or the listener ends
        except Exception as error:
            self._log("error", "connection closed by a fault of ours", peer=peer, error=type(error).__name__)
        finally:
            incoming.finish()
            del self._connections[task]
            self._silent.pop(task, None)
            with suppress(Exception):
                writer.close()

    def _make_room(self) -> bool:
        """Whether one more connection may come; the oldest that has sent no message ends where they are too many."""
        if len(self._connections) < self._limits.connections:
            return True
        if not self._silent:
            return False
        oldest = next(iter(self._silent))
        peer = self._silent.pop(oldest)
        reason = "Others want to connect, and it has sent no message."
        self._log("warning", "connection closed", peer=peer, reason=reason)
        oldest.cancel()
        return True

    async def _exchange(self, incoming: _Incoming, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        """Message by message, until the sender ends the connection."""
        while not self._stopping:
            frame = await incoming.read()
            if frame is None:
                return
            self._connections[task] = True
            self._silent.pop(task, None)
            answers, last = await self._take(frame.message), frame.cut
            del frame  # it may be long, and the rest of the connection too
            incoming.finish()
            if answers is None:
                return
            for answer in answers:
                writer.write(write_frame(answer))
            try:
                await asyncio.wait_for(writer.drain(), self._limits.answer_seconds)
            except TimeoutError:
                raise TimeoutError("The sender does not take the acknowledgement.") from None
            self._connections[task] = False
            if last:
                if writer.can_write_eof():
                    writer.write_eof()
                await incoming.discard()
                return


class _Incoming:
    """What comes by one connection: frames, within the limits of time, and of long messages few at once."""

    def __init__(self, reader: asyncio.StreamReader, limits: Limits, large: asyncio.Semaphore) -> None:
        self._reader = reader
        self._limits = limits
        self._frames = FrameReader(limits.message)
        self._large = large
        self._is_large = False

    async def read(self) -> Frame | None:
        """The next message; None at the end of the connection. Raises BrokenFraming, and TimeoutError with a reason."""
        limits, began = self._limits, 0.0
        while (frame := self._frames.next()) is None:
            now = asyncio.get_running_loop().time()
            if not self._frames.size:
                left, reason = limits.idle_seconds, f"No message came for {limits.idle_seconds:g} seconds."
            else:
                began = began or now
                left = max(began + limits.message_seconds - now, 0)
                reason = f"A message has to be complete within {limits.message_seconds:g} seconds."
            try:
                data = await asyncio.wait_for(self._receive(), left)
            except TimeoutError:
                raise TimeoutError(reason) from None
            if not data:
                return None
            self._frames.feed(data)
        return frame

    async def _receive(self) -> bytes:
        if self._frames.size > self._limits.small and not self._is_large:
            await self._large.acquire()
            self._is_large = True
        return await self._reader.read(_PIECE)

    async def discard(self) -> None:
        """Read on without keeping anything until the sender ends: a reset would take the acknowledgement from them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.answer_seconds):
                while await self._reader.read(_PIECE):
                    pass

    def finish(self) -> None:
        """The message is done with: the next long one may come."""
        if self._is_large:
            self._is_large = False
            self._large.release()


_ENDED = "The receiver closed the connection without an acknowledgement."


class Connection:
    """One connection to a receiver: a message is sent, and its acknowledgement awaited, before the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = 1024 * 1024) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(limit)

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None, seconds: float = 10.0) -> Connection:
        """Connect. Raises OSError, TimeoutError among them."""
        return cls(*await asyncio.wait_for(asyncio.open_connection(host, port, ssl=tls), seconds))

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it, as far as is known here, and nothing has come that was not asked for."""
        return not (self._reader.at_eof() or self._writer.is_closing() or self._frames.size)

    async def exchange(self, message: bytes, seconds: float = 30.0) -> bytes:
        """Send a message and give what answers it. After any error the connection has to be closed.

        Raises TimeoutError, ConnectionError where the other side closes without an answer, and BrokenFraming.
        """
        self._writer.write(write_frame(message))
        return await asyncio.wait_for(self.read(), seconds)

    async def read(self) -> bytes:
        """The next message that comes. Raises ConnectionError at the end of the connection."""
        try:
            await self._writer.drain()
        except ConnectionResetError as error:
            if error.errno is None:  # what asyncio says of a connection that ended in order: `Connection lost`
                raise ConnectionResetError(_ENDED) from None
            raise
        while (frame := self._frames.next()) is None:
            data = await self._reader.read(_PIECE)
            if not data:
                raise ConnectionResetError(_ENDED)
            self._frames.feed(data)
        return frame.message

    def abort(self) -> None:
        """End the connection at once, whatever is on its way."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
