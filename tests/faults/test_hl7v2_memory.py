"""A listener's memory stays where it is, however many messages it has taken.

`FHIR_MEMORY_MESSAGES` sets the number of messages, 100,000 for the whole test. Of five messages one is an admission
(ADT^A01) of 500 patients in turn, with a visit and an account of its own, two are updates (ADT^A08) and two results
(ORU^R01) of a hundred of these patients. The listener is the command with its two workers on an SQLite file.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from bench.messages import write_admission, write_result, write_update
from fhir_server.transports.mllp import Connection
from tests.commands.test_hl7v2_command import listening, make_store
from tests.faults.test_hl7v2_workers import await_workers

pytestmark = [pytest.mark.anyio, pytest.mark.long]

MESSAGES = int(os.environ.get("FHIR_MEMORY_MESSAGES", "4000"))
PARTNER = 'name = "bench"\nformats = ["hl7v2"]\nzone = "America/Chicago"\n'
PATIENTS = 500
WORKERS = 2
SENDERS = 8
STAY = 50
"""Messages of a connection: the workers share the connections, and one may have been ready before the other."""
PATIENCE = 120.0
ALLOWED = 24 * 1024
"""Kilobytes that the second half of the messages may add to a worker: pages of the database, memory in pieces."""


def write_message(number: int) -> bytes:
    """The message of a number, counted from 0."""
    if number % 5:
        return (write_update if number % 5 < 3 else write_result)("M", number)
    patient = number // 5 % PATIENTS
    return write_admission("M", number).replace(b"||M%d^^^BENCH^MR" % number, b"||M%d^^^BENCH^MR" % patient)


def read_memory(process: int) -> tuple[int, int]:
    """Kilobytes of a process that are in memory, and those of them that are no part of a file (Linux)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    resident, anonymous = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "RssAnon"))
    assert resident and anonymous
    return int(resident[1]), int(anonymous[1])


async def test_memory_does_not_grow_with_the_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_WATCHDOG_SECONDS", "3600")  # a worker that a busy machine starves is not replaced
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "bench.toml").write_text(PARTNER)
    await make_store(f"sqlite:///{tmp_path}/fhir.db")
    sizes: dict[int, list[tuple[int, int]]] = {}
    numbers = iter(range(MESSAGES))
    done = 0

    async def send(port: int, workers: list[int]) -> None:
        nonlocal done
        connection = await Connection.open("127.0.0.1", port, None)
        for count, number in enumerate(numbers, 1):
            if count % STAY == 0:
                await connection.close()
                connection = await Connection.open("127.0.0.1", port, None)
            message = write_message(number)
            answer = await connection.exchange(message, PATIENCE)
            assert b"MSA|AA|%b\r" % message.split(b"|")[9] in answer
            done += 1
            if done * 10 % MESSAGES == 0:
                sizes[done] = [read_memory(each) for each in workers]
                print(done, *(f"{size // 1024} MB ({own // 1024} of its own)" for size, own in sizes[done]), flush=True)
        await connection.close()

    with listening(tmp_path, "--workers", str(WORKERS)) as (process, port):
        workers = await await_workers(process.pid, WORKERS)
        await asyncio.gather(*(send(port, workers) for _ in range(SENDERS)))
    resident = [sum(size for size, _ in sizes[MESSAGES * part // 10]) for part in range(1, 11)]
    assert resident[-1] - resident[4] < ALLOWED * WORKERS, sizes
