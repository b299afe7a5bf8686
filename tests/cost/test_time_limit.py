"""The time limit ends a write only before its commit was handed to the store."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.store.sqlite.writer import Writer
from tests.conftest import serving
from tests.cost.measuring import JSON

pytestmark = pytest.mark.anyio

LIMIT = 0.5
PATIENT = {"resourceType": "Patient", "id": "p1"}


async def test_a_write_that_waited_too_long_was_not_stored_and_never_will_be(known: Knowledge, tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    async with serving(known, store=f"sqlite:///{database}", request_timeout=LIMIT) as client:
        writer: Any = client.server.context.unrestricted
        turnstile = writer._writer._turnstile
        lock = open(f"{database}.lock", "r+b")  # noqa: SIM115 -- held over awaits
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = await client.put("/Patient/p1", json=PATIENT, headers=JSON)
        assert answer.status_code == 408
        assert "nothing of it was stored, and nothing will be" in answer.text
        fcntl.flock(lock, fcntl.LOCK_UN)
        lock.close()
        assert turnstile is not None
        later = await client.put("/Patient/p2", json=PATIENT | {"id": "p2"}, headers=JSON)
        assert later.status_code == 201
        assert (await client.get("/Patient/p1")).status_code == 404


async def test_a_commit_that_has_begun_is_waited_for(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Writer._settle

    def settle_slowly(self: Writer, jobs: Sequence[Any]) -> Any:
        time.sleep(3 * LIMIT)
        return settle(self, jobs)

    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db", request_timeout=LIMIT) as client:
        monkeypatch.setattr(Writer, "_write_on_loop", lambda self: None)
        monkeypatch.setattr(Writer, "_settle", settle_slowly)
        began = asyncio.get_running_loop().time()
        answer = await client.put("/Patient/p1", json=PATIENT, headers=JSON)
        assert asyncio.get_running_loop().time() - began > LIMIT
        assert answer.status_code == 201
        assert (await client.get("/Patient/p1")).status_code == 200


async def test_of_a_batch_what_was_written_answers_so_and_the_rest_that_it_was_not(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Writer._settle

    def settle_slowly(self: Writer, jobs: Sequence[Any]) -> Any:
        time.sleep(3 * LIMIT)
        return settle(self, jobs)

    entries = [
        {"resource": PATIENT | {"id": f"b{number}"}, "request": {"method": "PUT", "url": f"Patient/b{number}"}}
        for number in range(40)
    ]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db", request_timeout=LIMIT) as client:
        monkeypatch.setattr(Writer, "_write_on_loop", lambda self: None)
        monkeypatch.setattr(Writer, "_settle", settle_slowly)
        answer = await client.post("/", json=bundle, headers=JSON)
        assert answer.status_code == 200
        statuses = [entry["response"]["status"] for entry in answer.json()["entry"]]
        assert set(statuses) == {"201 Created", "408 Request Timeout"}
        for number, status in enumerate(statuses):
            stored = (await client.get(f"/Patient/b{number}")).status_code
            assert stored == (200 if status.startswith("201") else 404), (number, status)
    connection = sqlite3.connect(tmp_path / "fhir.db")
    (count,) = connection.execute("SELECT count(*) FROM version").fetchone()
    connection.close()
    assert count >= statuses.count("201 Created")
