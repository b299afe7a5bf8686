"""A walk through pages shows each resource that does not change exactly once, whatever else is written meanwhile.

https://hl7.org/fhir/R4/http.html#paging
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.corpora.corpus import JSON, next_page

pytestmark = pytest.mark.anyio

STABLE = 60
CHANGING = 40
PAGE = 7
MOST_WRITES = 250
SEED = 11
FAMILIES = ("Aalto", "Berg", "Çelik", "dela Cruz", "Émile", "Fischer")

Tree = dict[str, Any]


def person(roll: random.Random, **more: Any) -> Tree:
    """Names and birth dates with many ties; some have none."""
    made: Tree = {"resourceType": "Patient", **more}
    if roll.random() < 0.85:
        made["name"] = [{"family": roll.choice(FAMILIES), "given": [roll.choice("abcdef")]}]
    if roll.random() < 0.85:
        made["birthDate"] = f"19{roll.randint(50, 60)}" + roll.choice(("", "-04", "-04-17"))
    return made


async def put(client: Client, patient: Tree) -> None:
    answer = await client.put(f"/Patient/{patient['id']}", json=patient, headers=JSON)
    assert answer.status_code in (200, 201), answer.text


async def fill(client: Client, roll: random.Random) -> None:
    for number in range(max(STABLE, CHANGING)):
        if number < STABLE:
            await put(client, person(roll, id=f"{roll.randrange(16**4):04x}-stable-{number}"))
        if number < CHANGING:
            await put(client, person(roll, id=f"changing-{number}"))


async def churn(client: Client, roll: random.Random, stop: asyncio.Event) -> int:
    """Create, update and delete until told to stop; how many writes.

    They end at some time: a walk by ascending `_lastUpdated` would follow them for ever.
    """
    writes = 0
    while not stop.is_set() and writes < MOST_WRITES:
        kind, number = roll.random(), roll.randrange(CHANGING)
        if kind < 0.4:
            await put(client, person(roll, id=f"changing-{number}"))
        elif kind < 0.7:
            await client.fhir("DELETE", f"/Patient/changing-{number}")
        else:
            await put(client, person(roll, id=f"{roll.randrange(16**6):06x}-fresh"))
        writes += 1
        await asyncio.sleep(0)
    return writes


IDS, DATES, NAMES = ("", "_id", "-_id"), ("birthdate", "-birthdate"), ("name", "-name", "family,-birthdate")
SORTS = (*IDS, *DATES, *NAMES, "_lastUpdated", "-_lastUpdated")


@pytest.mark.parametrize("sort", SORTS)
async def test_what_does_not_change_appears_once(known: Knowledge, store_uri: str, sort: str) -> None:
    roll = random.Random(SEED)
    async with serving(known, store=store_uri) as client:
        await fill(client, roll)
        stop = asyncio.Event()
        writing = asyncio.create_task(churn(client, roll, stop))
        parameters = {"_count": PAGE} | ({"_sort": sort} if sort else {})
        page: dict[str, Any] | None = (await client.fhir("GET", "/Patient", params=parameters)).json()
        found: list[str] = []
        while page is not None:
            found += [entry["resource"]["id"] for entry in page.get("entry", ())]
            await asyncio.sleep(0.01)
            page = await next_page(client, page)
        stop.set()
        assert await writing > 10
    stable = [id for id in found if "stable" in id]
    assert len(stable) == len(set(stable)) == STABLE
    if sort in ("", "_id"):
        assert found == sorted(found)
        assert len(found) == len(set(found))


async def test_a_history_walk_shows_each_earlier_version_once(known: Knowledge, store_uri: str) -> None:
    roll = random.Random(SEED)
    async with serving(known, store=store_uri) as client:
        await fill(client, roll)
        stop = asyncio.Event()
        page: dict[str, Any] | None = (await client.fhir("GET", f"/Patient/_history?_count={PAGE}")).json()
        writing = asyncio.create_task(churn(client, roll, stop))
        found: list[tuple[str, str]] = []
        while page is not None:
            resources = [entry["resource"] for entry in page["entry"]]
            found += [(each["id"], each["meta"]["versionId"]) for each in resources]
            page = await next_page(client, page)
        stop.set()
        await writing
    # all were at version 1 when the walk began; what came after it is newer than its first page
    assert len(found) == len(set(found)) == STABLE + CHANGING
    assert {version for _, version in found} == {"1"}
