"""Races over HTTP: many clients at once, two processes, overlapping unequal times; the sums have to come out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.faults.process import serving_process
from tests.mappers.scheduling.scheduling_resources import at
from tests.operations.scheduling.booking_clinic import (
    PATIENTS,
    Clock,
    Tree,
    call,
    doctors,
    entries,
    practice,
    to_parameter,
    visit,
)

pytestmark = pytest.mark.anyio

PINE = "Practitioner/pine"
# Four visits of half an hour that all overlap and are not equal.
QUARTERS = (("09:00", "09:30"), ("09:05", "09:35"), ("09:10", "09:40"), ("09:15", "09:45"))


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


def book(resource: Tree) -> Tree:
    parts = [
        to_parameter("appointment-resource", resource),
        *(to_parameter("override", kind) for kind in ("hours", "notice")),
        to_parameter("reason", "a race"),
    ]
    return {"resourceType": "Parameters", "parameter": parts}


@pytest.mark.parametrize("capacity", [1, 3])
async def test_s1_two_hundred_clients_get_exactly_the_capacity(known: Knowledge, store_uri: str, capacity: int) -> None:
    async with practice(known, store_uri, capacity=capacity) as clinic:
        times = [QUARTERS[number % 4] for number in range(200)]
        answers = await asyncio.gather(
            *(clinic.post("Appointment/$book", json=book(visit(*each, PINE))) for each in times)
        )
        assert Counter(each.status_code for each in answers) == {201: capacity, 409: 200 - capacity}
        assert len(await entries(clinic, "Appointment")) == len(await entries(clinic, "Slot")) == capacity


async def test_s1_plain_writes_and_operations_meet_in_one_rule(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri, capacity=3) as clinic:
        requests = []
        for number in range(60):
            resource = visit(*QUARTERS[number % 4], PINE)
            if number % 2:
                requests.append(clinic.post("Appointment", json=resource))
            else:
                requests.append(clinic.post("Appointment/$book", json=book(resource)))
        statuses = Counter(each.status_code for each in await asyncio.gather(*requests))
        assert statuses == {201: 3, 409: 57}


@pytest.mark.parametrize("capacity", [1, 3])
async def test_s1_on_mongo(known: Knowledge, new_mongo_uri: Callable[[], str], capacity: int) -> None:
    async with practice(known, new_mongo_uri(), capacity=capacity) as clinic:
        answers = await asyncio.gather(
            *(clinic.post("Appointment/$book", json=book(visit(*QUARTERS[n % 4], PINE))) for n in range(40))
        )
        assert Counter(each.status_code for each in answers) == {201: capacity, 409: 40 - capacity}


@pytest.mark.external
@pytest.mark.parametrize("capacity", [1, 3])
async def test_s1_over_two_processes(tmp_path: Path, capacity: int) -> None:
    with serving_process(tmp_path / "fhir.db") as one, serving_process(tmp_path / "fhir.db") as two:
        async with one.client() as first, two.client() as second:
            for each in doctors(["pine"], capacity=capacity, horizon=10_000 * 1440):
                answer = await first.put(f"/{each['resourceType']}/{each['id']}", json=each)
                assert answer.status_code == 201, answer.text

            async def attempt(client: httpx.AsyncClient, number: int) -> int:
                start, end = (f"2035-03-01T{text}:00-06:00" for text in QUARTERS[number % 4])
                answer = await client.post("/Appointment/$book", json=book(visit(start, end, PINE)))
                return answer.status_code

            statuses = await asyncio.gather(*(attempt((first, second)[n % 2], n) for n in range(200)))
            assert Counter(statuses) == {201: capacity, 409: 200 - capacity}


async def test_an_expired_hold_is_taken_by_exactly_one(known: Knowledge, store_uri: str) -> None:
    clock = Clock()
    async with practice(known, store_uri, clock) as clinic:
        held = await call(clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE))
        assert held.status_code == 201
        clock.set("2026-03-01T12:10:01Z")
        own = clinic.post(
            "Appointment/$book",
            json={
                "resourceType": "Parameters",
                "parameter": [to_parameter("appointment-reference", held.json()["id"])],
            },
        )
        others = [clinic.post("Appointment/$book", json=book(visit("10:00", "10:30", PINE))) for _ in range(30)]
        statuses = Counter(each.status_code for each in await asyncio.gather(own, *others))
        assert statuses == {201: 1, 409: 30}


async def test_book_against_cancel_against_reschedule_conserves_the_sums(known: Knowledge, store_uri: str) -> None:
    """At every end: no overlap, a busy Slot for each booked Appointment and none else."""
    async with practice(known, store_uri) as clinic:
        made = []
        for number in range(6):
            resource = visit(f"{9 + number}:00".zfill(5), f"{9 + number}:30".zfill(5), PINE, f"Patient/{PATIENTS[0]}")
            made.append((await call(clinic, "Appointment/$book", appointment_resource=resource)).json())

        async def act(number: int) -> httpx.Response:
            appointment, kind = made[number % 6], number % 3
            asked: dict[str, Any] = {}
            if kind == 0:
                hour = 9 + (number * 7) % 6
                resource = visit(f"{hour}:15".zfill(5), f"{hour}:45".zfill(5), PINE, f"Patient/{PATIENTS[1]}")
                return await call(clinic, "Appointment/$book", appointment_resource=resource)
            if kind == 1:
                return await call(clinic, f"Appointment/{appointment['id']}/$cancel")
            asked["start"] = f"2026-03-02T{9 + (number * 5) % 6:02}:30:00-06:00"
            return await call(clinic, f"Appointment/{appointment['id']}/$reschedule", **asked)

        answers = await asyncio.gather(*(act(number) for number in range(60)))
        assert {each.status_code for each in answers} <= {200, 201, 409, 422}
        everything = await entries(clinic, "Appointment?_count=200")
        assert count_most(everything) <= 1
        booked = [each for each in everything if each["status"] == "booked"]
        slots = await entries(clinic, "Slot?_count=200")
        named = sorted(slot["reference"] for each in booked for slot in each["slot"])
        assert named == sorted(f"Slot/{slot['id']}" for slot in slots)
        assert all("slot" not in each for each in everything if each["status"] == "cancelled")


async def test_two_processes_share_proposals(tmp_path: Path) -> None:
    """What one process proposed, another one books."""
    with serving_process(tmp_path / "fhir.db") as one, serving_process(tmp_path / "fhir.db") as two:
        async with one.client() as first, two.client() as second:
            for each in doctors(["pine"], horizon=10_000 * 1440):
                await first.put(f"/{each['resourceType']}/{each['id']}", json=each)
            window = {"start": "2035-03-01T09:00:00-06:00", "end": "2035-03-01T12:00:00-06:00"}
            found = (await first.get("/Appointment/$find", params=window)).json()["entry"][0]["resource"]
            body = {"resourceType": "Parameters", "parameter": [to_parameter("appointment-reference", found["id"])]}
            booked = await second.post("/Appointment/$book", json=body)
            assert (booked.status_code, booked.json()["start"]) == (201, found["start"]), booked.text
