"""SIGTERM finishes what is in flight, refuses what is new, and ends with exit status 0.

The test itself holds the lock of the database, so that the writes are under way for as long as it wants.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.corpora.corpus import JSON
from tests.faults.process import Process, serving_process

pytestmark = pytest.mark.anyio

ENTRIES = 50
IN_FLIGHT = 6
ARRIVED_SECONDS = 1.5
STOP_SECONDS = 40


def bundle(name: str) -> dict[str, Any]:
    entries = [
        {
            "resource": {"resourceType": "Patient", "identifier": [{"system": "urn:example:stop", "value": name}]},
            "request": {"method": "POST", "url": "Patient"},
        }
        for _ in range(ENTRIES)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write inside this."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def stopped_in_the_middle(process: Process, database: Path) -> list[httpx.Response]:
    """Answers of transactions that were under way when the server was told to stop."""
    async with process.client() as client:
        with locked(database):
            bundles = [bundle(f"b{number}") for number in range(IN_FLIGHT)]
            posts = [asyncio.create_task(client.post("/", json=each, headers=JSON)) for each in bundles]
            await asyncio.sleep(ARRIVED_SECONDS)
            process.terminate()
            await asyncio.sleep(ARRIVED_SECONDS)
            assert not any(post.done() for post in posts)
            assert process.popen.poll() is None
            with pytest.raises(httpx.TransportError):  # refused, or with workers never accepted
                async with httpx.AsyncClient(timeout=ARRIVED_SECONDS) as late:
                    await late.get(f"{process.base}/metadata")
        return list(await asyncio.gather(*posts))


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
async def test_what_is_in_flight_is_finished(tmp_path: Path, workers: str) -> None:
    database = tmp_path / "fhir.db"
    with serving_process(database, "--workers", workers) as process:
        answers = await stopped_in_the_middle(process, database)
        assert [answer.status_code for answer in answers] == [200] * IN_FLIGHT
        assert process.popen.wait(STOP_SECONDS) == 0, process.log.read_text()
        assert "Traceback" not in process.log.read_text()
    with serving_process(database) as process:
        async with process.client() as client:
            for number in range(IN_FLIGHT):
                parameters = {"identifier": f"urn:example:stop|b{number}", "_summary": "count"}
                found = (await client.get("/Patient", params=parameters, headers=JSON)).json()
                assert found["total"] == ENTRIES
