"""Appointments of one transaction are held to each other: they are in the way of each other before they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.search.query import Query
from fhir_server.security.access import Reader
from fhir_server.store.protocol import Page
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import PATIENTS, Tree, diagnostics, entries, post, practice, visit

pytestmark = pytest.mark.anyio

PINE, ELM = "Practitioner/pine", "Practitioner/elm"


async def send(client: Client, resources: Sequence[Tree]) -> httpx.Response:
    """One transaction: what has an id is an update, everything else is new."""
    written = []
    for each in resources:
        type, id = each["resourceType"], each.get("id")
        asked = {"method": "PUT", "url": f"{type}/{id}"} if id else {"method": "POST", "url": type}
        written.append({"resource": each, "request": asked})
    return await client.fhir("POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": written})


def overlapping(count: int) -> list[Tree]:
    """Visits of half an hour, each a minute after the one before: all are there at the end of the first."""
    return [visit(f"10:{minute:02}", f"10:{minute + 30:02}", PINE) for minute in range(count)]


@pytest.mark.parametrize("capacity", [1, 3])
async def test_as_many_visits_of_a_transaction_fit_as_the_capacity_says(
    known: Knowledge, store_uri: str, capacity: int
) -> None:
    async with practice(known, store_uri, capacity=capacity) as clinic:
        beside = [visit("14:00", "14:30", PINE), visit("14:30", "15:00", PINE)]
        refused = await send(clinic, [*beside, *overlapping(capacity + 1)])
        assert refused.status_code == 409, refused.text
        assert "`Practitioner/pine`" in diagnostics(refused)
        assert await entries(clinic, "Appointment") == await entries(clinic, "Slot") == []
        assert (await send(clinic, [*beside, *overlapping(capacity)])).status_code == 200
        assert len(await entries(clinic, "Appointment")) == capacity + 2
        assert (await clinic.post("Appointment", json=overlapping(1)[0])).status_code == 409


async def test_a_long_visit_of_a_transaction_is_in_the_way_hours_later(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as clinic:
        refused = await send(clinic, [visit("08:00", "16:00", PINE), visit("15:30", "16:00", PINE)])
        assert refused.status_code == 409, refused.text
        assert (await send(clinic, [visit("08:00", "15:30", PINE), visit("15:30", "16:00", PINE)])).status_code == 200


async def test_what_a_transaction_moves_or_cancels_is_not_in_the_way_where_it_was(
    known: Knowledge, store_uri: str
) -> None:
    async with practice(known, store_uri) as clinic:
        moved, cancelled = (
            await post(clinic, visit("10:00", "10:30", PINE)),
            await post(clinic, visit("11:00", "11:30", PINE)),
        )
        later = visit("13:00", "13:30", PINE, id=moved["id"])
        off = {**cancelled, "status": "cancelled"}
        new = [visit("10:00", "10:30", PINE), visit("11:00", "11:30", PINE)]
        refused = await send(clinic, [later, off, *new, visit("13:15", "13:45", PINE)])
        assert refused.status_code == 409 and "`Practitioner/pine`" in diagnostics(refused), refused.text
        accepted = await send(clinic, [later, off, *new])
        assert accepted.status_code == 200, accepted.text


async def test_a_transaction_asks_for_each_actor_and_day_once(
    known: Knowledge, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with practice(known, store_uri) as clinic:
        await check_looks(clinic, monkeypatch)


async def test_a_transaction_asks_for_each_actor_and_day_once_on_mongo(
    known: Knowledge, new_mongo_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with practice(known, new_mongo_uri()) as clinic:
        await check_looks(clinic, monkeypatch)


async def check_looks(clinic: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve visits of two doctors, four patients and two days, two of them of one patient at one time."""
    asked: list[Query] = []
    search = Reader.search

    async def note(self: Reader, query: Query) -> Page:
        asked.append(query)
        return await search(self, query)

    monkeypatch.setattr(Reader, "search", note)
    entry = []
    for number in range(12):
        start = f"2026-03-{2 + number % 2:02d}T{10 + number // 2}:00:00-06:00"
        end = f"2026-03-{2 + number % 2:02d}T{10 + number // 2}:30:00-06:00"
        people = ((PINE, ELM)[number // 2 % 2], f"Patient/{PATIENTS[number % 4]}")
        entry.append({"resource": visit(start, end, *people), "request": {"method": "POST", "url": "Appointment"}})
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
    assert (await clinic.post("", json=body)).status_code == 200
    looks = [query for query in asked if any(scope.type == "Appointment" for scope in query.scopes)]
    assert len(looks) == 2 * 2 + 4  # each patient comes on one day only
    assert (await clinic.post("", json=body)).status_code == 409
