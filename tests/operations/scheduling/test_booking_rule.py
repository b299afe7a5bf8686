"""The rule of booking at every door: POST, PUT, PATCH, DELETE, bundle entries (docs/scheduling.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import (
    JSON_PATCH,
    Clock,
    Tree,
    diagnostics,
    entries,
    patch_status,
    post,
    practice,
    visit,
)

pytestmark = pytest.mark.anyio

PINE, ELM, ADA, BEN = "Practitioner/pine", "Practitioner/elm", "Patient/ada", "Patient/ben"


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with practice(known, store_uri) as client:
        yield client


async def test_s2_two_requests_for_one_time_are_not_both_confirmed(clinic: Client) -> None:
    first = await post(clinic, visit("10:00", "10:30", PINE, status="pending"))
    second = await post(clinic, visit("10:00", "10:30", PINE, status="pending"))
    assert (await patch_status(clinic, first, "booked")).status_code == 200
    refused = await patch_status(clinic, second, "booked")
    assert refused.status_code == 409
    assert f"Appointment/{first['id']}" in diagnostics(refused)
    assert (await clinic.get(f"Appointment/{second['id']}")).json()["meta"]["versionId"] == "1"


async def test_a_refused_plain_write_tells_the_next_free_times(clinic: Client) -> None:
    await post(clinic, visit("10:00", "10:30", PINE))
    await post(clinic, visit("10:30", "11:15", ELM, ADA))
    refused = await clinic.fhir("POST", "Appointment", json=visit("10:15", "10:45", PINE, ADA))
    assert refused.status_code == 409
    taken = [issue["code"] for issue in refused.json()["issue"] if issue["severity"] == "error"]
    assert taken == ["conflict", "conflict"]
    # until 10:30 the doctor is taken, and from then until 11:15 the patient
    assert "Free instead: 2026-03-02T17:15:00.000Z (Schedule/pine)" in diagnostics(refused)
    entry = {"resource": visit("10:15", "10:45", PINE), "request": {"method": "POST", "url": "Appointment"}}
    answer = await clinic.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.status_code == 409 and "Free instead: 2026-03-02T16:30:00.000Z" in diagnostics(answer)


async def answer_for(client: Client, appointment: Tree, actor: str, status: str) -> httpx.Response:
    response = {
        "resourceType": "AppointmentResponse",
        "appointment": {"reference": f"Appointment/{appointment['id']}"},
        "actor": {"reference": actor},
        "participantStatus": status,
    }
    return await client.post("AppointmentResponse", json=response)


async def test_s2_an_appointment_response_confirms_only_what_is_free(clinic: Client) -> None:
    requests = []
    for _ in range(2):
        request = visit("10:00", "10:30", PINE, ADA, status="pending")
        request["participant"][0]["status"] = "needs-action"
        requests.append(await post(clinic, request))
    assert (await answer_for(clinic, requests[0], PINE, "accepted")).status_code == 201
    booked = (await clinic.get(f"Appointment/{requests[0]['id']}")).json()
    assert (booked["status"], booked["participant"][0]["status"]) == ("booked", "accepted")
    refused = await answer_for(clinic, requests[1], "PractitionerRole/pine-role", "accepted")
    assert refused.status_code == 409, refused.text
    assert (await clinic.get(f"Appointment/{requests[1]['id']}")).json()["status"] == "pending"
    assert len(await entries(clinic, "AppointmentResponse")) == 1


async def test_who_declines_is_not_taken(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    assert (await answer_for(clinic, made, PINE, "declined")).status_code == 201
    await post(clinic, visit("10:00", "10:30", PINE))
    before = (await clinic.get(f"Appointment/{made['id']}")).json()
    assert (await answer_for(clinic, made, ELM, "accepted")).status_code == 201
    assert (await clinic.get(f"Appointment/{made['id']}")).json() == before


def encounter(appointment: Tree, status: str) -> Tree:
    return {
        "resourceType": "Encounter",
        "id": "e",
        "status": status,
        "class": {"code": "AMB"},
        "appointment": [{"reference": f"Appointment/{appointment['id']}"}],
    }


async def test_s14_an_encounter_moves_its_appointment(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    for status, expected in (("planned", "booked"), ("in-progress", "arrived"), ("finished", "fulfilled")):
        assert (await clinic.put("Encounter/e", json=encounter(made, status))).status_code in (200, 201)
        assert (await clinic.get(f"Appointment/{made['id']}")).json()["status"] == expected


async def test_s14_an_encounter_leaves_a_cancelled_appointment_and_says_so(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA, status="cancelled"))
    answer = await clinic.put(
        "Encounter/e", json=encounter(made, "in-progress"), headers={"prefer": "return=OperationOutcome"}
    )
    assert "was not moved" in diagnostics(answer)
    assert (await clinic.get(f"Appointment/{made['id']}")).json()["status"] == "cancelled"


async def test_s14_the_setting_leaves_appointments_alone(known: Knowledge) -> None:
    async with practice(known, set_encounter_moves_appointment=False) as clinic:
        made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
        await clinic.put("Encounter/e", json=encounter(made, "finished"))
        assert (await clinic.get(f"Appointment/{made['id']}")).json()["status"] == "booked"


async def test_s10_a_patient_is_not_with_two_doctors_at_once(clinic: Client) -> None:
    first = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    refused = await clinic.post("Appointment", json=visit("10:15", "10:45", ELM, ADA))
    assert refused.status_code == 409
    assert "`Patient/ada` is taken" in diagnostics(refused) and f"Appointment/{first['id']}" in diagnostics(refused)
    assert refused.json()["issue"][0]["expression"] == ["Appointment.participant[1]"]
    await post(clinic, visit("10:30", "11:00", ELM, ADA))


async def test_a_role_is_its_practitioner(clinic: Client) -> None:
    await post(clinic, visit("10:00", "10:30", "PractitionerRole/pine-role"))
    await post(clinic, visit("10:00", "10:30", PINE), 409)


async def test_a_room_is_taken_and_an_area_is_not(clinic: Client) -> None:
    await clinic.put("Location/hall", json={"resourceType": "Location", "id": "hall"})
    await post(clinic, visit("10:00", "10:30", PINE, "Location/room-1", "Location/hall"))
    await post(clinic, visit("10:00", "10:30", ELM, "Location/room-1", "Location/hall"), 409)
    await post(clinic, visit("10:00", "10:30", ELM, "Location/room-2", "Location/hall"))


async def test_a_visit_of_several_days_is_found_from_each_of_them(clinic: Client) -> None:
    await post(clinic, visit("2026-03-02T10:00:00Z", "2026-03-09T10:00:00Z", PINE, "Location/room-1"))
    for start, end in (
        ("2026-03-02T11:00:00Z", "2026-03-02T12:00:00Z"),
        ("2026-03-08T11:00:00Z", "2026-03-08T12:00:00Z"),
    ):
        await post(clinic, visit(start, end, PINE), 409)
        await post(clinic, visit(start, end, "Location/room-1"), 409)


async def test_s13_every_door_that_leaves_an_occupying_status_frees_the_slots(clinic: Client) -> None:
    for door in ("patch", "put", "delete", "transaction"):
        made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
        (slot,) = [each["reference"] for each in made["slot"]]
        assert (await clinic.get(slot)).json()["status"] == "busy"
        url = f"Appointment/{made['id']}"
        cancelled = {**made, "status": "cancelled"}
        if door == "patch":
            answer = await patch_status(clinic, made, "cancelled")
        elif door == "put":
            answer = await clinic.put(url, json=cancelled)
        elif door == "delete":
            answer = await clinic.delete(url)
        else:
            entry = {"resource": cancelled, "request": {"method": "PUT", "url": url}}
            answer = await clinic.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        assert answer.status_code in (200, 204), (door, answer.text)
        assert (await clinic.get(slot)).status_code == 410, door
        times = set()
        for name in (url, slot):
            history = (await clinic.get(f"{name}/_history")).json()["entry"]
            times.add(history[0]["response"]["lastModified"])
        assert len(times) == 1, door
        if door != "delete":
            assert "slot" not in (await clinic.get(url)).json()


async def test_a_slot_of_the_site_becomes_busy_and_free_again(clinic: Client) -> None:
    slot = {"resourceType": "Slot", "id": "s", "schedule": {"reference": "Schedule/pine"}, "status": "free"}
    await clinic.put("Slot/s", json={**slot, "start": "2026-03-02T10:00:00-06:00", "end": "2026-03-02T10:30:00-06:00"})
    made = await post(clinic, visit("10:00", "10:30", PINE))
    assert made["slot"] == [{"reference": "Slot/s"}]
    assert (await clinic.get("Slot/s")).json()["status"] == "busy"
    moved = {**made, "start": "2026-03-02T11:00:00-06:00", "end": "2026-03-02T11:30:00-06:00"}
    assert (await clinic.put(f"Appointment/{made['id']}", json=moved)).status_code == 200
    assert (await clinic.get("Slot/s")).json()["status"] == "free"


async def test_a_slot_of_the_site_that_an_earlier_visit_names_leaves_the_rest_of_its_time_free(clinic: Client) -> None:
    """The visit is far from the second one, and only it tells that the Slot is no taken time."""
    site = {"resourceType": "Slot", "id": "morning", "schedule": {"reference": "Schedule/pine"}, "status": "free"}
    times = {"start": "2026-03-02T09:00:00-06:00", "end": "2026-03-02T12:00:00-06:00"}
    await clinic.put("Slot/morning", json={**site, **times})
    first = await post(clinic, visit("09:00", "09:30", PINE))
    assert first["slot"] == [{"reference": "Slot/morning"}]
    await post(clinic, visit("11:30", "12:00", PINE))
    await post(clinic, visit("11:45", "12:15", PINE), 409)


async def test_a_put_without_the_slots_keeps_them_and_makes_no_version(clinic: Client) -> None:
    sent = {**visit("10:00", "10:30", PINE, ADA), "id": "a"}
    first = await clinic.put("Appointment/a", json=sent)
    again = await clinic.put("Appointment/a", json=sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert len(await entries(clinic, "Slot")) == 1


async def test_busy_slots_without_appointment_are_taken_time(clinic: Client) -> None:
    slot = {"resourceType": "Slot", "schedule": {"reference": "Schedule/pine"}, "status": "busy"}
    await post(clinic, {**slot, "start": "2026-03-02T10:00:00-06:00", "end": "2026-03-02T10:30:00-06:00"})
    await post(clinic, visit("10:15", "10:45", PINE), 409)


async def test_s14_a_refusal_lists_the_statuses_allowed_next(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, status="noshow"))
    refused = await patch_status(clinic, made, "arrived")
    assert refused.status_code == 422
    assert "allowed: booked (with override), entered-in-error" in diagnostics(refused)


async def test_a_history_loads_without_a_clash_check(clinic: Client) -> None:
    for _ in range(2):
        made = await post(clinic, visit("2020-03-02T10:00:00Z", "2020-03-02T10:30:00Z", PINE, status="fulfilled"))
        assert "slot" not in made


async def test_a_fulfilled_visit_keeps_its_slot_and_a_noshow_before_its_end_does_not(known: Knowledge) -> None:
    clock = Clock()
    async with practice(known, clock=clock) as clinic:
        early, late, done = [
            await post(clinic, visit(start, end, PINE))
            for start, end in (("10:00", "10:30"), ("11:00", "11:30"), ("12:00", "12:30"))
        ]
        clock.set("2026-03-02T16:10:00Z")  # 10:10 in Chicago
        assert (await patch_status(clinic, early, "noshow")).status_code == 200
        clock.set("2026-03-02T23:00:00Z")
        assert (await patch_status(clinic, late, "noshow")).status_code == 200
        assert (await patch_status(clinic, done, "fulfilled")).status_code == 200
        states = [(await clinic.get(each["slot"][0]["reference"])) for each in (early, late, done)]
        assert [each.status_code for each in states] == [410, 200, 200]
        assert [each.json()["status"] for each in states[1:]] == ["busy", "busy"]


async def test_entries_of_one_transaction_clash_with_each_other(clinic: Client) -> None:
    for starts, expected in ((("10:00", "10:15"), 409), (("10:00", "10:30"), 200)):
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {
                    "resource": visit(start, f"{start[:3]}{int(start[3:]) + 29}", PINE),
                    "request": {"method": "POST", "url": "Appointment"},
                }
                for start in starts
            ],
        }
        answer = await clinic.post("", json=bundle)
        assert answer.status_code == expected, answer.text
    assert len(await entries(clinic, "Appointment")) == 2


async def test_an_actor_without_schedule_gets_one(clinic: Client) -> None:
    await clinic.put("Device/scanner", json={"resourceType": "Device", "id": "scanner"})
    await post(clinic, visit("10:00", "10:30", "Device/scanner"))
    await post(clinic, visit("10:00", "10:30", "Device/scanner"), 409)
    await post(clinic, visit("10:30", "11:00", "Device/scanner"))
    assert len(await entries(clinic, "Schedule?actor=Device/scanner")) == 1
    assert len(await entries(clinic, "Slot?schedule.actor=Device/scanner")) == 2


async def test_a_changed_schedule_is_in_force_at_once(clinic: Client) -> None:
    from tests.mappers.scheduling.scheduling_resources import parameters, schedule

    await post(clinic, visit("10:00", "10:30", PINE))
    await post(clinic, visit("10:00", "10:30", PINE), 409)
    wider = schedule("pine", PINE, extension=[parameters(capacity=2)])
    assert (await clinic.put("Schedule/pine", json=wider)).status_code == 200
    await post(clinic, visit("10:00", "10:30", PINE))
    await post(clinic, visit("10:00", "10:30", PINE), 409)


async def test_the_setting_warns_or_says_nothing(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri, set_booking="warn") as clinic:
        await post(clinic, visit("10:00", "10:30", PINE))
        answer = await clinic.post(
            "Appointment", json=visit("10:00", "10:30", PINE), headers={"prefer": "return=OperationOutcome"}
        )
        assert answer.status_code == 201
        assert [each["severity"] for each in answer.json()["issue"]] == ["information", "warning"]
    async with practice(known, "memory://", set_booking="off") as clinic:
        for _ in range(2):
            assert "slot" not in await post(clinic, visit("10:00", "10:30", PINE))


async def test_times_without_sense_are_refused_with_their_path(clinic: Client) -> None:
    backwards = await clinic.post("Appointment", json=visit("10:30", "10:00", PINE))
    assert (backwards.status_code, backwards.json()["issue"][0]["expression"]) == (422, ["Appointment.end"])
    long = await clinic.post("Appointment", json=visit("10:00", "2029-03-02T10:00:00Z", PINE))
    assert (long.status_code, long.json()["issue"][0]["code"]) == (422, "too-costly")


async def test_an_override_is_no_extension_that_a_plain_write_brings_along(clinic: Client) -> None:
    await post(clinic, visit("10:00", "10:30", PINE))
    note = {
        "url": "https://fhir-server.example/StructureDefinition/booking-override",
        "extension": [{"url": "kind", "valueCode": "clash"}, {"url": "reason", "valueString": "me first"}],
    }
    await post(clinic, visit("10:00", "10:30", PINE, extension=[note]), 409)


async def test_other_members_keep_their_bytes(clinic: Client) -> None:
    text = (
        '{"resourceType":"Appointment","status":"booked","start":"2026-03-02T10:00:00-06:00", "end":'
        '"2026-03-02T10:30:00-06:00","participant":[{"actor":{"reference":"Practitioner/pine"},"status":"accepted"}],'
        '"extension":[{"url":"urn:x","valueDecimal":1.10}]}'
    )
    answer = await clinic.post("Appointment", content=text, headers={"content-type": "application/fhir+json"})
    assert answer.status_code == 201, answer.text
    assert '"valueDecimal":1.10}' in answer.text and '"slot"' in answer.text
    patched = await clinic.fhir(
        "PATCH",
        f"Appointment/{answer.json()['id']}",
        json=[{"op": "add", "path": "/comment", "value": "x"}],
        headers=JSON_PATCH,
    )
    assert '"valueDecimal":1.10}' in patched.text and '"slot"' in patched.text


async def test_the_slots_that_the_rule_makes_are_valid_though_nobody_checks_them(known: Knowledge) -> None:
    lengths = (("10:00", "10:30"), ("10:15:30.5", "14:20"), ("09:00", "2026-03-04T09:00:00+05:45"))
    async with practice(known, set_booking="warn") as clinic:
        await clinic.put("Device/scanner", json={"resourceType": "Device", "id": "scanner"})
        for status in ("booked", "arrived", "checked-in", "fulfilled", "pending"):
            for start, end in lengths:  # each at the same time as those before, so that Slots are overbooked
                times = [text if "T" in text or text.count(":") == 1 else _at(text) for text in (start, end)]
                await post(clinic, visit(*times, PINE, ADA, "Location/room-1", "Device/scanner", status=status))
        made = await entries(clinic, "Slot?_count=100")
    assert len(made) == 45 and any("overbooked" in slot for slot in made)
    assert [issue for slot in made for issue in known.validator.find_issues(slot)] == []


def _at(time: str) -> str:
    return f"2026-03-02T{time}-06:00"


async def test_a_hold_whose_expiry_is_no_instant_makes_no_slot(clinic: Client) -> None:
    hold = {"url": "https://fhir-server.example/StructureDefinition/hold-expires", "valueString": "2099 or so"}
    refused = await clinic.fhir(
        "POST", "Appointment", json=visit("10:00", "10:30", PINE, status="pending", extension=[hold])
    )
    assert refused.status_code == 400, refused.text
    assert await entries(clinic, "Slot") == [] and await entries(clinic, "Appointment") == []
