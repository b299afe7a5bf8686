"""What strangers send to the listener: an acknowledgement with the reason or a closed connection, and it goes on.

Never is there an AA for what is not stored; what is refused is kept. Bounds: docs/hl7v2.md.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fhir_server.app import Knowledge, Seams
from fhir_server.commands.hl7v2_workers import make_taker
from fhir_server.transports.mllp import Connection, Limits, Listener, write_frame
from fhir_server.workers.hl7v2_intake import read_header, split_answers
from fhir_server.workers.message_tasks import LARGEST_MESSAGE, IncomingMessage
from tests.conftest import Client, serving
from tests.faults.process import ROOT
from tests.mappers.hl7v2.test_hl7v2_corpus import mutate, read_texts
from tests.workers.hl7v2_messages import msh, pid, read_codes, resources, visit

pytestmark = pytest.mark.anyio

EMPTY = Seams(definitions=None)
GOOD = (msh("ADT^A01", "GOOD") + pid() + visit("V1")).encode()
LAST = (msh("ADT^A08", "LAST") + pid("LAST")).encode()
ANY = 'name = "any"\nformats = ["hl7v2"]\nzone = "UTC"\n[hl7v2]\nprocessing = ["P", "T", "D", ""]\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a partner that takes the messages of any sender."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "partners").mkdir()
    (folder / "partners" / "any.toml").write_text(ANY)
    return folder


class Hall:
    """A listener on an empty store, a client of the server beside it, and what the listener logged as an error."""

    def __init__(self, client: Client, port: int, errors: list[Any]) -> None:
        self.client, self.port, self.errors = client, port, errors

    async def ask(self, message: bytes) -> list[str] | None:
        """The codes of the acknowledgements; None where the connection was closed instead."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(write_frame(message) + write_frame(LAST))  # its answer tells that no other one comes
            codes: list[str] = []
            while True:
                frame = await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 20)
                if b"MSA|AA|LAST\r" in frame:
                    return codes
                codes += read_codes(frame[1:-2].replace(b"\xff", b"?"))
        except asyncio.IncompleteReadError:
            return None
        finally:
            writer.close()

    async def find_task(self, raw: bytes) -> dict[str, Any] | None:
        """What the log has of a message."""
        message = IncomingMessage("any", "hl7v2", read_header(raw).text(10), raw, "x-application/hl7-v2+er7")
        answer = await self.client.fhir("GET", f"Task/{message.id}")
        return answer.json() if answer.status_code == 200 else None


@asynccontextmanager
async def listening(known: Knowledge, site: Path, limits: Limits | None = None) -> AsyncIterator[Hall]:
    errors: list[Any] = []

    def log(level: str, message: str, **fields: object) -> None:
        if level == "error":
            errors.append((message, fields))

    async with serving(known, EMPTY, store="memory://", profiles=str(site)) as client:
        bound = socket.create_server(("127.0.0.1", 0))
        listener = Listener(make_taker(client.server.context, log), log, limits)
        await listener.start([bound])
        try:
            yield Hall(client, bound.getsockname()[1], errors)
        finally:
            await listener.stop(1)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_mutated_messages_are_stored_or_refused_and_the_listener_goes_on(
    known: Knowledge, shared: Path, site: Path, data: st.DataObject
) -> None:
    texts = read_texts(shared)
    raws = [mutate(texts, data).encode(*data.draw(st.sampled_from([("utf-8",), ("latin-1", "replace")]))) for _ in "ab"]

    async def send() -> None:
        async with listening(known, site) as hall:
            for raw in raws:
                codes = await hall.ask(raw)
                if codes is None:
                    assert re.search(rb"[\x0b\x1c]", raw), "only broken framing closes a connection"
                    continue
                task = await hall.find_task(raw)
                assert task is not None, "whatever was answered is kept"
                state = task["businessStatus"]["coding"][0]["code"]
                assert (state == "acknowledged") == (not {"AE", "AR", "CE", "CR"} & set(codes)) or not codes
                assert "AA" not in codes or state == "acknowledged"
                assert "fault of its own" not in str(task.get("statusReason")), task["statusReason"]
            assert hall.errors == []
            assert await hall.ask(GOOD) == ["AA"]

    asyncio.run(send())


HEAD = msh("ADT^A08", "X")


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (b"", "AE", "begins with `MSH`"),
        (b"PID|1||123\r", "AE", "begins with `MSH`"),
        (bytes(set(range(256)) - {0x0B, 0x1C}), "AE", "begins with `MSH`"),
        (b"MSH", "AE", ""),
        (b"MSH|^~\\&", "AR", ""),
        (b"MSH||||\r", "AE", "encoding characters"),
        (HEAD.replace("^~\\&", "^^^^").encode() + pid().encode(), "AE", ""),
        (HEAD[:40].encode(), "AR", ""),
        ((HEAD + pid()[:20]).encode(), "AA", ""),
        ((HEAD + pid(f7="20240230", f8="banana")).encode(), "AA", ""),
        ((HEAD + pid(f5="QUILL\rADA")).encode(), "AA", ""),
        ((msh("SIU^S12", "X") + "SCH|1^A|2^B|||||||30|min|^^^20240230\r" + pid()).encode(), "AE", "no date and time"),
        ((HEAD + "pid|1||123\r").encode(), "AE", ""),
    ],
)
async def test_bad_input_is_answered_with_the_reason(
    known: Knowledge, site: Path, raw: bytes, code: str, says: str
) -> None:
    async with listening(known, site) as hall:
        codes = await hall.ask(raw)
        task = await hall.find_task(raw)
        assert (codes, task is not None) == ([code], True), task and task.get("statusReason")
        assert task is not None and says in str(task.get("statusReason", ""))
        assert (task["status"] == "completed") == (code == "AA")
        assert hall.errors == []


async def test_octets_one_by_one_and_three_messages_in_a_packet(known: Knowledge, site: Path) -> None:
    async with listening(known, site) as hall:
        reader, writer = await asyncio.open_connection("127.0.0.1", hall.port)
        for octet in write_frame(GOOD):
            writer.write(bytes([octet]))
            await writer.drain()
        assert b"MSA|AA|GOOD" in await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 20)
        three = [msh("ADT^A08", f"P{number}") + pid(str(number)) for number in range(3)]
        writer.write(b"".join(write_frame(each.encode()) for each in three))
        answers = [await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 20) for _ in three]
        assert [f"MSA|AA|P{number}".encode() in each for number, each in enumerate(answers)] == [True] * 3
        writer.close()
        assert len(await resources(hall.client, "Patient")) == 4


async def test_a_slow_sender_holds_up_nobody(known: Knowledge, site: Path) -> None:
    async with listening(known, site, Limits(message_seconds=1)) as hall:
        slow = [await asyncio.open_connection("127.0.0.1", hall.port) for _ in range(20)]
        for _, writer in slow:
            writer.write(b"\x0b" + GOOD[:30])
        assert await hall.ask(GOOD) == ["AA"]
        assert [await asyncio.wait_for(reader.read(), 20) for reader, _ in slow] == [b""] * 20
        for _, writer in slow:
            writer.close()
        assert len(await resources(hall.client, "Task")) == 2, "half a message is none"


async def test_a_message_of_fifty_megabytes_is_refused_and_its_beginning_kept(known: Knowledge, site: Path) -> None:
    async with listening(known, site) as hall:
        raw = HEAD.encode() + b"NTE|1||" + b"x" * (50 * 1024 * 1024)
        reader, writer = await asyncio.open_connection("127.0.0.1", hall.port)
        writer.write(write_frame(raw))
        answer = await asyncio.wait_for(reader.read(), 60)
        assert b"MSA|AE|X" in answer and b"207^" in answer and answer.endswith(b"\x1c\r")
        writer.close()
        (task,) = await resources(hall.client, "Task")
        assert task["status"] == "rejected" and str(LARGEST_MESSAGE) in task["statusReason"]["text"]
        assert await resources(hall.client, "Binary") == []
        assert await hall.ask(GOOD) == ["AA"]


def read_peak(process: subprocess.Popen[bytes]) -> int:
    """The most memory that a process ever had, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


@pytest.mark.external
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_the_memory_of_a_listener_is_bounded(known: Knowledge, site: Path, tmp_path: Path) -> None:
    """Eight senders of 50 MB at once: four long messages of 10 MB are in memory, each a few times, and no more."""
    database = tmp_path / "fhir.db"
    async with serving(known, EMPTY, store=f"sqlite:///{database}"):
        pass
    command = [sys.executable, "-m", "tests.workers.killed_listener", str(database), str(site)]
    raw = write_frame(HEAD.encode() + b"NTE|1||" + b"x" * (50 * 1024 * 1024))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        before = read_peak(process)

        async def flood() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                return await reader.read()
            except OSError:
                return b""
            finally:
                writer.close()

        answers = await asyncio.gather(*(flood() for _ in range(8)))
        grown = read_peak(process) - before
        connection = await Connection.open("127.0.0.1", port, None)
        assert read_codes(split_answers(await connection.exchange(GOOD))[0]) == ["AA"]
        await connection.close()
        process.kill()
    assert [b"MSA|AE|X" in each for each in answers] == [True] * 8
    assert grown < 250, f"{grown} MB"
