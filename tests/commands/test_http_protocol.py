"""Head and body of a response leave in one write, in the right order, and silence ends a connection (RFC 9112)."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fhir_server.commands.http_protocol import HEAD_SECONDS, BoundedProtocol
from fhir_server.commands.response_cycle import join_head
from tests.faults.process import serving_process

pytestmark = pytest.mark.anyio

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[[Send], Awaitable[None]]

GET = b"GET /fhir/Patient/p HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = (b"content-length", b"2")


class Written(asyncio.Transport):
    """What was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.closed = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes) and not self.closed
        self.parts.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    resume_reading = pause_reading


class Timer:
    """One of a `ManualLoop`."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call = when, call

    def cancel(self) -> None:
        self.when = math.inf


class ManualLoop:
    """An event loop whose clock goes only when it is told to; it counts the timers that were made."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    def create_task(self, work: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and the timers come that are due."""
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= until]:
            first = min(due, key=lambda timer: timer.when)
            self.now = max(self.now, first.when)
            first.cancel()
            first.call()
        self.now = until
        for _ in range(5):
            await asyncio.sleep(0)


def connect(answer: Answer, loop: Any = None) -> tuple[BoundedProtocol, Written]:
    """A connection to an application that answers so."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    config = uvicorn.Config(application, ws="none", log_config=None)
    state = ServerState()
    protocol = BoundedProtocol(config, state, {}, loop or asyncio.get_running_loop())
    written = Written()
    protocol.connection_made(written)
    return protocol, written


async def say(send: Send, *, status: int = 200, fields: Any = (LENGTH,), bodies: tuple[bytes, ...] = (b"{}",)) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})
    for position, body in enumerate(bodies):
        await send({"type": "http.response.body", "body": body, "more_body": position + 1 < len(bodies)})


async def ask(answer: Answer, request: bytes = GET) -> Written:
    protocol, written = connect(answer)
    protocol.data_received(request)
    while protocol.tasks:
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return written


@pytest.mark.parametrize(
    ("answer", "request_text", "expected"),
    [
        (say, GET, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        (say, GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        (partial(say, status=204, fields=(), bodies=(b"",)), GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            partial(say, status=304, fields=((b"etag", b'W/"1"'),), bodies=(b"",)),
            GET,
            b'HTTP/1.1 304 Not Modified\r\netag: W/"1"\r\n\r\n',
        ),
        (say, GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"),
    ],
)
async def test_a_response_is_one_write(answer: Answer, request_text: bytes, expected: bytes) -> None:
    assert (await ask(answer, request_text)).parts == [expected]


@pytest.mark.parametrize(
    ("fields", "bodies", "expected"),
    [
        ((LENGTH,), (b"{", b"}"), b"content-length: 2\r\n\r\n{}"),
        ((), (b"{}",), b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        ((LENGTH, (b"connection", b"close")), (b"{}",), b"content-length: 2\r\nconnection: close\r\n\r\n{}"),
    ],
)
async def test_what_is_no_whole_answer_is_left_to_uvicorn(fields: Any, bodies: Any, expected: bytes) -> None:
    written = await ask(partial(say, fields=fields, bodies=bodies))
    assert b"".join(written.parts) == b"HTTP/1.1 200 OK\r\n" + expected
    assert written.closed


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nb", b"a\rb", b"a\0b", b"a\x7fb"])
async def test_no_field_ends_its_line(value: bytes) -> None:
    assert join_head(200, [(b"location", value)]) is None
    written = await ask(partial(say, fields=(LENGTH, (b"location", value))))
    assert (written.parts, written.closed) == ([], True)


@pytest.mark.parametrize("body", [b"{", b"{} "])
async def test_a_length_that_is_wrong_ends_the_connection(body: bytes) -> None:
    written = await ask(partial(say, bodies=(body,)))
    assert written.closed
    assert b"{}" not in b"".join(written.parts)


async def test_an_application_that_fails_before_its_body_is_500() -> None:
    async def fail(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        raise ValueError

    written = await ask(fail)
    assert written.parts[0].startswith(b"HTTP/1.1 500 ") and written.closed


async def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    protocol, written = connect(say)
    protocol.data_received(GET)
    written.close()
    while protocol.tasks:
        await asyncio.sleep(0)
    assert written.parts == []


async def test_silence_ends_a_connection_before_its_first_head() -> None:
    loop = ManualLoop()
    _, written = connect(say, loop)
    await loop.advance(HEAD_SECONDS - 1)
    assert not written.closed
    await loop.advance(2)
    assert (written.parts, written.closed) == ([], True)


async def test_a_head_that_comes_slowly_is_408_however_often_a_piece_of_it_comes() -> None:
    loop = ManualLoop()
    protocol, written = connect(say, loop)
    await loop.advance(HEAD_SECONDS - 2)
    protocol.data_received(GET)
    await loop.advance(1)
    for byte in GET[: int(HEAD_SECONDS) + 2]:
        protocol.data_received(bytes([byte]))
        await loop.advance(1)
    assert len(written.parts) == 2 and written.parts[1].startswith(b"HTTP/1.1 408 ") and written.closed


async def test_silence_after_an_answer_ends_the_connection_and_a_request_before_keeps_it() -> None:
    loop = ManualLoop()
    protocol, written = connect(say, loop)
    for _ in range(200):
        protocol.data_received(GET)
        await loop.advance(protocol.timeout_keep_alive / 2)
    assert len(written.parts) == 200 and not written.closed
    assert len(loop.timers) < 120  # one looks again when it comes; none is made for each request
    await loop.advance(protocol.timeout_keep_alive)
    assert written.closed


async def test_a_request_that_is_answered_slowly_is_no_silence() -> None:
    loop, answered = ManualLoop(), asyncio.Event()

    async def wait(send: Send) -> None:
        await answered.wait()
        await say(send)

    protocol, written = connect(wait, loop)
    protocol.data_received(GET)
    await loop.advance(10 * HEAD_SECONDS)
    assert not written.closed
    answered.set()
    await loop.advance(0)
    await loop.advance(protocol.timeout_keep_alive - 1)
    assert len(written.parts) == 1 and not written.closed
    await loop.advance(2)
    assert written.closed


async def test_a_head_that_began_beside_a_slow_answer_has_its_own_time_after_it() -> None:
    loop, answered = ManualLoop(), asyncio.Event()

    async def wait(send: Send) -> None:
        await answered.wait()
        await say(send)

    protocol, written = connect(wait, loop)
    protocol.data_received(GET + GET[:20])
    await loop.advance(10 * HEAD_SECONDS)
    answered.set()
    await loop.advance(0)
    await loop.advance(HEAD_SECONDS - 1)
    assert len(written.parts) == 1 and not written.closed
    await loop.advance(2)
    assert written.parts[1].startswith(b"HTTP/1.1 408 ") and written.closed


def answers(port: int, requests: bytes) -> bytes:
    """All that the server says to requests sent at once, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(requests)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db") as process:
        port = int(process.base.rpartition(":")[2].partition("/")[0])
        asked = b"".join(
            b"%b /fhir/%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % each
            for each in (
                (b"GET", b"Patient/first", b""),
                (b"HEAD", b"metadata", b""),
                (b"DELETE", b"Patient/second", b""),
                (b"GET", b"Patient/third", b"Connection: close\r\n"),
            )
        )
        said = answers(port, asked)
        waits = answers(
            port,
            b"PUT /fhir/Patient/p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\n"
            b"Connection: close\r\nExpect: 100-continue\r\n"
            b'Content-Length: 36\r\n\r\n{"resourceType":"Patient","id":"p"}\n',
        )
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"404", b"200", b"204", b"404"]
    assert said.index(b"Patient/first") < said.index(b"HTTP/1.1 204") < said.index(b"Patient/third")
    assert b"CapabilityStatement" not in said
    assert waits.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201")
