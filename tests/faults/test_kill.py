"""`kill -9` loses nothing that was answered with 2xx, and leaves every transaction whole or absent.

That the writer waits for the disk is checked by its pragma: killing a process cannot show it.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.commands.verify import verify_store
from fhir_server.settings import Settings
from tests.conftest import serving
from tests.corpora.corpus import JSON, walk
from tests.faults.process import Process, serving_process

pytestmark = pytest.mark.anyio

SYSTEM = "urn:example:kill"
PATIENT_URL = "urn:uuid:7d1b1c54-2f0f-4c0e-9f3c-0b8f3b1f9a01"
WRITERS = 6
SEED = 97
READINGS = 3
ANSWERS = 12
"""How many writes of each kind are answered at least before a kill."""

Tree = dict[str, Any]


@dataclass
class Answered:
    """What clients know: ids of creates by identifier, transactions answered and begun, last versions of updates."""

    creates: dict[str, str] = field(default_factory=dict)
    transactions: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)

    def least(self) -> int:
        """How many writes of each kind were answered at least."""
        return min(len(self.creates), len(self.transactions), sum(self.versions.values()))


def identified(type: str, value: str, **more: Any) -> Tree:
    return {"resourceType": type, "identifier": [{"system": SYSTEM, "value": value}], **more}


def transaction(value: str) -> Tree:
    """A patient and readings that refer to it."""
    reading = {"status": "final", "code": {"text": "pulse"}, "subject": {"reference": PATIENT_URL}}
    made = [(PATIENT_URL, identified("Patient", value))]
    made += [("", identified("Observation", value, **reading)) for _ in range(READINGS)]
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": each, "request": {"method": "POST", "url": each["resourceType"]}}
            | ({"fullUrl": url} if url else {})
            for url, each in made
        ],
    }


async def write(client: httpx.AsyncClient, name: str, roll: random.Random, answered: Answered) -> None:
    """Write until the server is gone, and note each answer."""
    count = 0
    while True:
        count += 1
        value, kind = f"{name}-{count}", roll.random()
        try:
            if kind < 0.4:
                await _create(client, value, answered)
            elif kind < 0.7:
                await _transact(client, value, answered)
            else:
                await _update(client, name, answered)
        except httpx.TransportError:
            return


async def _create(client: httpx.AsyncClient, value: str, answered: Answered) -> None:
    made = await client.post("/Patient", json=identified("Patient", value), headers=JSON)
    assert made.status_code == 201, made.text
    answered.creates[value] = made.json()["id"]


async def _transact(client: httpx.AsyncClient, value: str, answered: Answered) -> None:
    answered.begun.add(value)
    made = await client.post("/", json=transaction(value), headers=JSON)
    assert made.status_code == 200, made.text
    answered.transactions.add(value)


async def _update(client: httpx.AsyncClient, name: str, answered: Answered) -> None:
    version = answered.versions.get(name, 0) + 1
    made = await client.put(f"/Basic/{name}", json=basic(name, version), headers=JSON)
    assert made.status_code == (201 if version == 1 else 200), made.text
    assert made.headers["etag"] == f'W/"{version}"'
    answered.versions[name] = version


def basic(name: str, version: int) -> Tree:
    """A resource whose text tells its version."""
    return identified("Basic", f"{name}-v{version}", id=name, code={"text": str(version)})


async def storm(process: Process, answered: Answered, name: str, roll: random.Random) -> None:
    """Several connections write, and the server is killed in the middle of it: after so many answers, not so long."""
    answers = ANSWERS + roll.randrange(2 * ANSWERS)
    async with process.client() as client:
        writers = [
            asyncio.create_task(write(client, f"{name}-{number}", random.Random(roll.random()), answered))
            for number in range(WRITERS)
        ]
        while answered.least() < answers and not any(writer.done() for writer in writers):
            await asyncio.sleep(0.001)
        process.kill()
        await asyncio.gather(*writers)


async def check(process: Process, answered: Answered) -> None:
    async with process.client() as client:
        for value, id in answered.creates.items():
            found = await search(client, "Patient", value)
            assert [each["id"] for each in found] == [id], value
            history = (await client.get(f"/Patient/{id}/_history", headers=JSON)).json()
            assert [entry["resource"]["meta"]["versionId"] for entry in history["entry"]] == ["1"]
        for value in sorted(answered.begun):
            await check_transaction(client, value, value in answered.transactions)
        for name, version in answered.versions.items():
            await check_versions(client, name, version)


async def search(client: httpx.AsyncClient, type: str, value: str) -> list[Tree]:
    answer = await client.get(f"/{type}", params={"identifier": f"{SYSTEM}|{value}"}, headers=JSON)
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", ())]


async def check_transaction(client: httpx.AsyncClient, value: str, acknowledged: bool) -> None:
    """All of its resources with their references, or none; all when it was acknowledged."""
    patients, readings = await search(client, "Patient", value), await search(client, "Observation", value)
    assert (len(patients), len(readings)) in ({(1, READINGS)} if acknowledged else {(0, 0), (1, READINGS)}), value
    for reading in readings:
        assert reading["subject"]["reference"] == f"Patient/{patients[0]['id']}"
    for patient in patients:
        found = (await client.get("/Observation", params={"patient": patient["id"]}, headers=JSON)).json()
        assert found["total"] == READINGS


async def check_versions(client: httpx.AsyncClient, name: str, acknowledged: int) -> None:
    """Versions 1, 2, … up to the last acknowledged one, or one more whose answer was lost; the newest is indexed."""
    pages = await walk(client, f"/Basic/{name}/_history?_count=100")
    resources = [entry["resource"] for page in pages for entry in page["entry"]]  # type: ignore[attr-defined]
    versions = [int(each["meta"]["versionId"]) for each in resources]
    assert versions[0] in (acknowledged, acknowledged + 1)
    assert versions == list(range(versions[0], 0, -1))
    assert [int(each["code"]["text"]) for each in resources] == versions
    times = [each["meta"]["lastUpdated"] for each in resources]
    assert times == sorted(times, reverse=True) and len(set(times)) == len(times)
    assert len(await search(client, "Basic", f"{name}-v{versions[0]}")) == 1
    assert await search(client, "Basic", f"{name}-v{versions[0] - 1}") == []


async def rounds(folder: Path, count: int) -> Answered:
    """Kill and start again; each round checks what the one before wrote, and the end checks everything."""
    database, roll = folder / "fhir.db", random.Random(SEED)
    everything, before = Answered(), Answered()
    for number in range(count):
        with serving_process(database) as process:
            await check(process, before)
            before = Answered()
            await storm(process, before, f"r{number}", roll)
            merge(everything, before)
        found = await verify_store(Settings(store=f"sqlite:///{database}"))
        assert (found.faults, found.resources > 0) == ([], True)
    with serving_process(database) as process:
        await check(process, everything)
    check_file(database)
    return everything


def merge(everything: Answered, answered: Answered) -> None:
    everything.creates |= answered.creates
    everything.transactions |= answered.transactions
    everything.begun |= answered.begun
    everything.versions |= answered.versions


def check_file(database: Path) -> None:
    """The file is sound, and no index row lacks its resource."""
    connection = sqlite3.connect(database)
    assert list(rows(connection, "PRAGMA integrity_check")) == ["ok"]
    for table in ("term", "date", "number"):
        orphans = f"SELECT count(*) FROM {table} WHERE rid NOT IN (SELECT rid FROM resource WHERE deleted = 0)"
        assert list(rows(connection, orphans)) == [0]
    versions = "(SELECT count(*) FROM version v WHERE v.rid = r.rid)"
    unversioned = f"SELECT count(*) FROM resource r WHERE r.version <> {versions}"
    assert list(rows(connection, unversioned)) == [0]
    connection.close()


def rows(connection: sqlite3.Connection, statement: str) -> Iterator[Any]:
    return (row[0] for row in connection.execute(statement))


async def test_killed_a_few_times(tmp_path: Path) -> None:
    answered = await rounds(tmp_path, 2)
    assert answered.least() >= 2 * ANSWERS and max(answered.versions.values()) > 1


@pytest.mark.long
async def test_killed_often(tmp_path: Path) -> None:
    answered = await rounds(tmp_path, 12)
    assert answered.least() >= 12 * ANSWERS


async def test_the_writer_waits_for_the_disk(known: Knowledge, tmp_path: Path) -> None:
    """In WAL mode FULL (2) syncs at each commit, NORMAL does not: https://www.sqlite.org/pragma.html#pragma_synchronous."""
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db") as client:
        writer = client.server.context.unrestricted._writer  # type: ignore[attr-defined]
        level = await writer.submit(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
        journal = await writer.submit(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()[0])
    assert (level, journal) == (2, "wal")
