"""`$bulk-publish` and its links: a link opens that very time, or says what is free instead, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fhir_server.app import Knowledge, Seams
from mappers.scheduling.elements import extension_value
from mappers.scheduling.extensions import BOOKING_LINK, PUBLISH_SLOTS, SLOT_CAPACITY
from tests.conftest import Client, serving
from tests.mappers.scheduling.scheduling_resources import parameters, role, schedule
from tests.operations.scheduling.booking_clinic import CHICAGO, Clock, Tree, call, doctors, patients, store
from tests.workers.hl7v2_messages import choose_store

pytestmark = pytest.mark.anyio

PINE = "Practitioner/pine"
PUBLISHED = [
    *doctors(),
    *patients(),
    role("pine-role", PINE, ("08:00:00", "10:00:00"), days=["mon"]),
    schedule(
        "pine",
        PINE,
        extension=[CHICAGO, {"url": PUBLISH_SLOTS, "valueBoolean": True}, parameters(horizon=7 * 1440)],
        serviceType=[{"text": "visit"}],
    ),
]


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return choose_store(request, tmp_path)


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with serving(known, Seams(clock=Clock()), store=store_uri) as client:
        await store(client, PUBLISHED)
        yield client


async def publish(client: Client) -> list[Tree]:
    """The Slots of a publication, by its manifest."""
    manifest = (await client.fhir("GET", "$bulk-publish", headers={"accept": "application/json"})).json()
    assert manifest["transactionTime"].startswith("2026-03-01T12:00:00")
    found: list[Tree] = []
    for each in manifest["output"]:
        answer = await client.fhir("GET", each["url"])
        assert answer.headers["content-type"] == "application/fhir+ndjson"
        found += [json.loads(line) for line in answer.text.splitlines()]
    return [each for each in found if each["resourceType"] == "Slot"]


async def open_link(client: Client, slot: Tree, more: str = "") -> list[Tree]:
    answer = await client.fhir("GET", extension_value(slot, BOOKING_LINK) + more)
    assert answer.status_code == 200, answer.text
    return [each["resource"] for each in answer.json()["entry"]]


async def test_a_published_link_opens_that_time_and_is_gone_when_it_is_booked(clinic: Client) -> None:
    slots = await publish(clinic)
    assert [each["start"][11:16] for each in slots] == ["14:00", "14:30", "15:00", "15:30"]  # of pine alone
    assert {extension_value(each, SLOT_CAPACITY) for each in slots} == {1}
    before = (await clinic.get("_history?_count=1000")).json()["entry"]
    (proposed,) = await open_link(clinic, slots[1], "&source=app&booking-referral=7")
    assert (proposed["start"], proposed["end"]) == (slots[1]["start"], slots[1]["end"])
    assert (await clinic.get("_history?_count=1000")).json()["entry"] == before
    booked = await call(
        clinic, "Appointment/$book", appointment_reference=proposed["id"], patient_reference="Patient/ada"
    )
    assert booked.status_code == 201, booked.text
    assert [each["start"][11:16] for each in await publish(clinic)] == ["14:00", "15:00", "15:30"]
    *times, outcome = await open_link(clinic, slots[1])
    assert [each["start"][11:16] for each in times] == ["15:00", "15:15", "15:30"]
    assert "not free any more" in outcome["issue"][0]["diagnostics"]


async def test_the_link_is_the_page_of_the_site_where_it_has_one(known: Knowledge) -> None:
    page = "https://clinic.example/book?lang=en"
    async with serving(known, Seams(clock=Clock()), store="memory://", booking_page=page) as client:
        await store(client, PUBLISHED)
        link = urlsplit(extension_value((await publish(client))[0], BOOKING_LINK))
        asked = {name: value[0] for name, value in parse_qs(link.query).items()}
        assert (link.netloc, asked["lang"], asked["schedule"]) == ("clinic.example", "en", "Schedule/pine")
        assert (asked["start"], asked["end"]) == ("2026-03-02T14:00:00.000Z", "2026-03-02T14:30:00.000Z")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("Schedule/elm/$open-time?start=2026-03-02T14:00:00Z&end=2026-03-02T14:30:00Z", 404),
        ("Schedule/nobody/$open-time?start=2026-03-02T14:00:00Z&end=2026-03-02T14:30:00Z", 404),
        ("Schedule/pine/$open-time?start=2026-03-02T14:00:00Z", 400),
        ("Schedule/pine/$open-time?start=2026-03-02T14:00:00Z&end=2026-03-02T14:00:00Z", 400),
        ("Schedule/pine/$open-time?start=2026-03-02T14:00:00Z&end=2027-03-02T14:00:00Z", 400),
        ("Schedule/pine/$open-time?start=tomorrow&end=2026-03-02T14:30:00Z", 400),
        ("$bulk-publish?file=Patient", 400),
        ("$bulk-publish?file=Slot&part=0", 400),
        ("$bulk-publish?file=Slot&part=99", 200),
    ],
)
async def test_what_is_not_published_or_makes_no_sense_is_said(clinic: Client, url: str, status: int) -> None:
    answer = await clinic.fhir("GET", url)
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["issue"][0]["diagnostics"]
