"""A listener's memory stays where it is, however many messages it has taken.

`FHIR_SOAK_MESSAGES` sets the number of messages, 100,000 for the whole test.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.transports.mllp import Connection
from tests.conftest import serving
from tests.faults.test_hl7v2_soak import MESSAGES, PATIENTS, Hall, write_result
from tests.workers.test_hl7v2_merges import NORTH

pytestmark = [pytest.mark.anyio, pytest.mark.long]

SENDERS = 8
MEGABYTE = 1024 * 1024
ALLOWED = 24 * MEGABYTE
"""What the second half of the messages may add: pages of the database that are read again, memory in pieces."""


def read_resident(pid: int) -> int:
    """Bytes of a process that are in memory (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_memory_does_not_grow_with_the_messages(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "north.toml").write_text(NORTH)
    database = tmp_path / "fhir.db"
    async with serving(known, Seams(definitions=None), store=f"sqlite:///{database}"):
        pass
    hall = Hall(str(database), str(tmp_path))
    await hall.start()
    sizes: dict[int, int] = {}
    numbers = iter(range(MESSAGES))
    marks = {MESSAGES * part // 100: part for part in (10, 50, 100)}
    done = 0

    async def send() -> None:
        nonlocal done
        connection = await Connection.open("127.0.0.1", hall.port, None)
        for number in numbers:
            answer = await connection.exchange(write_result(number))
            assert f"MSA|AA|M{number}\r".encode() in answer
            done += 1
            if done in marks:
                sizes[marks[done]] = read_resident(hall.pid)
        await connection.close()

    try:
        await asyncio.gather(*(send() for _ in range(SENDERS)))
    finally:
        await hall.kill()
    print({part: f"{size // MEGABYTE} MB" for part, size in sizes.items()}, "of", PATIENTS, "patients")
    assert sizes.keys() == {10, 50, 100}
    assert sizes[100] - sizes[50] < ALLOWED, sizes
