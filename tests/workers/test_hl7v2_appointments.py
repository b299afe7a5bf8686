"""SIU through the message log: the owner of a Schedule decides whether a time may be taken twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import choose_store, code, msh, north, pid, resources, segment, take, with_partners

pytestmark = pytest.mark.anyio

NPI = "http://hl7.org/fhir/sid/us-npi"
WREN = "1700000007^WREN^IVO^^^^^^&2.16.840.1.113883.4.6&ISO^^^^NPI"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path), invariants="enforce") as client:
        with_partners(client, north(), north("SOUTH", "urn:oid:9"))
        yield client


def siu(
    event: str, number: str, start: str = "203603051000-0600", control: str = "", f4: str = "NORTH", **sch: str
) -> str:
    """A visit of half an hour of a patient of its own to Dr. Wren."""
    time = f"203603041200{len(control):02d}-0600"
    head = msh(f"SIU^{event}", control or f"{event}{number}", time, f4=f4)
    booking = segment("SCH", f2=f"{number}^PMS", f9="30", f10="min", f11=f"^^^{start}", **sch)
    return head + booking + pid(f"P{number}") + "RGS|1\r" + segment("AIP", f1="1", f3=WREN)


async def slots(client: Client) -> list[tuple[str, bool]]:
    """Status of each Slot by start, and whether it is overbooked."""
    found = await resources(client, "Slot?_sort=start")
    return [(each["status"], each.get("overbooked", False)) for each in found]


async def put(client: Client, resource: dict[str, Any]) -> None:
    answer = await client.fhir("PUT", f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert answer.status_code in (200, 201), answer.text


async def own_schedule(client: Client) -> None:
    """Dr. Wren as this server keeps their time."""
    identifier = [{"system": NPI, "value": "1700000007"}]
    await put(client, {"resourceType": "Practitioner", "id": "wren", "identifier": identifier})
    actor = [{"reference": "Practitioner/wren"}]
    await put(client, {"resourceType": "Schedule", "id": "wren", "active": True, "actor": actor})


async def test_a_booking_takes_the_time_and_a_cancellation_gives_it_back(client: Client) -> None:
    assert code(await take(client, siu("S12", "1"))) == "AA"
    (appointment,) = await resources(client, "Appointment")
    assert (appointment["status"], await slots(client)) == ("booked", [("busy", False)])
    (schedule,) = await resources(client, "Schedule")
    assert schedule["extension"][0]["valueString"] == "north"
    assert code(await take(client, siu("S13", "1", "203603051400-0600", "later"))) == "AA"
    (slot,) = await resources(client, "Slot?status=busy")
    assert slot["start"] == "2036-03-05T20:00:00.000Z"
    assert code(await take(client, siu("S15", "1", "203603051400-0600", "much later"))) == "AA"
    (appointment,) = await resources(client, "Appointment")
    assert (appointment["status"], await resources(client, "Slot?status=busy")) == ("cancelled", [])


async def test_the_word_of_a_schedules_partner_is_fact_and_its_overbooking_is_told(client: Client) -> None:
    await take(client, siu("S12", "1"))
    received = await take(client, siu("S12", "2", "203603051015-0600"))
    assert code(received) == "AA", received.reason
    assert b"\rERR|" in received.acknowledgement and b"|W|" in received.acknowledgement
    assert len(await resources(client, "Appointment?status=booked")) == 2
    assert await slots(client) == [("busy", False), ("busy", True)]
    (task,) = [each for each in await resources(client, "Task") if each["code"]["coding"][0]["code"] == "overbooked"]
    (second,) = await resources(client, "Appointment?identifier=2")
    assert task["focus"]["reference"] == f"Appointment/{second['id']}"
    assert "is taken" in task["description"]


async def test_a_conflict_on_our_schedule_is_refused_with_nothing_booked(client: Client) -> None:
    await own_schedule(client)
    assert code(await take(client, siu("S12", "1"))) == "AA"
    received = await take(client, siu("S12", "2", "203603051015-0600"))
    assert (code(received), received.state) == ("AE", "refused")
    assert b"|207^" in received.acknowledgement and b"is taken" in received.acknowledgement
    assert len(await resources(client, "Appointment")) == 1
    (task,) = await resources(client, "Task?status=rejected")
    assert "`Practitioner/wren` is taken" in task["statusReason"]["text"]
    assert await slots(client) == [("busy", False)]
    free = await take(client, siu("S12", "2", "203603051030-0600", "free"))
    assert code(free) == "AA", "the same appointment at a free time is booked"


async def test_of_messages_that_want_one_time_at_once_one_is_booked(client: Client) -> None:
    await own_schedule(client)
    starts = ["1000", "1015", "1020", "1010", "1005"]  # each overlaps every other one
    texts = [siu("S12", str(number), f"20360305{start}-0600") for number, start in enumerate(starts)]
    answers = [code(each) for each in await asyncio.gather(*(take(client, text) for text in texts))]
    assert sorted(answers) == ["AA", *["AE"] * 4]
    assert (len(await resources(client, "Appointment")), await slots(client)) == (1, [("busy", False)])


async def test_another_partner_than_the_owner_overbooks_nothing(client: Client) -> None:
    await take(client, siu("S12", "1"))
    received = await take(client, siu("S12", "2", f4="SOUTH"))
    assert code(received) == "AE", "Dr. Wren is known by NPI, and north keeps the Schedule"
    assert len(await resources(client, "Appointment")) == 1


async def test_a_block_of_time_needs_no_appointment_and_is_given_back(client: Client) -> None:
    assert code(await take(client, siu("S23", "1"))) == "AA"
    assert (await slots(client), await resources(client, "Appointment")) == ([("busy-unavailable", False)], [])
    assert code(await take(client, siu("S24", "1", control="later"))) == "AA"
    assert await slots(client) == [("free", False)]


async def test_a_deletion_of_what_is_not_known_is_refused_where_it_tells_no_time(client: Client) -> None:
    text = msh("SIU^S17", "1") + segment("SCH", f2="9^PMS") + pid()
    received = await take(client, text)
    assert code(received) == "AE" and b"|204^" in received.acknowledgement
