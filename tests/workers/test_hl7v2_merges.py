"""Merges with more references than one transaction moves: followed by a Task, found by searches meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.workers import hl7v2_reading, merges
from fhir_server.workers.merges import MOVED, step_merges
from mappers.hl7v2 import bundle
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import MRN, choose_store, code, msh, pid, resources, segment, take
from tests.workers.teams import Failing, Killed, take_turn

pytestmark = pytest.mark.anyio

NORTH = (
    'name = "north"\nformats = ["hl7v2"]\ndefault_authority = "MRN"\nzone = "America/Chicago"\n'
    f'[systems]\nMRN = "{MRN}"\n[hl7v2]\nsenders = [{{ application = "EHR" }}]\n'
)
Serve = Callable[[str], AbstractAsyncContextManager[Client]]


@pytest.fixture
def serve(known: Knowledge, tmp_path: Path) -> Serve:
    """Opens a server with a partner on a store."""
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "north.toml").write_text(NORTH)
    return lambda uri: serving(known, Seams(definitions=None), store=uri, profiles=str(tmp_path))


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> AsyncIterator[Client]:
    async with serve(choose_store(request, tmp_path)) as client:
        yield client


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four resources are repointed with the merge, and three in each slice after it."""
    for module in (bundle, hl7v2_reading):
        monkeypatch.setattr(module, "REPOINTED_AT_ONCE", 4)
    monkeypatch.setattr(merges, "SLICE", 3)


async def prepare(client: Client, observations: int) -> None:
    """The patients 1 (who stays) and 2, and for the second so many Observations."""
    for number in ("1", "2"):
        assert code(await take(client, msh("ADT^A28", number) + pid(number))) == "AA"
    prior = await find_patient(client, "2")
    values = [
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": str(number)},
            "subject": {"reference": prior},
        }
        for number in range(observations)
    ]
    if not values:
        return
    entry = [{"resource": each, "request": {"method": "POST", "url": "Observation"}} for each in values]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
    answer = await client.fhir("POST", "", json=bundle)
    assert answer.status_code == 200, answer.text


async def find_patient(client: Client, number: str) -> str:
    (found,) = await resources(client, f"Patient?identifier={MRN}|{number}")
    return f"Patient/{found['id']}"


async def merge(client: Client, survivor: str = "1", prior: str = "2") -> None:
    text = msh("ADT^A40", f"{survivor}<{prior}") + pid(survivor) + segment("MRG", f1=f"{prior}^^^MRN^MR")
    received = await take(client, text)
    assert code(received) == "AA", received.reason


async def repoint_task(client: Client) -> dict[str, Any]:
    found = await resources(client, "Task")
    (task,) = [each for each in found if each["code"]["coding"][0]["code"] == "repoint-references"]
    return task


async def count(client: Client, query: str) -> int:
    answer = await client.fhir("GET", f"{query}&_summary=count")
    assert answer.status_code == 200, answer.text
    assert query.partition("?")[2] in answer.json()["link"][0]["url"].replace("%7C", "|").replace("%2F", "/")
    total: int = answer.json()["total"]
    return total


SEARCHES = [
    "Observation?subject={survivor}",
    "Observation?patient={id}",
    "Observation?subject:Patient={id}",
    f"Observation?subject.identifier={MRN}|1",
    f"Observation?patient.identifier={MRN}|2",
    "Observation?subject={survivor}&status=final",
]


async def test_searches_by_the_survivor_find_all_before_during_and_after_the_moves(client: Client, small: None) -> None:
    await prepare(client, 12)
    await merge(client)
    survivor = await find_patient(client, "2")
    assert survivor == await find_patient(client, "1"), "the old number finds the survivor"
    queries = [each.format(survivor=survivor, id=survivor.partition("/")[2]) for each in SEARCHES]
    task = await repoint_task(client)
    assert (task["status"], task["for"]["reference"]) == ("requested", survivor)
    prior = task["focus"]["reference"]
    assert 0 < await count(client, f"Observation?subject={prior}") <= 12
    turn = await take_turn(client.server.context, "merges", "a")
    while True:
        assert [await count(client, each) for each in queries] == [12] * len(queries)
        in_compartment = await client.fhir("GET", f"{survivor}/Observation?_summary=count")
        assert in_compartment.json()["total"] == 12
        if not (await step_merges(turn)).done:
            break
        assert (await repoint_task(client))["status"] in ("in-progress", "completed")
    task = await repoint_task(client)
    left = await count(client, f"Observation?subject={prior}")
    assert (task["status"], left) == ("completed", 0)
    told = next(each["valueInteger"] for each in task["output"] if each["type"]["text"] == MOVED)
    moved = [each for each in await resources(client, "Observation") if each["meta"]["versionId"] == "2"]
    assert len(moved) == 12, "each was written once"
    assert told == 12 - 4 + 1, "four were moved by the merge; the Task of the prior's own message was moved as well"
    assert await count(client, f"Provenance?target={prior}") > 0, "what was done to the prior was done to the prior"
    assert (await client.fhir("GET", prior)).json()["link"][0]["other"]["reference"] == survivor
    assert (await client.fhir("GET", survivor)).json()["link"][0]["other"]["reference"] == prior


async def test_a_merge_of_the_survivor_while_its_references_move_ends_at_the_last_survivor(
    client: Client, small: None
) -> None:
    await prepare(client, 12)
    await take(client, msh("ADT^A28", "3") + pid("3"))
    await merge(client)
    await merge(client, "3", "1")
    last = await find_patient(client, "2")
    assert last == await find_patient(client, "3")
    turn = await take_turn(client.server.context, "merges", "a")
    steps = 0
    while True:
        assert await count(client, f"Observation?subject={last}") == 12
        if not (await step_merges(turn)).done:
            break
        steps += 1
        assert steps < 50
    assert {each["subject"]["reference"] for each in await resources(client, "Observation")} == {last}


@pytest.mark.parametrize("after", [False, True])
async def test_a_merge_is_carried_on_after_a_death_at_any_call(serve: Serve, small: None, after: bool) -> None:
    """Every resource is written once, whichever call of the store the process did not survive."""
    at, reached = 1, True
    while reached:
        async with serve("memory://") as client:
            await prepare(client, 10)
            await merge(client)
            failing = Failing(client.server.context.unrestricted, at, after)
            context = dataclasses.replace(client.server.context, unrestricted=failing)
            turn = await take_turn(client.server.context, "merges", "a")
            try:
                while (await step_merges(dataclasses.replace(turn, context=context))).done:
                    pass
            except Killed:
                pass
            turn = await take_turn(client.server.context, "merges", "b")
            while (await step_merges(turn)).done:
                pass
            survivor, found = await find_patient(client, "1"), await resources(client, "Observation")
            assert {(each["subject"]["reference"], each["meta"]["versionId"]) for each in found} == {(survivor, "2")}
            assert (await repoint_task(client))["status"] == "completed"
            reached, at = failing.reached, at + 40
    assert at > 200


async def test_two_holders_of_the_worker_at_once_move_each_resource_once(client: Client, small: None) -> None:
    await prepare(client, 12)
    await merge(client)
    turn = await take_turn(client.server.context, "merges", "a")
    for _ in range(10):
        await asyncio.gather(step_merges(turn), step_merges(turn), step_merges(turn))
    assert {each["meta"]["versionId"] for each in await resources(client, "Observation")} == {"2"}
    assert (await repoint_task(client))["status"] == "completed"


async def test_a_merge_at_its_real_size(serve: Serve, tmp_path: Path) -> None:
    async with serve(f"sqlite:///{tmp_path}/fhir.db") as client:
        await prepare(client, 640)
        await merge(client)
        survivor = await find_patient(client, "1")
        prior = (await repoint_task(client))["focus"]["reference"]
        assert await count(client, f"Observation?subject={survivor}") == 640
        assert 140 <= await count(client, f"Observation?subject={prior}") < 640 - 400
        turn = await take_turn(client.server.context, "merges", "a")
        while (await step_merges(turn)).done:
            pass
        assert await count(client, f"Observation?subject={survivor}") == 640
        assert await count(client, f"Observation?subject={prior}") == 0


async def test_patients_who_have_the_same_appointment_can_be_merged(client: Client) -> None:
    """Both records were booked for one time: whose it is changes, and nothing is booked."""
    await prepare(client, 0)
    for number in ("1", "2"):
        doctor = {"resourceType": "Practitioner", "id": f"doctor-{number}"}
        assert (await client.fhir("PUT", f"Practitioner/{doctor['id']}", json=doctor)).status_code == 201
        people = [await find_patient(client, number), f"Practitioner/{doctor['id']}"]
        participants = [{"actor": {"reference": each}, "status": "accepted"} for each in people]
        times = {"start": "2036-03-05T16:00:00Z", "end": "2036-03-05T16:30:00Z"}
        visit = {"resourceType": "Appointment", "status": "booked", "participant": participants, **times}
        assert (await client.fhir("POST", "Appointment", json=visit)).status_code == 201
    await merge(client)
    survivor = await find_patient(client, "1")
    assert await count(client, f"Appointment?patient={survivor.partition('/')[2]}") == 2
