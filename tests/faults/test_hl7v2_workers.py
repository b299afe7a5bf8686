"""Several processes take the messages of one port: order, deaths and ends are as those of one (docs/hl7v2.md)."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.transports.mllp import Connection
from tests.commands.test_hl7v2_command import listening, site
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import msh, pid, segment

__all__ = ["site"]
pytestmark = pytest.mark.anyio

SENDERS = 6
PATIENTS = 5
CHANGES = 12
"""Registrations of each patient, each recorded a minute after the one before."""
PATIENCE = 60.0


def write_change(patient: int, number: int) -> bytes:
    """A registration of a patient under the name `N<number>`, recorded at that minute."""
    event = segment("EVN", f2=f"20240105{10 + number // 60}{number % 60:02d}")
    header = msh("ADT^A08^ADT_A01", f"C{patient}-{number}")
    visit = segment("PV1", f1="1", f2="O", f19=f"V{patient}")
    return (header + event + pid(f"P{patient}", f5=f"N{number}^Ada") + visit).encode()


def list_children(process: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


async def await_workers(process: int, number: int, without: int = 0) -> list[int]:
    """The workers of a listener, once there are so many."""
    for _ in range(int(PATIENCE * 20)):
        found = [each for each in list_children(process) if each != without]
        if len(found) == number:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{list_children(process)} are not {number} workers")


async def send(port: int, messages: list[bytes], seed: int, acknowledged: list[bytes]) -> None:
    """Send messages in their order, each until AA comes; a connection that is lost is opened again."""
    roll = random.Random(seed)
    connection: Connection | None = None
    until = asyncio.get_running_loop().time() + PATIENCE
    for message in messages:
        number = message.split(b"|")[9]
        while True:
            assert asyncio.get_running_loop().time() < until, f"{number!r} is never acknowledged"
            try:
                connection = connection or await Connection.open("127.0.0.1", port, None)
                answer = await connection.exchange(message, PATIENCE)
            except OSError:
                if connection is not None:
                    connection.abort()
                connection = None
                await asyncio.sleep(0.05 * roll.random())
                continue
            assert b"MSA|AA|" + number in answer, answer
            acknowledged.append(number)
            break
        if roll.random() < 0.2:  # by another connection, and so perhaps another worker
            await connection.close()
            connection = None
    if connection is not None:
        await connection.close()


async def read_all(client: Client, path: str) -> list[dict[str, object]]:
    """The resources of all pages of a search."""
    found, url = [], f"{client.base_url}/{path}"
    while url:
        page = (await client.get(url)).json()
        found += [each["resource"] for each in page.get("entry", ())]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    return found


async def test_two_workers_keep_the_order_of_each_patient(site: Path, known: Knowledge) -> None:
    """The messages of each patient come shuffled by six connections, and a worker is killed among them."""
    messages = [write_change(patient, number) for patient in range(PATIENTS) for number in range(CHANGES)]
    random.Random(19).shuffle(messages)
    with listening(site, "--workers", "2") as (process, port):
        first, second = await await_workers(process.pid, 2)
        share = len(messages) // SENDERS
        acknowledged: list[bytes] = []
        senders = [send(port, messages[at * share : (at + 1) * share], at, acknowledged) for at in range(SENDERS)]

        async def kill() -> None:
            while len(acknowledged) < len(messages) // 3:
                await asyncio.sleep(0.005)
            os.kill(first, signal.SIGKILL)
            assert len(acknowledged) < len(messages)

        await asyncio.gather(*senders, kill())
        assert second in await await_workers(process.pid, 2, without=first)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    async with serving(known, Seams(), store=f"sqlite:///{site}/fhir.db", profiles=str(site)) as client:
        patients = await read_all(client, "Patient?identifier=P0,P1,P2,P3,P4")
        assert sorted(each["name"][0]["family"] for each in patients) == [f"N{CHANGES - 1}"] * PATIENTS  # type: ignore[index]
        assert len(await read_all(client, "Encounter")) == PATIENTS
        tasks = await read_all(client, "Task?code=message-intake&_count=500")
        numbers = [re.search(r"C\d+-\d+", str(each)) for each in tasks]
        assert sorted(each[0] for each in numbers if each) == sorted(
            f"C{patient}-{number}" for patient in range(PATIENTS) for number in range(CHANGES)
        )


async def test_workers_end_with_the_process_that_accepts(site: Path) -> None:
    with listening(site, "--workers", "2") as (process, port):
        started = await await_workers(process.pid, 2)
        await send(port, [write_change(1, 1)], 0, [])
        process.kill()
        for _ in range(200):
            if not any(Path(f"/proc/{each}").exists() for each in started):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("a worker went on alone")


async def test_a_message_that_is_being_stored_is_answered_before_the_workers_end(site: Path) -> None:
    with listening(site, "--workers", "2") as (process, port):
        await await_workers(process.pid, 2)
        connections = [await Connection.open("127.0.0.1", port, None) for _ in range(4)]
        sent = [asyncio.create_task(each.exchange(write_change(at, 1))) for at, each in enumerate(connections)]
        await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*sent, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in connections))
        assert await asyncio.to_thread(process.wait, 20) == 0
        for answer in answers:  # what had not come whole is not answered, and is sent again by its sender
            assert isinstance(answer, ConnectionError) or b"MSA|AA|C" in answer  # type: ignore[operator]
