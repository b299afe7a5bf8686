"""`$find` over many calendars: read hour by hour, it finds what reading whole days finds, and reads less."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.scheduling import availability
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import Tree, doctors, practice, store, visit

pytestmark = pytest.mark.anyio

NAMES = [f"doctor-{number}" for number in range(12)]
HALF_HOUR = timedelta(minutes=30)


def visits(days: Iterable[str], share: float, rng: random.Random) -> list[Tree]:
    """Half hours of each doctor from 08:00 to 18:00 in Chicago, so many of them booked, on these days."""
    found = []
    for day in days:
        opening = datetime.fromisoformat(f"{day}T08:00:00-06:00")
        for name in NAMES:
            for number in range(20):
                start = opening + number * HALF_HOUR
                if rng.random() < share:
                    end = start + HALF_HOUR
                    found.append(visit(start.isoformat(), end.isoformat(), f"Practitioner/{name}"))
    return found


async def furnish(client: Client, appointments: list[Tree], **rules: Any) -> None:
    await store(client, doctors(NAMES, **rules))
    entry = [{"resource": each, "request": {"method": "POST", "url": "Appointment"}} for each in appointments]
    for at in range(0, len(entry), 100):
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entry[at : at + 100]}
        assert (await client.post("", json=bundle)).status_code == 200


async def read_pages(client: Client, query: str, pages: int = 4) -> list[tuple[str, list[str], str]]:
    """(start, actors, reasons) of the entries of the first pages."""
    found: list[tuple[str, list[str], str]] = []
    url: str | None = f"Appointment/$find?{query}"
    while url and pages:
        bundle = (await client.get(url)).json()
        for each in (entry["resource"] for entry in bundle["entry"]):
            actors = [person["actor"]["reference"] for person in each.get("participant", ())]
            found.append((each.get("start", ""), actors, str(each.get("issue", ""))))
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        pages -= 1
    return found


@pytest.mark.parametrize("rules", [{}, {"mostPerDay": 17}, {"capacity": 2, "bufferAfter": 15, "minimumNotice": 60}])
async def test_hour_by_hour_finds_what_whole_days_find(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch, rules: dict[str, int]
) -> None:
    async with practice(known) as client:
        await furnish(client, visits(("2026-03-02", "2026-03-03"), 0.8, random.Random(7)), **rules)
        for more in ("", "&location-reference=Location/room-1&patient-reference=Patient/ada", "&start=2026-03-02"):
            start = "" if "start=" in more else "&start=2026-03-02T15:20:00Z"
            query = f"end=2026-03-04{start}{more}&_count=7"
            monkeypatch.setattr(availability, "_MANY", 0)
            by_hours = await read_pages(client, query)
            monkeypatch.setattr(availability, "_MANY", 10**6)
            assert by_hours == await read_pages(client, query)
            assert len(by_hours) == 28 and all(start for start, _, _ in by_hours)


async def test_full_days_are_explained_and_gone_past(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_MANY", 0)
    who = "&".join(f"practitioner=Practitioner/{name}" for name in NAMES)
    async with practice(known) as client:
        await furnish(client, visits(("2026-03-02", "2026-03-03"), 1.0, random.Random(7)))
        (nothing,) = await read_pages(client, f"start=2026-03-02&end=2026-03-03&{who}")
        assert "All times in this window are booked." in nothing[2]
        (first, *_) = await read_pages(client, f"start=2026-03-02&end=2026-03-05&{who}", pages=1)
        assert first[0] == "2026-03-04T14:00:00.000Z"


async def test_the_first_page_reads_a_part_of_the_first_day(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    read_unseen = availability.read_unseen

    async def count(*arguments: Any) -> list[Tree]:
        nonlocal read
        found = await read_unseen(*arguments)
        read += len(found)
        return found

    monkeypatch.setattr(availability, "read_unseen", count)
    booked = visits(("2026-03-02",), 0.8, random.Random(7))
    who = "&".join(f"practitioner=Practitioner/{name}" for name in NAMES)
    async with practice(known) as client:
        await furnish(client, booked)
        numbers = []
        for many in (0, 10**6):
            read = 0
            monkeypatch.setattr(availability, "_MANY", many)
            await read_pages(client, f"start=2026-03-02&end=2026-03-30&_count=1&{who}", pages=1)
            numbers.append(read)
    assert numbers[1] == len(booked)
    assert numbers[0] < numbers[1] * 0.7
