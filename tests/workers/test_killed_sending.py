"""`kill -9` of the worker while a partner fails by plan: each patient's messages in order, none lost."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, serving
from tests.faults.process import ROOT
from tests.workers.stub_partner import Stub, stub_partner, write_partner
from tests.workers.test_hl7v2_sending import person

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SILENCE = 120
"""Seconds without an arrival after which nothing comes any more."""

FAILURES = ("AE", "AR", "wrong", "garbage", "late", "close", "half")


def plan(roll: random.Random, share: float) -> Stub:
    """Fails for a share of the messages, and closes one connection of ten at once."""
    return Stub(
        lambda number: roll.choice(FAILURES) if roll.random() < share else "AA",
        lambda number: "unread" if roll.random() < 0.1 else "",
    )


async def change(client: Client, patients: int, rounds: int) -> dict[str, list[str]]:
    """Write all patients so often, in transactions."""
    for number in range(rounds):
        entries = [
            {"resource": person(f"p{each}", f"V{number}"), "request": {"method": "PUT", "url": f"Patient/p{each}"}}
            for each in range(patients)
        ]
        answer = await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status_code == 200, answer.text
    return {f"N-p{each}": [f"V{number}" for number in range(rounds)] for each in range(patients)}


async def count_states(client: Client) -> Counter[str | None]:
    counts: Counter[str | None] = Counter()
    for state in ("waiting", "claimed", "sent-unanswered", "acknowledged", "parked", "refused"):
        url = f"Task?code=message-delivery&business-status={state}&_summary=count"
        counts[state] = (await client.get(url)).json()["total"]
    return counts


def has_arrived(stub: Stub, count: int) -> bool:
    return len(stub.arrivals) >= count


async def run_until(command: tuple[str, ...], stub: Stub, is_done: Callable[[], bool], pause: float) -> None:
    """Let it send until then, and kill it a moment later."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    seen, moment = -1, time.monotonic()
    while not is_done() and process.returncode is None and time.monotonic() - moment < SILENCE:
        if len(stub.arrivals) != seen:
            seen, moment = len(stub.arrivals), time.monotonic()
        await asyncio.sleep(0.01)
    await asyncio.sleep(pause)
    process.kill()
    await process.wait()


async def rounds(known: Knowledge, folder: Path, size: tuple[int, int], kills: int, share: float) -> None:
    roll = random.Random(97)
    stub = plan(roll, share)
    async with stub_partner(stub) as port:
        write_partner(folder, "north", port, out="tries = 100")
        database, total = folder / "fhir.db", size[0] * size[1]
        seams = Seams(definitions=None)
        command = (sys.executable, "-m", "tests.workers.killed_sender", str(database), str(folder))
        async with serving(known, seams, store=f"sqlite:///{database}", profiles=str(folder)) as client:
            expected = await change(client, *size)
            for number in range(kills):
                wanted = total * (number + 1) // (kills + 1)
                await run_until(command, stub, partial(has_arrived, stub, wanted), roll.random() * 0.05)
            while (counts := await count_states(client))["acknowledged"] < total:
                before = len(stub.arrivals)
                await run_until(command, stub, lambda: stub.accepted >= total, 2.0)
                assert len(stub.arrivals) > before, counts
                kills += 1
            assert +counts == {"acknowledged": total}
    stub.check(expected, kills)


async def test_two_hundred_changes_and_two_kills(known: Knowledge, tmp_path: Path) -> None:
    await rounds(known, tmp_path, (20, 10), 2, 0.03)


@pytest.mark.long
async def test_thousands_of_changes_and_many_kills(known: Knowledge, tmp_path: Path) -> None:
    """Of 200 patients; a kill for 500 changes."""
    changes = int(os.environ.get("FHIR_SENT_CHANGES", "2000"))
    await rounds(known, tmp_path, (200, changes // 200), max(2, changes // 500), 0.02)
