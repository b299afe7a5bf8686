"""uvicorn's HTTP protocol with bounds on heads, silence, slow readers and connections (RFC 9112, RFC 6585).

uvicorn bounds none of these with httptools: a head may be endless, and whoever says nothing keeps a connection. One
timer serves a connection for as long as it lasts, since one for each request costs more than the rest here.
"""

from __future__ import annotations

import asyncio
import math
import resource
from typing import cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fhir_server.commands.response_cycle import LateEvent, ResponseCycle

MOST_HEAD = 64 * 1024
"""Bytes of a request's line and header fields together."""

HEAD_SECONDS = 20.0
"""Seconds for a head to arrive, from its first byte or the start of the connection."""

READER_SECONDS = 30.0
"""Seconds for which a client may take nothing of what is written to it."""

_EARLY = 0.002
"""Seconds by which the timer of an event loop may come too early."""

RESERVED_DESCRIPTORS = 64
"""Descriptors of a process that are no connections: the database's files, logs, channels."""

_TOO_LARGE = f"The head of the request is larger than {MOST_HEAD} bytes; shorten its URL, or send a search by POST."
_TOO_SLOW = f"The head of the request had not arrived after {HEAD_SECONDS:g} seconds."
_TOO_MANY = "All connections that this server may have open are in use; try again."


def most_connections() -> int:
    """How many connections a process may hold, by its limit on descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (1 << 20 if soft == resource.RLIM_INFINITY else soft) - RESERVED_DESCRIPTORS)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `server_state.connections` are those of the process."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, one that is idle goes, or else this one."""
        self._in_head = False
        self._part_size = self._head_begin = self._head_rest = 0
        self._silence: asyncio.TimerHandle | None = None
        self._silent_until = self._wakes = math.inf
        self._awaits_head = False
        self._unread: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        self.since = self.loop.time()
        full = self._count_open() >= most_connections() and not self._make_room()
        super().connection_made(transport)
        if full:
            self._refuse(503, _TOO_MANY, "retry-after: 5\r\n")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        self.resume_writing()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not done is ignored (RFC 9110, 7.8); no library that is missing here would change that."""

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that goes on beyond its bound ends the connection."""
        if self.parser is None or self.transport.is_closing():
            return
        self._part_size = len(data)
        if self._in_head:
            self._head_rest += len(data)
        super().data_received(data)
        if (self.is_idle or self._in_head) and not self.transport.is_closing():
            if self._in_head and self._head_rest > MOST_HEAD:
                self._refuse(431, _TOO_LARGE)
            elif self.is_idle:
                self._await_head()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered or has arrived."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_begin, self._head_rest = True, self._part_size, 0

    def on_headers_complete(self) -> None:
        """Start to answer, unless the head was too large."""
        self._in_head = self._awaits_head = False
        self._silent_until = math.inf
        if self._head_begin + self._head_rest > MOST_HEAD and self._measure_head() > MOST_HEAD:
            self._refuse(431, _TOO_LARGE)
            self.cycle = self._make_cycle(keep_alive=False)
            self.cycle.response_complete = True  # what still comes of this request is not looked at
        elif not self.transport.is_closing():
            self._begin_cycle()

    def _begin_cycle(self) -> None:
        """As uvicorn does, but with our cycle."""
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = cycle = self._make_cycle(version != "1.0" and self.parser.should_keep_alive())
        if before is None or before.response_complete:
            self._start_cycle(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _make_cycle(self, keep_alive: bool) -> ResponseCycle:
        return ResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=cast(asyncio.Event, LateEvent()),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _start_cycle(self, cycle: ResponseCycle) -> None:
        cycle.task = task = self.loop.create_task(self._run_cycle(cycle))
        self.tasks.add(task)

    async def _run_cycle(self, cycle: ResponseCycle) -> None:
        """A callback of the task that is done would cost the event loop one more turn."""
        try:
            await cycle.run_asgi(self.app)
        finally:
            self.tasks.discard(cycle.task)

    def _measure_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_response_complete(self) -> None:
        """Begin with what was pipelined, or be idle."""
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_cycle(cast(ResponseCycle, self.pipeline.pop()[0]))
        elif self._in_head:
            self._await_head()
        else:
            self._allow_silence(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The client does not take what is written: look again later whether it took anything."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client took it."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self.flow is not None:
            super().resume_writing()

    def _watch_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(READER_SECONDS, self._check_reader)

    def _check_reader(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unread_bytes:
            self.transport.abort()
        else:
            self._watch_reader()

    def _await_head(self) -> None:
        if not self._awaits_head:
            self._awaits_head = True
            self._allow_silence(HEAD_SECONDS)

    def _allow_silence(self, seconds: float) -> None:
        """Let the timer end the connection so late; one that wakes before stays as it is, and then looks again."""
        self._silent_until = until = self.loop.time() + seconds
        if until < self._wakes:
            self._wake_at(until)

    def _wake_at(self, when: float) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._wakes = when
        self._silence = self.loop.call_at(when, self._look_at_silence)

    def _look_at_silence(self) -> None:
        self._silence, self._wakes = None, math.inf
        if self._silent_until <= self.loop.time() + _EARLY:
            self._end_silence()
        elif self._silent_until < math.inf:
            self._wake_at(self._silent_until)

    def _end_silence(self) -> None:
        if self._in_head:
            self._refuse(408, _TOO_SLOW)
        elif self.is_idle:
            self.transport.close()

    def _count_open(self) -> int:
        """The connections; those that are closing are counted only where there are many."""
        if len(self.connections) < most_connections():
            return len(self.connections)
        return sum(1 for each in self.connections if not each.transport.is_closing())

    def _make_room(self) -> bool:
        """Close the idle connections that have been so for the longest; False when there are none."""
        ours = [each for each in self.connections if isinstance(each, BoundedProtocol)]
        open_ones = [each for each in ours if not each.transport.is_closing()]
        idle = sorted([each for each in open_ones if each.is_idle], key=lambda each: each.since)
        for each in idle[: 1 + len(idle) // 10]:
            each.transport.abort()
        self.logger.warning(
            "%d connections are open, as many as this process may have by its limit on descriptors; %s.",
            len(open_ones),
            "idle ones are closed" if idle else "new ones are refused",
        )
        return bool(idle)

    def _refuse(self, status: int, sentence: str, fields: str = "") -> None:
        """Answer without asking the application, and close."""
        if not self.is_idle:  # the answer that is under way would be mixed with this one
            self.transport.abort()
            return
        reason = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}[status]
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n{fields}"
        self.transport.write(f"{head}content-length: {len(sentence)}\r\nconnection: close\r\n\r\n{sentence}".encode())
        self.transport.close()
