"""Races of two server processes on one store, SQLite and MongoDB: exactly the capacity, and the sums come out."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.faults.process import serving_process
from tests.mappers.scheduling.scheduling_resources import at
from tests.operations.scheduling.booking_clinic import PATIENTS, Tree, doctors, patients, to_parameter, visit
from tests.operations.scheduling.test_booking_races import QUARTERS, book, count_most

pytestmark = [pytest.mark.anyio, pytest.mark.long]

PINE = "Practitioner/pine"
Pair = tuple[httpx.AsyncClient, httpx.AsyncClient]
DAY = "2035-03-01"


@pytest.fixture(params=["sqlite", "mongo"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Clients of two processes that share a store."""
    options: tuple[str, ...] = ()
    if request.param == "mongo":
        options = ("--store", request.getfixturevalue("new_mongo_uri")())
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            process = stack.enter_context(serving_process(tmp_path / "fhir.db", *options, workers="off"))
            clients.append(await stack.enter_async_context(process.client()))
        yield clients[0], clients[1]


async def furnish(client: httpx.AsyncClient, capacity: int) -> None:
    for each in [*doctors(["pine", "elm"], capacity=capacity, horizon=10_000 * 1440), *patients()]:
        answer = await client.put(f"/{each['resourceType']}/{each['id']}", json=each)
        assert answer.status_code == 201, answer.text


async def read_all(client: httpx.AsyncClient, type: str) -> list[Tree]:
    found: list[Tree] = []
    url = f"/{type}?_count=500"
    while url:
        page = (await client.get(url)).json()
        found += [each["resource"] for each in page.get("entry", ())]
        url = next((each["url"] for each in page["link"] if each["relation"] == "next"), "")
    return found


async def gather(calls: Sequence[Awaitable[httpx.Response]]) -> list[httpx.Response]:
    return list(await asyncio.gather(*calls))


@pytest.mark.parametrize("capacity", [1, 3])
async def test_two_hundred_clients_of_two_processes_get_exactly_the_capacity(pair: Pair, capacity: int) -> None:
    """Half of them by `$book`, half by plain writes, at overlapping unequal times."""
    await furnish(pair[0], capacity)

    def attempt(number: int) -> Awaitable[httpx.Response]:
        start, end = (f"{DAY}T{text}:00-06:00" for text in QUARTERS[number % 4])
        resource = visit(start, end, PINE)
        client = pair[number % 2]
        if number // 2 % 2:
            return client.post("/Appointment", json=resource)
        return client.post("/Appointment/$book", json=book(resource))

    statuses = Counter(each.status_code for each in await gather([attempt(number) for number in range(200)]))
    assert statuses == {201: capacity, 409: 200 - capacity}
    for client in pair:
        booked = await read_all(client, "Appointment")
        assert len(booked) == len(await read_all(client, "Slot")) == count_most(booked) == capacity


@pytest.mark.parametrize("capacity", [1, 3])
async def test_book_against_cancel_against_reschedule_over_two_processes(pair: Pair, capacity: int) -> None:
    """Whatever order they come in: never above the capacity, and a busy Slot for each booking and none else."""
    await furnish(pair[0], capacity)
    made: list[Tree] = []
    for hour, _ in itertools.product(range(9, 15), range(capacity)):
        start, end = (f"{DAY}T{hour:02}:{minute:02}:00-06:00" for minute in (0, 30))
        answer = await pair[0].post("/Appointment/$book", json=book(visit(start, end, PINE)))
        assert answer.status_code == 201, answer.text
        made.append(answer.json())

    def act(number: int) -> Awaitable[httpx.Response]:
        client, appointment, kind = pair[number % 2], made[number * 7 % len(made)], number % 4
        hour = 9 + number * 5 % 6
        if kind == 0:
            start, end = (f"{DAY}T{hour:02}:{minute:02}:00-06:00" for minute in (10, 50))
            patient = f"Patient/{PATIENTS[number % 4]}"
            return client.post("/Appointment/$book", json=book(visit(start, end, PINE, patient)))
        if kind == 1:
            return client.post(f"/Appointment/{appointment['id']}/$cancel", json={"resourceType": "Parameters"})
        if kind == 2:
            asked = [to_parameter("start", f"{DAY}T{hour:02}:15:00-06:00")]
            body = {"resourceType": "Parameters", "parameter": asked}
            return client.post(f"/Appointment/{appointment['id']}/$reschedule", json=body)
        return client.delete(f"/Appointment/{appointment['id']}")

    answers = await gather([act(number) for number in range(120)])
    assert {each.status_code for each in answers} <= {200, 201, 204, 404, 409, 410, 422}, Counter(
        each.status_code for each in answers
    )
    for client in pair:
        everything = await read_all(client, "Appointment")
        assert count_most(everything) <= capacity
        booked = [each for each in everything if each["status"] == "booked"]
        named = sorted(slot["reference"] for each in booked for slot in each["slot"])
        slots = await read_all(client, "Slot")
        assert named == sorted(f"Slot/{slot['id']}" for slot in slots)
        times = {f"Slot/{slot['id']}": (at(slot["start"]), at(slot["end"])) for slot in slots}
        assert all(times[each["slot"][0]["reference"]] == (at(each["start"]), at(each["end"])) for each in booked)
        for patient in PATIENTS:
            own = [each for each in everything if f"Patient/{patient}" in str(each["participant"])]
            assert count_most(own) <= 1


@pytest.mark.parametrize("store", ["sqlite", "mongo"])
@pytest.mark.parametrize("capacity", [1, 3])
async def test_expired_holds_are_taken_by_as_many_as_there_are_places(
    store: str, capacity: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Holds of a minute are waited for (the times of the processes are real); then all ask for unequal times."""
    settings = {"hold_minutes": "1", "workers": "off"}
    options: tuple[str, ...] = ("--store", request.getfixturevalue("new_mongo_uri")()) if store == "mongo" else ()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                stack.enter_context(serving_process(tmp_path / "fhir.db", *options, **settings)).client()
            )
            for _ in range(2)
        ]
        await furnish(clients[0], capacity)

        def ask(number: int, operation: str) -> Awaitable[httpx.Response]:
            start, end = (f"{DAY}T{text}:00-06:00" for text in QUARTERS[number % 4])
            return clients[number % 2].post(f"/Appointment/${operation}", json=book(visit(start, end, PINE)))

        held = [await ask(number, "hold") for number in range(capacity)]
        assert [each.status_code for each in held] == [201] * capacity, held[-1].text
        assert (await ask(capacity, "book")).status_code == 409
        await asyncio.sleep(61)
        statuses = Counter(each.status_code for each in await gather([ask(number, "book") for number in range(60)]))
        assert statuses == {201: capacity, 409: 60 - capacity}
        for client in clients:
            booked = [each for each in await read_all(client, "Appointment") if each["status"] == "booked"]
            assert len(booked) == count_most(booked) == capacity
