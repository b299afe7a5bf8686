"""A full disk and a read-only file answer 503 with a sentence, leave nothing half-written, and pass.

https://www.sqlite.org/pragma.html#pragma_max_page_count
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.store.protocol import StoreUnavailable
from tests.conftest import Client, serving
from tests.corpora.corpus import JSON, walk

pytestmark = pytest.mark.anyio

ENOUGH = 2**30
SYSTEM = "urn:example:disk"


async def limit_pages(client: Client, spare: int | None) -> None:
    """Let the file grow by `spare` pages and no more; None: as far as it likes."""
    writer = client.server.context.unrestricted._writer  # type: ignore[attr-defined]

    def limit(connection: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {ENOUGH if spare is None else pages + spare}")

    await writer.submit(limit)


def patient(number: int) -> dict[str, Any]:
    """About 3 kB with many index entries."""
    names = [{"family": f"family-{number}-{each}-{'x' * 40}", "given": ["y" * 40]} for each in range(20)]
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": str(number)}], "name": names}


def bundle(start: int, count: int) -> dict[str, Any]:
    entries = [
        {"resource": patient(number), "request": {"method": "POST", "url": "Patient"}}
        for number in range(start, start + count)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def unavailable(answer: httpx.Response, says: str) -> None:
    assert answer.status_code == 503, answer.text
    (issue,) = answer.json()["issue"]
    assert says in issue["diagnostics"] and issue["diagnostics"].endswith(".")
    assert issue["severity"] in ("error", "fatal")
    assert int(answer.headers["retry-after"]) > 0


async def state(client: Client) -> tuple[list[tuple[str, str]], int, int]:
    """All versions, how many patients there are, and how many the index has."""
    pages = await walk(client, "/_history?_count=500")
    entries = [entry for page in pages for entry in page.get("entry", ())]  # type: ignore[attr-defined]
    versions = [(entry["resource"]["id"], entry["resource"]["meta"]["versionId"]) for entry in entries]
    patients = (await client.fhir("GET", "/Patient?_summary=count")).json()["total"]
    indexed = (await client.fhir("GET", f"/Patient?identifier={SYSTEM}|&_summary=count")).json()["total"]
    return versions, patients, indexed


async def test_a_full_disk(known: Knowledge, tmp_path: Path) -> None:
    async with serving(known, Seams(definitions=None), store=f"sqlite:///{tmp_path}/fhir.db") as client:
        kept = {"resourceType": "Patient", "id": "kept", "identifier": [{"system": SYSTEM, "value": "kept"}]}
        assert (await client.fhir("PUT", "/Patient/kept", json=kept, headers=JSON)).status_code == 201
        await limit_pages(client, 40)
        made = 0
        while (answer := await client.post("/Patient", json=patient(made), headers=JSON)).status_code == 201:
            made += 1
            assert made < 200
        unavailable(answer, "full")
        await limit_pages(client, 0)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="disk of the database is full"):
                await client.server.context.unrestricted.check_writable()
        before = await state(client)
        assert before[1] == before[2] == made + 1 and len(before[0]) == made + 1

        unavailable(await client.post("/", json=bundle(1000, 60), headers=JSON), "full")
        large = {**kept, "name": [{"text": "z" * 200_000}]}
        unavailable(await client.put("/Patient/kept", json=large, headers=JSON), "full")
        assert await state(client) == before
        stored = await client.fhir("GET", "/Patient/kept")
        assert stored.json()["meta"]["versionId"] == "1" and "name" not in stored.json()

        await limit_pages(client, None)
        await client.server.context.unrestricted.check_writable()
        assert (await client.post("/", json=bundle(1000, 60), headers=JSON)).status_code == 200
        assert (await client.put("/Patient/kept", json=large, headers=JSON)).headers["etag"] == 'W/"2"'
        after = await state(client)
        assert after[1] == after[2] == made + 61 and len(after[0]) == made + 62
    async with serving(known, Seams(definitions=None), store=f"sqlite:///{tmp_path}/fhir.db") as client:
        assert await state(client) == after


async def test_a_disk_with_next_to_nothing_left(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(known, Seams(definitions=None), store=f"sqlite:///{tmp_path}/fhir.db") as client:
        store = client.server.context.unrestricted
        await store.check_writable()
        monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=3, f_frsize=4096))
        with pytest.raises(StoreUnavailable, match="12,288 bytes left"):
            await store.check_writable()


async def test_a_full_disk_refuses_only_what_does_not_fit(known: Knowledge, tmp_path: Path) -> None:
    """Writes that wait together are committed together; one that is too large does not take the others with it."""
    async with serving(known, Seams(definitions=None), store=f"sqlite:///{tmp_path}/fhir.db") as client:
        await limit_pages(client, 60)
        small = [
            client.post("/Patient", json={"resourceType": "Patient", "active": True}, headers=JSON) for _ in range(5)
        ]
        answers = await asyncio.gather(*small[:3], client.post("/", json=bundle(0, 200), headers=JSON), *small[3:])
        assert [answer.status_code for answer in answers] == [201, 201, 201, 503, 201, 201]
        assert (await client.fhir("GET", "/Patient?_summary=count")).json()["total"] == 5


async def refuses_writes(known: Knowledge, uri: str, id: str) -> None:
    async with serving(known, Seams(definitions=None), store=uri) as client:
        assert (await client.fhir("GET", f"/Patient/{id}")).json()["meta"]["versionId"] == "1"
        before = await state(client)
        assert before[1:] == (1, 1)
        changed = {**patient(0), "id": id, "active": False}
        for method, url, body in (
            ("POST", "/Patient", patient(1)),
            ("PUT", f"/Patient/{id}", changed),
            ("POST", "/", bundle(2, 3)),
        ):
            unavailable(await client.request(method, url, json=body, headers=JSON), "read-only")
        unavailable(await client.delete(f"/Patient/{id}"), "read-only")
        assert await state(client) == before


async def one_patient(known: Knowledge, uri: str) -> str:
    async with serving(known, Seams(definitions=None), store=uri) as client:
        made = await client.fhir("POST", "/Patient", json=patient(0), headers=JSON)
        assert made.status_code == 201
        return str(made.json()["id"])


async def test_a_store_opened_read_only(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    await refuses_writes(known, f"{uri}?mode=ro", await one_patient(known, uri))
    async with serving(known, Seams(definitions=None), store=uri) as client:
        assert (await client.fhir("POST", "/Patient", json=patient(1), headers=JSON)).status_code == 201


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only files")
async def test_a_read_only_file(known: Knowledge, tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    id = await one_patient(known, f"sqlite:///{database}")
    database.chmod(0o444)
    try:
        await refuses_writes(known, f"sqlite:///{database}", id)
    finally:
        database.chmod(0o644)
