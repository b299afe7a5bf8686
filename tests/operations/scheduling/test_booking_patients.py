"""`patient-resource` (IHE) of `$find`, `$hold`, `$book`: a known patient is found, a new one is created."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.scheduling import surroundings
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import Tree, call, diagnostics, entries, practice, store, visit

pytestmark = pytest.mark.anyio

PINE, ADA = "Practitioner/pine", "Patient/ada"
MEMBER = {"system": "https://insurer.example/member", "value": "M-7"}
EVE: Tree = {"resourceType": "Patient", "name": [{"family": "Quill"}], "identifier": [MEMBER]}


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with practice(known, store_uri) as client:
        yield client


async def book(client: Client, patient: Tree, start: str = "10:00", end: str = "10:30", **more: Any) -> httpx.Response:
    resource = visit(start, end, PINE)
    return await call(
        client, "Appointment/$book", appointment_resource=resource, **{"patient_resource": patient, **more}
    )


async def test_a_new_patient_is_created_with_the_booking_and_found_by_the_next(clinic: Client) -> None:
    first = await book(clinic, EVE)
    assert first.status_code == 201, first.text
    (eve,) = await entries(clinic, f"Patient?identifier={MEMBER['system']}|{MEMBER['value']}")
    assert eve["name"] == EVE["name"]
    assert {"reference": f"Patient/{eve['id']}"} in [each["actor"] for each in first.json()["participant"]]
    again = await book(clinic, EVE)
    assert (again.status_code, again.json()) == (200, first.json())
    # the patient is taken with whomever the second visit is
    clash = await call(
        clinic,
        "Appointment/$book",
        appointment_resource=visit("10:15", "10:45", "Practitioner/elm"),
        patient_resource=EVE,
    )
    assert clash.status_code == 409 and f"Patient/{eve['id']}" in diagnostics(clash)
    assert len(await entries(clinic, "Patient?family=Quill")) == 1


@pytest.mark.parametrize("most", [500, 3])
async def test_a_patient_of_many_visits_is_taken_when_one_of_them_is(
    clinic: Client, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Of a patient all visits are looked at, of one with more than that those around the time."""
    monkeypatch.setattr(surroundings, "_MOST_LOOKED_AT", most)
    surroundings._build_query_of_all.cache_clear()
    await store(clinic, [{"resourceType": "Patient", "id": "often"}])
    for hour in range(9, 14):
        answer = await clinic.post("Appointment", json=visit(f"{hour:02}:00", f"{hour:02}:30", PINE, "Patient/often"))
        assert answer.status_code == 201, answer.text
    clash = await clinic.post("Appointment", json=visit("11:15", "11:45", "Practitioner/elm", "Patient/often"))
    assert clash.status_code == 409 and "`Patient/often` is taken" in diagnostics(clash)
    free = await clinic.post("Appointment", json=visit("11:30", "12:00", "Practitioner/elm", "Patient/often"))
    assert free.status_code == 201, free.text
    surroundings._build_query_of_all.cache_clear()


async def test_a_refused_booking_creates_nobody(clinic: Client) -> None:
    assert (await book(clinic, {"resourceType": "Patient", "id": "ada"})).status_code == 201
    assert (await book(clinic, EVE)).status_code == 409
    assert await entries(clinic, "Patient?family=Quill") == []


async def test_hold_then_book_for_a_new_patient(clinic: Client) -> None:
    held = await call(
        clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE), patient_resource=EVE
    )
    assert held.status_code == 201, held.text
    reference = f"Appointment/{held.json()['id']}"
    other = await call(clinic, "Appointment/$book", appointment_reference=reference, patient_reference=ADA)
    assert other.status_code == 403
    booked = await call(clinic, "Appointment/$book", appointment_reference=reference, patient_resource=EVE)
    assert (booked.status_code, booked.json()["status"]) == (200, "booked"), booked.text


async def test_find_looks_at_the_patient_behind_the_resource(clinic: Client) -> None:
    await book(clinic, {"resourceType": "Patient", "id": "ada"})
    window = {"start": "2026-03-02T10:00:00-06:00", "end": "2026-03-02T10:30:00-06:00"}
    elm = {**window, "practitioner": "Practitioner/elm"}
    taken = await call(clinic, "Appointment/$find", **elm, patient_resource={"resourceType": "Patient", "id": "ada"})
    assert [each["resource"]["resourceType"] for each in taken.json()["entry"]] == ["OperationOutcome"]
    anybody = (await call(clinic, "Appointment/$find", **elm, patient_resource=EVE)).json()["entry"]
    assert [each["resource"]["resourceType"] for each in anybody] == ["Appointment", "OperationOutcome"]
    assert "not stored here" in anybody[1]["resource"]["issue"][0]["diagnostics"]


BAD: dict[str, tuple[Tree, Tree, int, str]] = {
    "no identifier": ({"resourceType": "Patient"}, {}, 422, "patient-resource.identifier"),
    "no Patient": ({"resourceType": "Person"}, {}, 400, "patient-resource"),
    "two different": (EVE, {"patient_reference": ADA}, 400, "patient-resource"),
    "two persons": (
        {**EVE, "identifier": [MEMBER, {**MEMBER, "value": "M-8"}]},
        {},
        412,
        "patient-resource.identifier",
    ),
    "no sense": ({**EVE, "birthDate": "yesterday"}, {}, 400, "birthDate"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_names_nobody_or_two_is_refused_and_nothing_is_booked(clinic: Client, case: str) -> None:
    patient, more, status, expression = BAD[case]
    if case == "two persons":
        both = [{**EVE, "id": f"p{n}", "identifier": [{**MEMBER, "value": f"M-{n}"}]} for n in (7, 8)]
        await store(clinic, both)
    answer = await book(clinic, patient, **more)
    assert answer.status_code == status, answer.text
    assert expression in str(answer.json()["issue"])
    assert await entries(clinic, "Appointment") == []


async def test_many_who_book_for_one_new_patient_at_once_make_one(clinic: Client) -> None:
    times = [(f"{9 + n // 2:02}:{n % 2 * 30:02}", f"{9 + n // 2:02}:{n % 2 * 30 + 20:02}") for n in range(12)]
    answers = await asyncio.gather(*(book(clinic, EVE, *each) for each in times))
    assert Counter(each.status_code for each in answers) == {201: 12}
    assert len(await entries(clinic, "Patient?family=Quill")) == 1
