"""`$find`, `$hold` and `$book` over HTTP: proposals, holds, overrides, repeated requests, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.mappers.scheduling.scheduling_resources import minutes, parameters, schedule
from tests.operations.scheduling.booking_clinic import (
    CHICAGO,
    Clock,
    Tree,
    call,
    diagnostics,
    doctors,
    entries,
    post,
    practice,
    store,
    visit,
)

pytestmark = pytest.mark.anyio

PINE, ELM, ADA, BEN = "Practitioner/pine", "Practitioner/elm", "Patient/ada", "Patient/ben"
DAY = {"start": "2026-03-02T00:00:00-06:00", "end": "2026-03-03T00:00:00-06:00"}


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with practice(known, store_uri) as client:
        yield client


async def find(client: Client, **asked: Any) -> list[Tree]:
    answer = await call(client, "Appointment/$find", **{**DAY, **asked})
    assert answer.status_code == 200, answer.text
    return [each["resource"] for each in answer.json()["entry"]]


def reasons(found: list[Tree]) -> str:
    return " ".join(i["diagnostics"] for each in found if each["resourceType"] != "Appointment" for i in each["issue"])


async def test_find_answers_proposed_appointments_earliest_first(clinic: Client) -> None:
    found = await find(clinic, practitioner=PINE)
    assert [each["start"] for each in found[:2]] == ["2026-03-02T14:00:00.000Z", "2026-03-02T14:15:00.000Z"]
    assert {each["status"] for each in found} == {"proposed"}
    assert found[0]["participant"][0]["actor"] == {"reference": PINE}
    assert found[0]["minutesDuration"] == 30
    assert await entries(clinic, "Appointment") == []  # nothing was written
    by_get = await clinic.get("Appointment/$find", params={**DAY, "practitioner": "pine" and PINE, "_count": "2"})
    assert [each["resource"]["start"] for each in by_get.json()["entry"]] == [each["start"] for each in found[:2]]


async def test_find_goes_on_from_page_to_page_without_gap_or_repeat(clinic: Client) -> None:
    whole = await find(clinic, _count=200)
    answer = await clinic.get("Appointment/$find", params={**DAY, "_count": "7"})
    pages: list[Tree] = []
    while True:
        pages += [each["resource"] for each in answer.json()["entry"]]
        links = {each["relation"]: each["url"] for each in answer.json()["link"]}
        if "next" not in links:
            break
        answer = await clinic.get(links["next"])
        assert answer.status_code == 200, answer.text
    assert [(each["start"], each["participant"]) for each in pages] == [
        (each["start"], each["participant"]) for each in whole
    ]
    assert len(whole) == 2 * 39  # 08:00 to 17:30 every 15 minutes, two doctors


async def test_what_is_taken_but_not_applied_is_said(clinic: Client) -> None:
    found = await find(clinic, practitioner=PINE, insurance_reference="Coverage/1", reason="cough")
    text = reasons(found)
    assert "`insurance-reference` was taken but not applied" in text and "`reason` was taken but not applied" in text
    unknown = await call(clinic, "Appointment/$find", **DAY, doctor=PINE)
    assert (unknown.status_code, unknown.json()["issue"][0]["code"]) == (400, "not-supported")


async def test_find_says_why_there_is_nothing(clinic: Client) -> None:
    night = {"start": "2026-03-02T19:00:00-06:00", "end": "2026-03-02T23:00:00-06:00"}
    assert "open" in reasons(await find(clinic, **night))
    far = {"start": "2027-03-02T09:00:00-06:00", "end": "2027-03-02T12:00:00-06:00"}
    assert "horizon" in reasons(await find(clinic, **far))
    await post(clinic, visit("10:00", "11:00", PINE))
    full = {"start": "2026-03-02T10:00:00-06:00", "end": "2026-03-02T11:00:00-06:00", "practitioner": PINE}
    assert "booked" in reasons(await find(clinic, **full))


async def test_a_room_and_a_provider_are_both_free(clinic: Client) -> None:
    await post(clinic, visit("08:00", "09:00", "Location/room-1"))
    found = await find(clinic, practitioner=PINE, location_reference="Location/room-1", _count=1)
    assert found[0]["start"] == "2026-03-02T15:00:00.000Z"
    booked = await call(
        clinic, "Appointment/$book", appointment_reference=f"Appointment/{found[0]['id']}", patient_reference=ADA
    )
    assert booked.status_code == 201, booked.text
    actors = {each["actor"]["reference"] for each in booked.json()["participant"]}
    assert actors == {PINE, "Location/room-1", ADA}
    assert len(booked.json()["slot"]) == 2
    other = await find(clinic, practitioner=ELM, location_reference="Location/room-1", _count=1)
    assert other[0]["start"] == "2026-03-02T15:30:00.000Z"


async def test_a_proposal_of_a_room_without_schedule_can_be_booked(clinic: Client) -> None:
    found = await find(clinic, practitioner=PINE, location_reference="Location/room-2", _count=1)
    booked = await call(clinic, "Appointment/$book", appointment_reference=found[0]["id"])
    assert booked.status_code == 201, booked.text
    assert len(await entries(clinic, "Schedule?actor=Location/room-2")) == 1


async def test_a_proposal_is_found_again_by_its_id_alone_and_booked_once(clinic: Client) -> None:
    (first, *_) = await find(clinic, practitioner=PINE, patient_reference=ADA)
    asked = {"appointment_reference": f"Appointment/{first['id']}", "patient_reference": ADA}
    booked = await call(clinic, "Appointment/$book", **asked)
    assert booked.status_code == 201, booked.text
    tree = booked.json()
    assert (tree["status"], tree["start"]) == ("booked", first["start"])
    assert {each["status"] for each in tree["participant"]} == {"accepted"}
    again = await call(clinic, "Appointment/$book", **asked)
    assert (again.status_code, again.json()) == (200, tree)
    other = await call(clinic, "Appointment/$book", appointment_reference=first["id"], patient_reference=BEN)
    assert other.status_code == 403, other.text
    (slot,) = await entries(clinic, "Slot")
    assert (slot["status"], slot["schedule"]) == ("busy", {"reference": "Schedule/pine"})
    (provenance,) = await entries(clinic, f"Provenance?target=Appointment/{tree['id']}")
    assert provenance["meta"]["lastUpdated"] == tree["meta"]["lastUpdated"] == slot["meta"]["lastUpdated"]


async def test_a_proposal_expires_and_a_forged_one_is_none(known: Knowledge) -> None:
    clock = Clock()
    async with practice(known, clock=clock) as clinic:
        (first, *_) = await find(clinic)
        changed = first["id"][:-1] + ("0" if first["id"].endswith("-") else "-")
        forged = await call(clinic, "Appointment/$book", appointment_reference=changed)
        assert forged.status_code == 404, forged.text
        clock.set("2026-03-01T12:32:00Z")
        late = await call(clinic, "Appointment/$book", appointment_reference=first["id"])
        assert (late.status_code, late.json()["issue"][0]["code"]) == (409, "expired")


async def test_hold_keeps_the_time_until_it_expires(known: Knowledge, store_uri: str) -> None:
    clock = Clock()
    async with practice(known, store_uri, clock) as clinic:
        (first, *_) = await find(clinic, practitioner=PINE)
        held = await call(clinic, "Appointment/$hold", appointment_reference=first["id"], patient_reference=ADA)
        assert (held.status_code, held.json()["status"]) == (201, "pending")
        again = await call(clinic, "Appointment/$hold", appointment_reference=first["id"], patient_reference=ADA)
        assert (again.status_code, again.json()["meta"]["versionId"]) == (200, "1")
        (slot,) = await entries(clinic, "Slot")
        assert slot["status"] == "busy-tentative"
        assert (await find(clinic, practitioner=PINE))[0]["start"] == "2026-03-02T14:30:00.000Z"
        clock.set("2026-03-01T12:11:00Z")  # nobody tidied
        assert (await find(clinic, practitioner=PINE))[0]["start"] == first["start"]
        late = await call(clinic, "Appointment/$book", appointment_reference=f"Appointment/{held.json()['id']}")
        assert late.status_code == 409
        taken = await call(clinic, "Appointment/$book", appointment_resource=visit("08:00", "08:30", PINE, BEN))
        assert taken.status_code == 201, taken.text


async def test_a_hold_is_booked_by_its_patient_alone(clinic: Client) -> None:
    held = await call(clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE, ADA))
    reference = f"Appointment/{held.json()['id']}"
    stranger = await call(clinic, "Appointment/$book", appointment_reference=reference, patient_reference=BEN)
    assert (stranger.status_code, stranger.json()["issue"][0]["code"]) == (403, "forbidden")
    booked = await call(clinic, "Appointment/$book", appointment_reference=reference, patient_reference=ADA)
    assert (booked.status_code, booked.json()["status"]) == (200, "booked"), booked.text
    assert "extension" not in booked.json()
    (slot,) = await entries(clinic, "Slot")
    assert slot["status"] == "busy"


async def test_s20_the_second_hold_is_a_conflict(clinic: Client) -> None:
    first = await call(clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE, ADA))
    second = await call(clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE, BEN))
    assert (first.status_code, second.status_code) == (201, 409)
    assert second.json()["resourceType"] == "OperationOutcome"
    assert second.json()["issue"][0]["code"] == "conflict"


async def test_a_refusal_names_the_next_free_times(clinic: Client) -> None:
    await post(clinic, visit("10:00", "10:30", PINE))
    await post(clinic, visit("10:45", "11:15", "Patient/ada", ELM))
    refused = await call(clinic, "Appointment/$book", appointment_resource=visit("10:00", "10:30", PINE, ADA))
    assert refused.status_code == 409
    assert "Free instead: 2026-03-02T17:15:00.000Z (Schedule/pine)" in diagnostics(refused)


async def test_s4_any_of_tries_the_remaining_candidates_inside_one_call(clinic: Client) -> None:
    answers = []
    for patient in ("ada", "ben", "cy"):
        resource = visit("10:00", "10:30", f"Patient/{patient}")
        answers.append(
            await call(
                clinic,
                "Appointment/$book",
                ("practitioner", PINE),
                ("practitioner", ELM),
                appointment_resource=resource,
            )
        )
    assert [each.status_code for each in answers] == [201, 201, 409], answers[0].text
    assert {each.json()["participant"][1]["actor"]["reference"] for each in answers[:2]} == {PINE, ELM}


async def test_s5_ten_any_of_bookings_are_shared_evenly(clinic: Client) -> None:
    for number in range(10):
        start, end = (
            f"{8 + number // 2:02}:{number % 2 * 30:02}",
            f"{8 + (number + 1) // 2:02}:{(number + 1) % 2 * 30:02}",
        )
        answer = await call(
            clinic,
            "Appointment/$book",
            ("practitioner", PINE),
            ("practitioner", ELM),
            appointment_resource=visit(start, end),
        )
        assert answer.status_code == 201, answer.text
    shares = [len(await entries(clinic, f"Appointment?actor={doctor}")) for doctor in (PINE, ELM)]
    assert shares == [5, 5]


async def test_s6_wall_clock_times_over_a_clock_change(known: Knowledge) -> None:
    """Chicago: 02:30 on 2026-03-08 does not exist, 01:30 on 2026-11-01 comes twice."""
    horizon = [CHICAGO, parameters(horizon=400 * 1440)]
    async with practice(known) as clinic:
        around = {"daysOfWeek": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "allDay": True}
        role = {"resourceType": "PractitionerRole", "id": "owl-role", "practitioner": {"reference": "Practitioner/owl"}}
        await store(
            clinic,
            [
                {"resourceType": "Practitioner", "id": "owl"},
                {**role, "availableTime": [around]},
                schedule("owl", "Practitioner/owl", extension=horizon),
            ],
        )
        for day, night, expected in (
            ("2026-03-08", "-06:00", ["07:30", "08:00", "08:30", "09:00"]),
            ("2026-11-01", "-05:00", ["06:30", "07:00", "07:30", "08:00"]),
        ):
            start = f"{day}T01:30:00{night}"
            found = await find(clinic, start=start, end=f"{day}T12:00:00Z", practitioner="Practitioner/owl", _count=7)
            starts = [each["start"][11:16] for each in found if each["resourceType"] == "Appointment"]
            assert [each for each in starts if each[3:] in ("00", "30")] == expected


async def test_s7_unavailability_has_the_scope_of_where_it_stands(known: Knowledge) -> None:
    async with practice(known) as clinic:
        for name, zone in (("north", "America/Chicago"), ("south", "America/Denver")):
            role = next(each for each in doctors(["oak"]) if each["resourceType"] == "PractitionerRole")
            role = {**role, "id": name, "practitioner": {"reference": PINE}}
            if name == "north":
                role["notAvailable"] = [
                    {"description": "leave", "during": {"start": "2026-03-10", "end": "2026-03-10"}}
                ]
            extension = [{**CHICAGO, "valueCode": zone}]
            await store(clinic, [role, schedule(name, f"PractitionerRole/{name}", extension=extension)])
        day = {"start": "2026-03-10T00:00:00-06:00", "end": "2026-03-11T00:00:00-06:00"}
        north = await find(clinic, **day, practitioner="PractitionerRole/north")
        assert all("PractitionerRole/north" not in str(each["participant"]) for each in north if "participant" in each)
        south = await find(clinic, **day, practitioner="PractitionerRole/south", _count=200)
        assert any("PractitionerRole/south" in str(each.get("participant")) for each in south)


async def test_s9_an_override_needs_a_reason_and_is_kept(clinic: Client) -> None:
    await post(clinic, visit("10:00", "10:30", PINE, ADA))
    resource = visit("10:00", "10:30", PINE, BEN)
    bare = await call(clinic, "Appointment/$book", appointment_resource=resource, override="clash")
    assert (bare.status_code, bare.json()["issue"][0]["expression"]) == (400, ["reason"])
    asked = {"appointment_resource": resource, "override": "clash", "reason": "mother of Cy Reed asked"}
    booked = await call(clinic, "Appointment/$book", **asked)
    assert booked.status_code == 201, booked.text
    note = booked.json()["extension"][0]
    assert note["url"].endswith("booking-override")
    assert {"url": "reason", "valueString": "mother of Cy Reed asked"} in note["extension"]
    (slot,) = [(await clinic.get(each["reference"])).json() for each in booked.json()["slot"]]
    assert slot["overbooked"] is True
    assert (await call(clinic, "Appointment/$book", **asked)).status_code == 200
    taken = await find(clinic, practitioner=PINE, _count=200)
    assert "2026-03-02T16:00:00.000Z" not in {each.get("start") for each in taken}


async def test_hours_grid_notice_and_past_bind_the_operations_only(clinic: Client) -> None:
    for start, end, kind in (("19:00", "19:30", "hours"), ("10:07", "10:37", "hours")):
        resource = visit(start, end, PINE)
        assert (await call(clinic, "Appointment/$book", appointment_resource=resource)).status_code == 422
        asked = {"appointment_resource": resource, "override": kind, "reason": "an emergency"}
        assert (await call(clinic, "Appointment/$book", **asked)).status_code == 201
    past = await call(
        clinic, "Appointment/$book", appointment_resource=visit("2026-02-02T10:00:00Z", "2026-02-02T10:30:00Z", PINE)
    )
    assert past.status_code == 422 and "past" in diagnostics(past)
    await post(clinic, visit("20:00", "20:30", PINE))


BAD: dict[str, tuple[Tree, int, str]] = {
    "nothing named": ({}, 400, "appointment-reference"),
    "unknown actor": (
        {"appointment_resource": visit("10:00", "10:30", "Practitioner/no")},
        400,
        "participant[0].actor",
    ),
    "end before start": ({"appointment_resource": visit("10:30", "10:00", PINE)}, 400, "Appointment.end"),
    "nobody": ({"appointment_resource": visit("10:00", "10:30")}, 400, "Appointment.participant"),
    "unknown override": (
        {"appointment_resource": visit("10:00", "10:30", PINE), "override": "all", "reason": "x"},
        400,
        "override",
    ),
    "unknown patient": (
        {"appointment_resource": visit("10:00", "10:30", PINE), "patient_reference": "Patient/no"},
        404,
        "patient-reference",
    ),
    "no such day": (
        {"appointment_resource": visit("2026-02-30T10:00:00Z", "2026-02-30T10:30:00Z", PINE)},
        400,
        "Appointment.start",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_said_and_nothing_is_half_booked(clinic: Client, case: str) -> None:
    asked, status, expression = BAD[case]
    answer = await call(clinic, "Appointment/$book", **asked)
    assert answer.status_code == status, answer.text
    assert expression in str([issue.get("expression") for issue in answer.json()["issue"]])
    for type in ("Appointment", "Slot", "Provenance"):
        assert await entries(clinic, type) == []


async def test_no_zone_known_is_said(known: Knowledge) -> None:
    async with practice(known) as clinic:
        await store(clinic, [schedule("pine", PINE)])
        assert "No time zone is known for `Schedule/pine`" in reasons(await find(clinic, practitioner=PINE))
        refused = await call(clinic, "Appointment/$book", appointment_resource=visit("10:00", "10:30", PINE))
        assert refused.status_code == 422 and "No time zone" in diagnostics(refused)


async def test_scheduling_parameters_without_sense_are_refused(clinic: Client) -> None:
    wrong = schedule("pine", PINE, extension=[parameters(duration=0)])
    answer = await clinic.put("Schedule/pine", json=wrong)
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (
        422,
        ["Schedule.extension[0].extension[0].valueDuration"],
    )
    none = {"url": "capacity", "valuePositiveInt": 0}
    zero = schedule("pine", PINE, extension=[{**parameters(), "extension": [none]}])
    assert (await clinic.put("Schedule/pine", json=zero)).status_code == 400
    assert minutes(5)["code"] == "min"


async def test_overlapping_hours_are_remarked(clinic: Client) -> None:
    role = next(each for each in doctors(["pine"]) if each["resourceType"] == "PractitionerRole")
    role["availableTime"] = [*role["availableTime"], *role["availableTime"]]
    answer: httpx.Response = await clinic.put(
        "PractitionerRole/pine-role", json=role, headers={"prefer": "return=OperationOutcome"}
    )
    assert answer.status_code == 200
    assert [each["severity"] for each in answer.json()["issue"]][1:] and "warning" in str(answer.json())


async def test_a_group_has_one_appointment_for_each_patient(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri, capacity=3) as clinic:
        statuses = [
            (
                await call(
                    clinic, "Appointment/$book", appointment_resource=visit("10:00", "10:30", PINE, f"Patient/{p}")
                )
            ).status_code
            for p in ("ada", "ben", "cy", "dot")
        ]
        assert statuses == [201, 201, 201, 409]
