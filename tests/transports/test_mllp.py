"""MLLP: frames in whatever pieces they come, limits, and a broken connection that harms no other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.transports.mllp import BrokenFraming, Connection, Frame, FrameReader, Limits, Listener, write_frame
from tests.cost.measuring import check_ratio_of_calls

pytestmark = pytest.mark.anyio

Logged = list[tuple[str, str]]


class Hall:
    """A listener that answers each message with its length, and what it logged."""

    def __init__(self, port: int, listener: Listener, logged: Logged, taken: list[bytes]) -> None:
        self.port, self.listener, self.logged, self.taken = port, listener, logged, taken

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, message: bytes) -> bytes:
        connection = await Connection.open("127.0.0.1", self.port, None)
        try:
            return await connection.exchange(message)
        finally:
            await connection.close()


@asynccontextmanager
async def listening(
    limits: Limits | None = None, answer: Callable[[bytes], bytes | None] | None = None
) -> AsyncIterator[Hall]:
    logged: Logged = []
    taken: list[bytes] = []

    async def take(message: bytes) -> list[bytes] | None:
        taken.append(message)
        given = (answer or (lambda each: str(len(each)).encode()))(message)
        return None if given is None else [given]

    def log(level: str, message: str, **fields: object) -> None:
        logged.append((level, f"{message} {fields.get('reason', '')}"))

    bound = socket.create_server(("127.0.0.1", 0))
    listener = Listener(take, log, limits)
    await listener.start([bound])
    try:
        yield Hall(bound.getsockname()[1], listener, logged, taken)
    finally:
        await listener.stop(1)


async def test_a_connection_that_ended_before_the_message_is_told() -> None:
    async with listening() as hall:
        connection = await Connection.open("127.0.0.1", hall.port, None)
        connection.abort()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError, match="without an acknowledgement"):
            await connection.exchange(b"MSH|1\r")


MESSAGES = [b"MSH|1\rPID|\xfc\r", b"", b"x" * 70_000]


@given(st.lists(st.integers(1, 9)))
def test_messages_come_out_whatever_the_pieces(sizes: list[int]) -> None:
    stream = b"\r\n".join(write_frame(each) for each in (b"one\r", b"two\r\n", b"", b"three"))
    frames, found = FrameReader(100), []
    while stream:
        size = sizes.pop() if sizes else len(stream)
        frames.feed(stream[:size])
        stream = stream[size:]
        while (frame := frames.next()) is not None:
            found.append(frame)
    assert found == [Frame(b"one\r"), Frame(b"two\r\n"), Frame(b""), Frame(b"three")]
    assert frames.size == 0


@pytest.mark.parametrize(
    ("stream", "position"),
    [
        (b"MSH|", 0),
        (b"\r\n MSH", 2),
        (b"\x0bMSH|\x1cMSH", 5),
        (b"\x0bMSH|\x1c\x1c\r", 5),
        (b"\x0bone\x1c\r\x0btwo\x0bthree\x1c\r", 10),
        (b"\x00" * 50, 0),
    ],
)
def test_broken_framing_is_told_with_its_position(stream: bytes, position: int) -> None:
    frames = FrameReader(100)
    frames.feed(stream)
    with pytest.raises(BrokenFraming, match=f"Octet {position} of the connection"):
        while frames.next() is not None:
            pass


def test_a_message_over_the_limit_is_cut() -> None:
    frames = FrameReader(10)
    frames.feed(b"\x0b0123456789")
    assert frames.next() is None
    frames.feed(b"abc")
    assert frames.next() == Frame(b"0123456789a", cut=True)


async def test_one_connection_carries_many_messages_and_each_is_answered() -> None:
    async with listening() as hall:
        connection = await Connection.open("127.0.0.1", hall.port, None)
        assert [await connection.exchange(each) for each in MESSAGES] == [b"12", b"0", b"70000"]
        await connection.close()


async def test_three_messages_in_one_packet_and_one_octet_at_a_time() -> None:
    """Trap V7."""
    async with listening() as hall:
        reader, writer = await hall.connect()
        writer.write(b"".join(write_frame(each) for each in (b"a", b"bb", b"ccc")))
        assert await reader.readexactly(12) == b"".join(write_frame(each) for each in (b"1", b"2", b"3"))
        for octet in write_frame(b"PID"):
            writer.write(bytes([octet]))
            await writer.drain()
        assert await reader.readexactly(4) == write_frame(b"3")
        writer.close()


async def test_a_broken_connection_is_closed_and_no_other() -> None:
    async with listening() as hall:
        good = await Connection.open("127.0.0.1", hall.port, None)
        assert await good.exchange(b"before") == b"6"
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x0bhalf\x1cX", bytes(range(256))):
            reader, writer = await hall.connect()
            writer.write(junk)
            assert await reader.read() == b""
            writer.close()
        assert await good.exchange(b"after") == b"5"
        await good.close()
        assert [level for level, text in hall.logged if "broken framing" in text] == ["warning"] * 3
        assert any("47 45 54" in text for _, text in hall.logged)


async def test_slow_senders_are_closed_in_time_and_idle_ones_later() -> None:
    async with listening(Limits(message_seconds=0.1, idle_seconds=0.4)) as hall:
        slow, quiet = await hall.connect(), await hall.connect()
        slow[1].write(b"\x0bhalf a mess")
        assert await asyncio.wait_for(slow[0].read(), 5) == b""
        assert await asyncio.wait_for(quiet[0].read(), 5) == b""
        assert [text.partition(":")[0] for _, text in hall.logged] == ["connection closed"] * 2
        assert "complete within 0.1 seconds" in hall.logged[0][1] and "No message came" in hall.logged[1][1]
        slow[1].close()
        quiet[1].close()


async def test_a_long_message_is_answered_by_its_beginning_and_the_connection_ends() -> None:
    async with listening(Limits(message=1000)) as hall:
        reader, writer = await hall.connect()
        writer.write(b"\x0b" + b"x" * 5000)
        assert await reader.read() == write_frame(b"1001")
        writer.close()


async def test_few_long_messages_are_taken_at_once_and_all_in_the_end() -> None:
    async with listening(Limits(small=10, large_messages=1)) as hall:
        answers = await asyncio.wait_for(asyncio.gather(*(hall.ask(b"x" * 200_000) for _ in range(5))), 20)
        assert answers == [b"200000"] * 5


async def test_more_connections_than_the_limit_are_refused() -> None:
    async with listening(Limits(connections=1)) as hall:
        first = await Connection.open("127.0.0.1", hall.port, None)
        assert await first.exchange(b"a") == b"1"
        with pytest.raises(OSError):
            await hall.ask(b"b")
        await first.close()
        await asyncio.sleep(0.05)
        assert await hall.ask(b"c") == b"1"


async def test_connections_that_say_nothing_make_room_for_new_ones() -> None:
    """The oldest of those that have sent no whole message; those that have keep their place."""
    async with listening(Limits(connections=4)) as hall:
        sender = await Connection.open("127.0.0.1", hall.port, None)
        assert await sender.exchange(b"a") == b"1"
        strangers = [await hall.connect() for _ in range(10)]
        strangers[-1][1].write(b"\x0bhalf a mess")
        assert await hall.ask(b"new") == b"3"
        assert await sender.exchange(b"again") == b"5"
        ended = [await asyncio.wait_for(each.read(), 5) for each, _ in strangers[:8]]
        assert ended == [b""] * 8
        closed = [text for _, text in hall.logged if "has sent no message" in text]
        assert len(closed) == 8
        await sender.close()
        for _, writer in strangers:
            writer.close()


async def test_a_message_in_very_small_pieces_costs_what_its_length_says() -> None:

    def read(size: int) -> None:
        frames, piece = FrameReader(2 * size), b"x" * 400
        frames.feed(b"\x0b")
        for _ in range(size // len(piece)):
            frames.feed(piece)
            assert frames.next() is None

    await check_ratio_of_calls(lambda: read(2_000_000), lambda: read(4_000_000), 3)


async def test_what_cannot_be_stored_gets_no_answer() -> None:
    async with listening(answer=lambda message: None if message == b"no" else b"yes") as hall:
        with pytest.raises(ConnectionResetError, match="without an acknowledgement"):
            await hall.ask(b"no")
        assert await hall.ask(b"a") == b"yes"


async def test_a_fault_ends_its_connection_alone() -> None:
    def fail(message: bytes) -> bytes:
        if message == b"bad":
            raise ValueError("secret")
        return b"yes"

    async with listening(answer=fail) as hall:
        with pytest.raises(OSError):
            await hall.ask(b"bad")
        assert await hall.ask(b"good") == b"yes"
        assert [level for level, _ in hall.logged] == ["error"] and "secret" not in hall.logged[0][1]


async def test_a_stop_answers_what_is_at_work() -> None:
    release = asyncio.Event()
    logged: Logged = []

    async def take(message: bytes) -> list[bytes]:
        await release.wait()
        return [b"stored"]

    bound = socket.create_server(("127.0.0.1", 0))
    listener = Listener(take, lambda *each, **fields: logged.append(("", "")))
    await listener.start([bound])
    port = bound.getsockname()[1]
    idle = await Connection.open("127.0.0.1", port, None)
    busy = await Connection.open("127.0.0.1", port, None)
    asking = asyncio.create_task(busy.exchange(b"m"))
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(listener.stop(5))
    await asyncio.sleep(0.05)
    release.set()
    assert await asking == b"stored"
    await stopping
    with pytest.raises(OSError):
        await idle.exchange(b"late", 1)
    await idle.close()
    await busy.close()
