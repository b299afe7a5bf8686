"""A listener under senders that hang up at random, killed in the middle: what was acknowledged is stored once.

`FHIR_SOAK_MESSAGES` sets the number of messages, 20,000 for the whole soak.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.search.query import Query, Scope
from fhir_server.transports.mllp import write_frame
from tests.conftest import serving
from tests.faults.process import ROOT
from tests.workers.hl7v2_messages import msh, pid, segment
from tests.workers.test_hl7v2_merges import NORTH

pytestmark = [pytest.mark.anyio, pytest.mark.long]

MESSAGES = int(os.environ.get("FHIR_SOAK_MESSAGES", "1000"))
SENDERS = 8
PATIENTS = 50
PATIENCE = 60.0


class Hall:
    """A listener in a process of its own, which may be killed and started again."""

    def __init__(self, *command: str) -> None:
        self._command = (sys.executable, "-m", "tests.workers.killed_listener", *command)
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


def write_result(number: int) -> bytes:
    """A result of one of a few patients; each has a report and an Observation of its own."""
    order = segment("OBR", f1="1", f3=f"F{number}", f4="1-1^x^LN", f25="F")
    value = segment("OBX", f1="1", f2="NM", f3="2-2^y^LN", f5=str(number), f11="F")
    return (msh("ORU^R01", f"M{number}") + pid(str(number % PATIENTS)) + order + value).encode()


class Sender:
    """Sends its messages in their order, each one until it is acknowledged; hangs up now and then."""

    def __init__(self, hall: Hall, roll: random.Random) -> None:
        self._hall, self._roll = hall, roll
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.acknowledged: list[int] = []
        self.hung_up = 0

    async def send(self, number: int) -> None:
        frame, deadline = write_frame(write_result(number)), time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, f"message {number} is never acknowledged"
            try:
                if await self._try(frame, f"MSA|AA|M{number}\r".encode()):
                    self.acknowledged.append(number)
                    return
            except (OSError, asyncio.IncompleteReadError):
                self.close()
                await asyncio.sleep(0.05)

    async def _try(self, frame: bytes, expected: bytes) -> bool:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._hall.port)
        fate = self._roll.random()
        if fate < 0.04:  # in the middle of a message, or before its answer
            self._writer.write(frame[: len(frame) // 2] if fate < 0.02 else frame)
            await self._writer.drain()
            self.close()
            self.hung_up += 1
            return False
        self._writer.write(frame)
        answer = await asyncio.wait_for(self._reader.readuntil(b"\x1c\r"), PATIENCE)
        assert expected in answer, answer
        return True

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def test_every_acknowledged_message_is_stored_once(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "north.toml").write_text(NORTH)
    database = tmp_path / "fhir.db"
    empty = Seams(definitions=None)
    async with serving(known, empty, store=f"sqlite:///{database}"):
        pass
    hall = Hall(str(database), str(tmp_path))
    await hall.start()
    roll = random.Random(19)
    numbers = iter(range(MESSAGES))
    senders = [Sender(hall, random.Random(seed)) for seed in range(SENDERS)]
    done = 0

    async def work(sender: Sender) -> None:
        nonlocal done
        for number in numbers:
            await sender.send(number)
            done += 1

    async def kill() -> None:
        for part in (0.3, 0.6):
            while done < part * MESSAGES:
                await asyncio.sleep(0.02)
            await asyncio.sleep(roll.random() * 0.05)
            await hall.kill()
            await hall.start()

    await asyncio.gather(*map(work, senders), kill())
    for sender in senders:
        sender.close()
    await hall.kill()
    acknowledged = sorted(number for sender in senders for number in sender.acknowledged)
    assert acknowledged == list(range(MESSAGES))
    assert sum(sender.hung_up for sender in senders) > MESSAGES / 50
    async with serving(known, empty, store=f"sqlite:///{database}", profiles=str(tmp_path)) as client:
        store = client.server.context.unrestricted
        counts = {
            type: await store.count(Query((Scope(type),)))
            for type in ("Task", "Binary", "Observation", "DiagnosticReport", "Patient")
        }
        once = dict.fromkeys(("Task", "Binary", "Observation", "DiagnosticReport"), MESSAGES)
        assert counts == {**once, "Patient": min(PATIENTS, MESSAGES)}
        values: Counter[int] = Counter()
        url = f"{client.base_url}/Observation?_count=500"
        while url:
            page = (await client.get(url)).json()
            values.update(entry["resource"]["valueQuantity"]["value"] for entry in page["entry"])
            assert {entry["resource"]["meta"]["versionId"] for entry in page["entry"]} == {"1"}
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        assert values == Counter(range(MESSAGES))
