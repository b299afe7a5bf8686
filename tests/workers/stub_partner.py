"""A partner that takes HL7 v2 messages by MLLP and fails by plan."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fhir_server.transports.mllp import BrokenFraming, FrameReader, write_frame

Plan = Callable[[int], str]
"""The number of an arrival, or of a connection, → what is done with it."""

DELAY = 0.6
"""Seconds after which an answer comes that is too late; the partner's file gives `seconds` a third of it."""


class Arrival(NamedTuple):
    """A message that was read whole: MSH-10, PID-3, the family name, and what was done with it."""

    number: str
    patient: str
    family: str
    action: str


class Stub:
    """Answers AA unless `plan` says otherwise.

    `AE`, `AR`, `CE`, `CR`; `wrong`: MSA-2 of another message; `garbage`; `late`; `close`: read and not answered;
    `half`: closed before all is read; `unread`: the connection is closed at once (asked for each connection).
    """

    def __init__(self, plan: Plan | None = None, connections: Plan | None = None) -> None:
        self.plan = plan or (lambda number: "AA")
        self.connections = connections or (lambda number: "")
        self.arrivals: list[Arrival] = []
        self.count = self.opened = 0

    @property
    def accepted(self) -> int:
        """Messages that were answered AA."""
        return len({each.number for each in self.arrivals if each.action == "AA"})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.opened += 1
        with suppress(OSError, BrokenFraming, asyncio.CancelledError):
            if self.connections(self.opened) != "unread":
                await self._exchange(reader, writer)
        writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader(1024 * 1024)
        while data := await reader.read(65536):
            frames.feed(data)
            while (frame := frames.next()) is not None:
                if not await self._take(frame.message.decode(), writer):
                    return

    async def _take(self, text: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        self.count += 1
        action = self.plan(self.count)
        if action == "half":
            return False
        segments = {line[:3]: line.split("|") for line in text.split("\r") if line}
        number, pid = segments["MSH"][9], segments["PID"]
        self.arrivals.append(Arrival(number, pid[3].split("^")[0], pid[5].split("^")[0], action))
        if action == "close":
            return False
        if action == "late":
            await asyncio.sleep(DELAY)
        code = action if action in ("AE", "AR", "CE", "CR") else "AA"
        said = "|No bed is free." if code != "AA" else ""
        answer = f"MSH|^~\\&|EHR|NORTH|PMS|CLINIC|20260101||ACK|A{self.count}|P|2.5.1\rMSA|{code}|"
        answer += f"{'000' if action == 'wrong' else number}{said}\r"
        writer.write(b"\x0bwhat\x1c\r" if action == "garbage" else write_frame(answer.encode()))
        await writer.drain()
        return True

    def check(self, expected: dict[str, list[str]], kills: int = 0) -> None:
        """Each patient's messages in order, none lost; repeats only of what was not acknowledged, by number."""
        by_patient: dict[str, list[Arrival]] = defaultdict(list)
        for each in self.arrivals:
            by_patient[each.patient].append(each)
        assert {
            patient: [*dict.fromkeys(each.family for each in own)] for patient, own in by_patient.items()
        } == expected
        repeats = 0
        for own in by_patient.values():
            numbers = [each.number for each in own]
            assert numbers == sorted(numbers), f"one comes again behind a later one: {own}"
            for before, each in pairwise(own):
                assert (before.number == each.number) == (before.family == each.family)
                repeats += before.number == each.number and before.action == "AA"
            assert [each.action for each in own][-1] == "AA"
        assert repeats <= kills, "what was acknowledged comes again after a kill at most"


@asynccontextmanager
async def stub_partner(stub: Stub) -> AsyncIterator[int]:
    """The port of a stub."""
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def write_partner(folder: Path, name: str, port: int, more: str = "", out: str = "") -> None:
    """The file of a partner that is sent each Patient."""
    (folder / "partners").mkdir(exist_ok=True)
    text = f"""\
name = "{name}"
formats = ["hl7v2"]
default_authority = "MRN"
[systems]
MRN = "urn:oid:1.2.3.4"
[transports.mllp]
host = "127.0.0.1"
port = {port}
seconds = {DELAY / 3}
{more}
[hl7v2]
senders = [{{ application = "EHR", facility = "{name.upper()}" }}]
[hl7v2.out]
transport = "mllp"
sending = {{ application = "PMS", facility = "CLINIC" }}
receiving = {{ application = "EHR", facility = "{name.upper()}" }}
retry_seconds = 0
{out}
[[hl7v2.out.send]]
type = "Patient"
event = "ADT^A31"
"""
    (folder / "partners" / f"{name}.toml").write_text(text, encoding="utf-8")
