"""The worker of the waitlist: what becomes free is offered to one after the other, by whatever door it became free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.workers.holds import tidy_holds
from fhir_server.workers.waitlist import offer_freed_times
from tests.conftest import Client, serving
from tests.mappers.scheduling.scheduling_resources import at
from tests.operations.scheduling.booking_clinic import (
    Clock,
    Tree,
    call,
    diagnostics,
    doctors,
    entries,
    patch_status,
    patients,
    post,
    room,
    store,
    visit,
)
from tests.workers.hl7v2_messages import choose_store
from tests.workers.teams import take_turn

pytestmark = pytest.mark.anyio

PINE, ELM, ROOM = "Practitioner/pine", "Practitioner/elm", "Location/room-1"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return choose_store(request, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(known, Seams(clock=clock), store=store_uri, offer_minutes=30) as client:
        await store(client, [*doctors(), room(), *patients()])
        await work(client)  # from now on it follows
        yield client


def waiting(patient: str, created: str = "2026-02-01", *actors: str, **more: Any) -> Tree:
    people = [{"actor": {"reference": actor}, "status": "accepted"} for actor in (f"Patient/{patient}", *actors)]
    tree = {"resourceType": "Appointment", "id": f"w-{patient}", "status": "waitlist", "created": created}
    return {**tree, "participant": people, **more}


async def work(client: Client, owner: str = "test") -> None:
    """Steps until there is nothing more to do."""
    turn = await take_turn(client.server.context, "waitlist", owner)
    while (await offer_freed_times(turn)).done:
        pass


async def book(client: Client, start: str, end: str, *actors: str) -> Tree:
    return await post(client, visit(start, end, *actors))


async def list_standing(client: Client) -> dict[str, str]:
    """Appointment on the waitlist → its status, with the start of what is offered or booked."""
    found = await entries(client, "Appointment?_count=100")
    return {
        each["id"]: each["status"] + (f" {each['start'][11:16]}" if "start" in each else "")
        for each in found
        if each["id"].startswith("w-")
    }


async def list_tasks(client: Client) -> dict[str, str]:
    """Who was asked → what came of it."""
    found = await entries(client, "Task?code=waitlist-offer&_count=100")
    return {each["for"]["reference"].removeprefix("Patient/"): each["status"] for each in found}


async def answer(client: Client, patient: str, status: str, expected: int = 201) -> httpx.Response:
    response = {
        "resourceType": "AppointmentResponse",
        "appointment": {"reference": f"Appointment/w-{patient}"},
        "actor": {"reference": f"Patient/{patient}"},
        "participantStatus": status,
    }
    got = await client.fhir("POST", "AppointmentResponse", json=response)
    assert got.status_code == expected, got.text
    return got


async def test_a_cancelled_time_is_offered_to_the_first_and_accepted_by_a_response(clinic: Client) -> None:
    made = await book(clinic, "10:00", "10:30", PINE, ROOM, "Patient/cy")
    await store(clinic, [waiting("ada", "2026-02-02"), waiting("ben", "2026-02-01")])
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "waitlist"}
    await patch_status(clinic, made, "cancelled")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "pending 16:00"}
    offer = (await clinic.get("Appointment/w-ben")).json()
    actors = [each["actor"]["reference"] for each in offer["participant"]]
    assert sorted(actors) == [ROOM, "Patient/ben", PINE]
    slots = [(await clinic.get(each["reference"])).json()["status"] for each in offer["slot"]]
    assert slots == ["busy-tentative", "busy-tentative"]
    (task,) = await entries(clinic, "Task?code=waitlist-offer&status=requested&patient=Patient/ben")
    assert task["restriction"]["period"]["end"][:16] == "2026-03-01T12:30"
    assert (await clinic.fhir("POST", "Appointment", json=visit("10:15", "10:45", PINE))).status_code == 409
    await answer(clinic, "ben", "accepted")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "booked 16:00"}
    assert await list_tasks(clinic) == {"ben": "completed"}
    assert "hold-expires" not in (await clinic.get("Appointment/w-ben")).text


async def test_an_offer_that_expires_is_passed_on_until_nobody_is_left(clinic: Client, clock: Clock) -> None:
    made = await book(clinic, "10:00", "10:30", PINE, "Patient/cy")
    first = waiting("ada", "2026-02-01", ELM, PINE, minutesDuration=15)
    await store(clinic, [first, waiting("ben", "2026-02-02"), waiting("dot", "2026-02-03", ELM)])
    before = (await clinic.get("Appointment/w-ada")).json()
    await patch_status(clinic, made, "cancelled")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "pending 16:00", "w-ben": "waitlist", "w-dot": "waitlist"}
    clock.set("2026-03-01T12:29:00Z")
    await work(clinic)
    assert (await list_standing(clinic))["w-ada"] == "pending 16:00"
    clock.set("2026-03-01T12:31:00Z")
    await tidy_holds(await take_turn(clinic.server.context, "holds", "test"))  # leaves offers alone
    late = await answer(clinic, "ada", "accepted", 409)
    assert "given on" in diagnostics(late)
    await work(clinic)
    # the whole half hour is offered again, although the first one was asked for fifteen minutes of it
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "pending 16:00", "w-dot": "waitlist"}
    assert (await clinic.get("Appointment/w-ben")).json()["end"][11:16] == "16:30"
    again = (await clinic.get("Appointment/w-ada")).json()
    assert {**again, "meta": None} == {**before, "meta": None}
    assert "waitlist" in diagnostics(await answer(clinic, "ada", "accepted", 409))
    clock.set("2026-03-01T13:02:00Z")
    await work(clinic)
    assert set((await list_standing(clinic)).values()) == {"waitlist"}  # dot waits for Dr. Elm
    assert await list_tasks(clinic) == {"ada": "cancelled", "ben": "cancelled"}
    assert await entries(clinic, "Slot") == []


async def test_a_declined_offer_is_passed_on_and_book_takes_one(clinic: Client, clock: Clock) -> None:
    made = await book(clinic, "10:00", "10:30", PINE, "Patient/cy")
    await store(clinic, [waiting("ada", "2026-02-01"), waiting("ben", "2026-02-02")])
    assert (await clinic.delete(f"Appointment/{made['id']}")).status_code in (200, 204)
    await work(clinic)
    await answer(clinic, "ada", "declined")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "pending 16:00"}
    named = {"appointment_reference": "Appointment/w-ben"}
    other = await call(clinic, "Appointment/$book", patient_reference="Patient/cy", **named)
    assert other.status_code == 403, other.text
    booked = await call(clinic, "Appointment/$book", patient_reference="Patient/ben", **named)
    assert (booked.status_code, booked.json()["status"]) == (200, "booked"), booked.text
    await work(clinic)
    assert await list_tasks(clinic) == {"ada": "rejected", "ben": "completed"}


@pytest.mark.parametrize("door", ["$cancel", "$reschedule", "patch", "delete", "bundle", "expired hold", "declined"])
async def test_time_is_offered_whatever_the_door(clinic: Client, clock: Clock, door: str) -> None:
    await store(clinic, [waiting("ada")])
    if door == "expired hold":
        held = visit("10:00", "10:30", PINE, "Patient/cy")
        assert (await call(clinic, "Appointment/$hold", appointment_resource=held)).status_code == 201
        await work(clinic)
        clock.set("2026-03-01T12:11:00Z")
        await tidy_holds(await take_turn(clinic.server.context, "holds", "test"))
    else:
        made = await book(clinic, "10:00", "10:30", PINE, "Patient/cy")
        await work(clinic)
        await _free(clinic, door, made)
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "pending 16:00"}


async def _free(clinic: Client, door: str, made: Tree) -> None:
    url = f"Appointment/{made['id']}"
    if door == "$cancel":
        got = await call(clinic, f"{url}/$cancel")
    elif door == "$reschedule":
        got = await call(clinic, f"{url}/$reschedule", start="2026-03-02T14:00:00-06:00")
    elif door == "patch":
        got = await patch_status(clinic, made, "noshow")
    elif door == "delete":
        got = await clinic.delete(url)
    elif door == "bundle":
        entry = {"resource": {**made, "status": "cancelled"}, "request": {"method": "PUT", "url": url}}
        got = await clinic.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    else:
        people = [{**each, "status": "declined"} for each in made["participant"]]
        got = await clinic.put(url, json={**made, "participant": people})
    assert got.status_code in (200, 204), got.text


async def test_what_the_rules_of_the_schedule_forbid_is_not_offered(clinic: Client, clock: Clock) -> None:
    """A patient who is busy then is passed over; so are times past, and nobody is asked while the setting is 0."""
    made = await book(clinic, "10:00", "10:30", PINE, "Patient/cy")
    await book(clinic, "10:15", "10:45", ELM, "Patient/ada")
    await store(clinic, [waiting("ada", "2026-02-01"), waiting("ben", "2026-02-02")])
    await patch_status(clinic, made, "cancelled")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "pending 16:00"}
    clock.set("2026-03-02T16:01:00Z")
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "waitlist", "w-ben": "waitlist"}
    assert await list_tasks(clinic) == {"ben": "cancelled"}


async def test_an_offer_that_the_patient_or_the_desk_ends_is_closed(clinic: Client) -> None:
    first = await book(clinic, "10:00", "10:30", PINE, "Patient/cy")
    await store(clinic, [waiting("ada", "2026-02-01"), waiting("ben", "2026-02-02")])
    await patch_status(clinic, first, "cancelled")
    await work(clinic)
    assert (await call(clinic, "Appointment/w-ada/$cancel")).status_code == 200
    await work(clinic)
    assert await list_standing(clinic) == {"w-ada": "cancelled 16:00", "w-ben": "pending 16:00"}
    assert await list_tasks(clinic) == {"ada": "cancelled", "ben": "requested"}


async def test_who_waits_without_a_time_cannot_be_booked_at_none(clinic: Client) -> None:
    await store(clinic, [waiting("ada")])
    for operation in ("$book", "$hold"):
        got = await call(clinic, f"Appointment/{operation}", appointment_reference="Appointment/w-ada")
        assert (got.status_code, got.json()["issue"][0]["expression"]) == (422, ["Appointment.start"]), got.text
    assert await list_standing(clinic) == {"w-ada": "waitlist"}


async def test_nothing_is_offered_where_the_setting_is_0(known: Knowledge) -> None:
    async with serving(known, Seams(clock=Clock()), store="memory://", offer_minutes=0) as client:
        await store(client, [*doctors(), *patients(), waiting("ada")])
        await work(client)
        made = await book(client, "10:00", "10:30", PINE, "Patient/cy")
        await patch_status(client, made, "cancelled")
        await work(client)
        assert await list_standing(client) == {"w-ada": "waitlist"}


def count_most(appointments: Sequence[Tree]) -> int:
    """The largest number of occupying Appointments at one instant."""
    edges = []
    for each in appointments:
        if each["status"] in ("pending", "booked"):
            edges += [(at(each["start"]), 1), (at(each["end"]), -1)]
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


async def test_two_freed_places_many_candidates_two_workers_and_patients_who_book(
    known: Knowledge, store_uri: str, clock: Clock
) -> None:
    """Capacity 3, overlapping unequal visits; two of them are cancelled while others want the time as well.

    Never are there more than three; each freed place goes to one patient at a time, and nobody is asked twice for it.
    """
    people = [f"p{number}" for number in range(12)]
    async with serving(known, Seams(clock=clock), store=store_uri, offer_minutes=30) as client:
        everybody = [{"resourceType": "Patient", "id": name} for name in people]
        await store(client, [*doctors(["pine"], capacity=3), *patients(), *everybody])
        await work(client)
        times = (("10:00", "10:30"), ("10:05", "10:35"), ("10:10", "10:40"))
        made = [await book(client, *each, PINE) for each in times]
        waits = [waiting(name, f"2026-02-{number + 1:02}", minutesDuration=20) for number, name in enumerate(people)]
        await store(client, waits)
        asked: list[tuple[str, str]] = []
        for number in range(8):
            doors = [patch_status(client, each, "cancelled") for each in made[:2]] if number == 0 else []
            rivals = [client.post("Appointment", json=visit("10:15", "10:25", PINE)) for _ in range(3) if number > 2]
            await asyncio.gather(*doors, work(client, "one"), work(client, "two"), *rivals, return_exceptions=True)
            await work(client)
            everything = await entries(client, "Appointment?_count=200")
            assert count_most(everything) <= 3
            offers = [(each["id"], each["start"]) for each in everything if each["status"] == "pending"]
            assert len(offers) == 2 if number <= 2 else len(offers) <= 2
            assert not set(offers) & set(asked)
            asked += offers
            clock.set(f"2026-03-01T{13 + number}:00:00Z")
        tasks = await entries(client, "Task?code=waitlist-offer&_count=100")
        assert len(tasks) == len(asked) >= 6
        assert {each["status"] for each in tasks} <= {"cancelled", "requested"}
