"""A database file that is removed or replaced under a server of two workers (fault S2)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import uuid
from pathlib import Path

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import serving
from tests.corpora.corpus import JSON
from tests.faults.process import Process, serving_process, workers

pytestmark = pytest.mark.anyio

PATIENT = {"resourceType": "Patient", "id": "p"}


async def ask(process: Process, method: str, url: str) -> httpx.Response:
    """A request on a connection of its own, so that in turn each worker answers."""
    async with process.client() as client:
        changed = {**PATIENT, "language": str(uuid.uuid4())}
        body = {"json": changed, "headers": JSON} if method == "PUT" else {}
        return await client.request(method, url, **body)  # type: ignore[arg-type]


async def wait_for_workers(process: Process) -> None:
    """Wait until both workers have opened the file."""
    async with asyncio.timeout(60):
        while process.log.read_text().count("Application startup complete") < 2:
            await asyncio.sleep(0.1)


async def refuses_writes(process: Process, says: str, times: int = 8) -> None:
    """Every worker answers 503 with a sentence, to writes and on `/readyz`."""
    for _ in range(times):
        answer = await ask(process, "PUT", "Patient/p")
        assert answer.status_code == 503 and says in answer.json()["issue"][0]["diagnostics"], answer.text
        ready = await ask(process, "GET", process.base.removesuffix("/fhir") + "/readyz")
        assert ready.status_code == 503 and says in ready.json()["reason"], ready.text


async def kill_a_worker(process: Process) -> None:
    """End one of two workers and wait until it was tried to start another one."""
    os.kill(workers(process)[0], signal.SIGKILL)
    async with asyncio.timeout(60):
        while "did not start" not in process.log.read_text():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("endings", [("", "-wal", "-shm"), ("",), ("-wal",)], ids=["all", "database", "log"])
async def test_a_removed_file_is_not_made_again(tmp_path: Path, endings: tuple[str, ...]) -> None:
    database = tmp_path / "fhir.db"
    with serving_process(database, "--workers", "2") as process:
        await wait_for_workers(process)
        assert (await ask(process, "PUT", "Patient/p")).status_code == 201
        for ending in endings:
            (tmp_path / f"fhir.db{ending}").unlink()
        await asyncio.sleep(0.3)  # so often the files beside the database are looked at
        await refuses_writes(process, "was removed")
        if "" in endings:
            await kill_a_worker(process)
            assert not database.exists()
            await refuses_writes(process, "was removed", 2)
        process.terminate()
        assert process.popen.wait(30) == 0
    assert database.exists() == ("" not in endings)


async def test_a_replaced_file_is_left_alone(tmp_path: Path) -> None:
    database, other = tmp_path / "fhir.db", tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (text)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    with serving_process(database, "--workers", "2") as process:
        await wait_for_workers(process)
        assert (await ask(process, "PUT", "Patient/p")).status_code == 201
        shutil.move(other, database)
        await refuses_writes(process, "was replaced by another file")
        await kill_a_worker(process)
        await refuses_writes(process, "was replaced by another file", 2)
        process.terminate()
        assert process.popen.wait(30) == 0
    assert database.read_bytes() == before


async def test_a_file_that_comes_back_is_written_again(tmp_path: Path) -> None:
    database, away = tmp_path / "fhir.db", tmp_path / "away.db"
    with serving_process(database, "--workers", "2") as process:
        await wait_for_workers(process)
        assert (await ask(process, "PUT", "Patient/p")).status_code == 201
        database.rename(away)
        await refuses_writes(process, "was removed", 2)
        away.rename(database)
        assert (await ask(process, "PUT", "Patient/p")).status_code == 200
        ready = await ask(process, "GET", process.base.removesuffix("/fhir") + "/readyz")
        assert (ready.status_code, ready.json()["writes"]) == (200, "possible")


async def test_a_server_that_lost_all_workers_has_them_again_once_its_file_is_back(tmp_path: Path) -> None:
    database, away = tmp_path / "fhir.db", tmp_path / "away.db"
    with serving_process(database, "--workers", "2") as process:
        await wait_for_workers(process)
        assert (await ask(process, "PUT", "Patient/p")).status_code == 201
        database.rename(away)
        for worker in workers(process)[:2]:
            os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(60):
            while process.log.read_text().count("did not start") < 2:
                await asyncio.sleep(0.1)
        assert process.popen.poll() is None and not database.exists()
        away.rename(database)
        answer = await ask(process, "GET", "Patient/p")  # waits for a worker
        assert (answer.status_code, answer.json()["id"]) == (200, "p")


async def test_a_read_only_server_says_so(known: Knowledge, tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    async with serving(known, store=f"sqlite:///{database}"):
        pass
    with serving_process(Path(f"{database}?mode=ro")) as process:
        ready = await ask(process, "GET", process.base.removesuffix("/fhir") + "/readyz")
        assert ready.status_code == 200
        assert "read-only" in ready.json()["writes"]
