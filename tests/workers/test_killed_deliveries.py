"""`kill -9` at any moment: no delivery is lost, and at most one for each kill is repeated or parked."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.faults.process import ROOT
from tests.workers.test_delivery import delivery, put

pytestmark = [pytest.mark.anyio, pytest.mark.external]

PATIENCE = 60


def count(arrivals: Path) -> int:
    return len(arrivals.read_text(encoding="utf-8").split())


async def kill_after(command: tuple[str, ...], arrivals: Path, roll: random.Random) -> None:
    """Let it deliver a few, and kill it at some moment of the next one."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    wanted, deadline = count(arrivals) + roll.randrange(1, 4), time.monotonic() + PATIENCE
    while count(arrivals) < wanted and process.returncode is None:
        assert time.monotonic() < deadline, "nothing is delivered any more"
        await asyncio.sleep(0.002)
    await asyncio.sleep(roll.random() * 0.05)
    process.kill()
    await process.wait()


async def statuses(client: Client) -> dict[str, str]:
    found = (await client.get("Task?_count=1000")).json()["entry"]
    return {entry["resource"]["id"]: entry["resource"]["status"] for entry in found}


async def rounds(known: Knowledge, folder: Path, name: str, kills: int) -> None:
    database, arrivals = folder / "fhir.db", folder / name
    arrivals.touch()
    numbers = [f"n{number:03}" for number in range(6 * kills)]
    async with serving(known, store=f"sqlite:///{database}") as client:
        await put(client, *map(delivery, numbers))
    command = (sys.executable, "-m", "tests.workers.killed", str(database), str(arrivals))
    roll = random.Random(97)
    for _ in range(kills):
        await kill_after(command, arrivals, roll)
    last = subprocess.Popen(command, cwd=ROOT)
    try:
        async with serving(known, store=f"sqlite:///{database}") as client:
            deadline = time.monotonic() + 2 * PATIENCE
            while not set(ended := (await statuses(client)).values()) <= {"completed", "on-hold"}:
                assert time.monotonic() < deadline, Counter(ended)
                await asyncio.sleep(0.2)
            counts, states = Counter(arrivals.read_text(encoding="utf-8").split()), await statuses(client)
    finally:
        last.terminate()
        last.wait(20)
    assert set(states) == set(numbers)
    if name == "repeats":
        assert set(states.values()) == {"completed"} and set(counts) == set(numbers)
        assert sum(counts.values()) - len(numbers) <= kills
    else:
        assert all(counts[number] == (state == "completed") for number, state in states.items())
        assert list(states.values()).count("on-hold") <= kills


@pytest.mark.parametrize("name", ["repeats", "once"])
async def test_killed_a_few_times_nothing_is_lost(known: Knowledge, tmp_path: Path, name: str) -> None:
    await rounds(known, tmp_path, name, 2)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kills"), [("repeats", 20), ("once", 50)])
async def test_killed_often_nothing_is_lost(known: Knowledge, tmp_path: Path, name: str, kills: int) -> None:
    await rounds(known, tmp_path, name, kills)
