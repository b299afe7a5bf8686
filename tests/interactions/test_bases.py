"""The base URL is a fact of the store: no reindex and no other name changes what a reference leads to (fault S1).

https://hl7.org/fhir/R4/references.html#literal: an absolute URL refers to this server where it is below its base.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge, Seams
from fhir_server.requests.bases import MOST_BASES
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

ONE, OTHER, SECURE = "http://one.example/fhir", "http://127.0.0.1:8000/fhir", "https://fhir.clinic.example/fhir"
FOREIGN = "http://elsewhere.example/fhir"
NAMES = (ONE, OTHER, SECURE)


@asynccontextmanager
async def named(client: Client, base: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same server by another name."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(client.server.api), base_url=base) as other:
        yield other


def observe(id: str, subject: str) -> dict[str, Any]:
    code = {"text": "x"}
    return {"resourceType": "Observation", "id": id, "status": "final", "code": code, "subject": {"reference": subject}}


async def fill(client: Client) -> None:
    """A Patient, and Observations that refer to it by each form; ONE and OTHER are the names by which it is written."""
    async with named(client, OTHER) as other, named(client, ONE) as one:
        made = await other.put("/Patient/p1", json={"resourceType": "Patient", "id": "p1"})
        assert made.status_code == 201, made.text
        for id, subject in (("relative", "Patient/p1"), ("own", f"{ONE}/Patient/p1"), ("other", f"{OTHER}/Patient/p1")):
            assert (await one.put(f"/Observation/{id}", json=observe(id, subject))).status_code == 201
        assert (await one.put("/Observation/foreign", json=observe("foreign", f"{FOREIGN}/Patient/p1"))).is_success


async def find(client: Client, base: str, query: str) -> set[str]:
    """The ids of what a search by a name of the server finds, includes too; its self link is by that name."""
    async with named(client, base) as asking:
        bundle = (await asking.get(f"/{query}")).json()
    links = {link["relation"]: link["url"] for link in bundle["link"]}
    assert links["self"].startswith(f"{base}/Observation?")
    return {entry["resource"]["id"] for entry in bundle.get("entry", ())}


async def check_answers(client: Client) -> None:
    """What search, include and delete say by every name is the same."""
    ours = {"relative", "own", "other"}
    for base in NAMES:
        for value in ("Patient/p1", f"{ONE}/Patient/p1", f"{OTHER}/Patient/p1"):
            assert await find(client, base, f"Observation?subject={value}") == ours, (base, value)
        assert await find(client, base, "Observation?_include=Observation:subject") == {*ours, "foreign", "p1"}
        assert await find(client, base, f"Observation?subject={FOREIGN}/Patient/p1") == {"foreign"}
        for id in ours:
            found = await find(client, base, f"Observation?_id={id}&_include=Observation:subject")
            assert found == {id, "p1"}, (base, id)
        async with named(client, base) as asking:
            refused = await asking.delete("/Patient/p1")
        assert refused.status_code == 409
        assert all(f"`Observation/{id}` (Observation.subject.reference)" in refused.text for id in ours)


async def reindex_by(client: Client, base: str) -> None:
    async with named(client, base) as asking:
        assert (await asking.post("/$reindex")).status_code == 202
        async with asyncio.timeout(60):
            while (await asking.get("/$reindex")).status_code == 202:
                await asyncio.sleep(0.02)
        (status, *_) = (await asking.get("/$reindex")).json()["parameter"]
        assert status["valueCode"] == "complete"


async def test_no_reindex_by_any_name_changes_an_answer(known: Knowledge, store_uri: str) -> None:
    async with serving(known, Seams(definitions=None), store=store_uri) as client:
        await fill(client)
        await check_answers(client)
        for base in NAMES:
            await reindex_by(client, base)
            await check_answers(client)
        assert set(client.server.context.bases.known) == {ONE, OTHER}, "what only reads is no base"


async def test_nor_does_the_command_or_a_new_name(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, Seams(definitions=None), store=uri) as client:
        await fill(client)
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["reindex", "Observation", "Patient", "--store", uri])
    assert result.exit_code == 0, result.output
    async with serving(known, Seams(definitions=None), store=uri, base_url=SECURE) as client:
        await check_answers_by_setting(client)
        await reindex_by(client, SECURE)
        await check_answers_by_setting(client)


async def check_answers_by_setting(client: Client) -> None:
    async with named(client, OTHER) as asking:
        found = (await asking.get(f"/Observation?subject={OTHER}/Patient/p1")).json()
        assert [link["url"] for link in found["link"]] == [f"{SECURE}/Observation?subject={OTHER}/Patient/p1"]
        assert found["total"] == 3
        assert (await asking.delete("/Patient/p1")).status_code == 409


async def test_another_process_knows_the_names(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    seams = Seams(definitions=None)
    async with serving(known, seams, store=uri) as client, serving(known, seams, store=uri) as beside:
        await fill(client)
        await beside.server.context.bases.reload()
        await check_answers(beside)


async def test_a_store_without_a_known_name_is_not_reindexed(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--store", uri])
        return result.exit_code, result.output

    async with serving(known, Seams(definitions=None), store=uri) as client:
        await fill(client)
        for base in client.server.context.bases.known:  # as an earlier version left it
            assert await client.server.context.bases.retire(base)
        async with named(client, OTHER) as asking:
            refused = await asking.post("/$reindex")
        assert (refused.status_code, "fhir-server bases add" in refused.text) == (409, True)
    status, said = await run("reindex")
    assert status == 1 and "fhir-server bases add" in said
    assert (await run("bases", "add", "fhir.example"))[0] == 2
    assert (await run("bases", "add", f"{ONE}/"))[0] == 0
    assert (await run("bases", "add", OTHER))[0] == 0
    assert set((await run("bases", "list"))[1].split()) == {ONE, OTHER}
    assert (await run("reindex", "Observation"))[0] == 0
    async with serving(known, Seams(definitions=None), store=uri) as client:
        await check_answers(client)
    assert (await run("bases", "retire", OTHER))[0] == 0
    assert (await run("bases", "retire", OTHER))[0] == 1
    assert (await run("bases", "list"))[1].split() == [ONE]


async def test_a_name_below_another(known: Knowledge, store_uri: str) -> None:
    """As where a proxy put the server under a path later."""
    above = ONE.removesuffix("/fhir")
    async with serving(known, Seams(definitions=None), store=store_uri) as client, named(client, ONE) as one:
        await client.server.context.bases.remember(above)
        for id, base in (("a", above), ("b", ONE)):
            await one.put(f"/Patient/{id}", json={"resourceType": "Patient", "id": id})
            assert (await one.put(f"/Observation/{id}", json=observe(id, f"{base}/Patient/{id}"))).status_code == 201
            assert await find(client, OTHER, f"Observation?subject=Patient/{id}") == {id}


async def test_names_have_a_limit(known: Knowledge) -> None:
    async with serving(known, Seams(definitions=None), store="memory://") as client:
        statuses = []
        for number in range(MOST_BASES + 1):
            async with named(client, f"http://127.0.0.1:{number + 1}/fhir") as asking:
                statuses.append((await asking.post("/Patient", json={"resourceType": "Patient"})).status_code)
        assert statuses == [201] * MOST_BASES + [413]
        async with named(client, "http://127.0.0.1:1/fhir") as asking:
            assert (await asking.post("/Patient", json={"resourceType": "Patient"})).status_code == 201
