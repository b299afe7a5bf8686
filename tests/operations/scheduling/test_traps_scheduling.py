"""What people who run scheduling systems reported: every row has its tests, here by name (S16, S17: reminders)."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import (
    Clock,
    Tree,
    call,
    diagnostics,
    entries,
    patch_status,
    post,
    practice,
    visit,
)
from tests.shared import SHARED, shared_path

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).resolve().parents[2]
PURE = "mappers/scheduling/test_scheduling_traps.py"
HERE, RACES, RULE, OPERATIONS, CHANGES, PUBLICATION = (
    f"operations/scheduling/test_{name}.py"
    for name in (
        "traps_scheduling",
        "booking_races",
        "booking_rule",
        "booking_operations",
        "booking_changes",
        "publication",
    )
)
SIU = "workers/test_hl7v2_appointments.py"

# Row of traps.md → file and test, at the pure functions and over HTTP.
TRAPS: dict[str, tuple[tuple[str, str], ...]] = {
    "S1": (
        (PURE, "test_s1_overlapping_unequal_bookings_are_one_race_at_capacity_k"),
        (RACES, "test_s1_two_hundred_clients_get_exactly_the_capacity"),
        (RACES, "test_s1_plain_writes_and_operations_meet_in_one_rule"),
        (RACES, "test_s1_on_mongo"),
        (RACES, "test_s1_over_two_processes"),
    ),
    "S2": (
        (PURE, "test_s2_the_rule_is_checked_at_every_way_into_booked"),
        (HERE, "test_s2_every_way_into_booked_is_refused_for_what_is_taken"),
        (RULE, "test_s2_two_requests_for_one_time_are_not_both_confirmed"),
        (RULE, "test_s2_an_appointment_response_confirms_only_what_is_free"),
        (SIU, "test_a_conflict_on_our_schedule_is_refused_with_nothing_booked"),
    ),
    "S4": (
        (PURE, "test_s4_capacity_belongs_to_the_actor_and_any_of_tries_the_others"),
        (OPERATIONS, "test_s4_any_of_tries_the_remaining_candidates_inside_one_call"),
    ),
    "S5": (
        (PURE, "test_s5_ten_any_of_bookings_are_shared_evenly_in_a_stated_order"),
        (OPERATIONS, "test_s5_ten_any_of_bookings_are_shared_evenly"),
    ),
    "S6": (
        (PURE, "test_s6_series_keep_their_wall_clock_time"),
        (PURE, "test_s6_a_time_that_does_not_exist_is_not_offered_and_one_that_comes_twice_is_two"),
        (OPERATIONS, "test_s6_wall_clock_times_over_a_clock_change"),
        (CHANGES, "test_s6_a_series_keeps_its_wall_clock_time"),
    ),
    "S7": (
        (PURE, "test_s7_unavailability_has_the_scope_of_where_it_stands"),
        (PURE, "test_s7_a_block_over_midnight_covers_both_days"),
        (OPERATIONS, "test_s7_unavailability_has_the_scope_of_where_it_stands"),
    ),
    "S9": (
        (PURE, "test_s9_staff_may_double_book_with_a_reason_that_is_kept"),
        (OPERATIONS, "test_s9_an_override_needs_a_reason_and_is_kept"),
    ),
    "S10": (
        (PURE, "test_s10_a_patient_is_at_one_place_at_a_time"),
        (RULE, "test_s10_a_patient_is_not_with_two_doctors_at_once"),
        (HERE, "test_s10_a_patient_is_taken_in_every_occupying_status"),
    ),
    "S13": (
        (PURE, "test_s13_leaving_an_occupying_status_frees_the_slots"),
        (RULE, "test_s13_every_door_that_leaves_an_occupying_status_frees_the_slots"),
        (CHANGES, "test_s13_a_cancelled_one_is_booked_anew"),
        (SIU, "test_a_booking_takes_the_time_and_a_cancellation_gives_it_back"),
    ),
    "S14": (
        (PURE, "test_s14_a_refusal_lists_the_statuses_allowed_next"),
        (RULE, "test_s14_a_refusal_lists_the_statuses_allowed_next"),
        (RULE, "test_s14_an_encounter_moves_its_appointment"),
        (RULE, "test_s14_an_encounter_leaves_a_cancelled_appointment_and_says_so"),
        (RULE, "test_s14_the_setting_leaves_appointments_alone"),
        ("mappers/scheduling/test_scheduling_slots.py", "test_the_table_in_the_docs_is_the_table"),
    ),
    "S15": (
        (PURE, "test_s15_a_series_answers_per_occurrence_with_three_alternatives"),
        (CHANGES, "test_s15_a_series_answers_for_each_occurrence"),
    ),
    "S19": (
        (PURE, "test_s19_capacity_is_what_is_left_now"),
        (PUBLICATION, "test_a_published_link_opens_that_time_and_is_gone_when_it_is_booked"),
    ),
    "S20": (
        (PURE, "test_s20_a_refusal_is_a_conflict"),
        (OPERATIONS, "test_s20_the_second_hold_is_a_conflict"),
    ),
}

PINE, ELM, ADA, BEN = "Practitioner/pine", "Practitioner/elm", "Patient/ada", "Patient/ben"


@cache
def list_tests(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", TRAPS)
def test_every_row_has_tests_at_the_functions_and_over_http(row: str) -> None:
    assert [each for each in TRAPS[row] if each[1] not in list_tests(each[0])] == []
    assert len({file for file, _ in TRAPS[row]}) >= 2


def test_no_row_is_left_out() -> None:
    text = shared_path("mapping/traps.md").read_text(encoding="utf-8")
    assert SHARED.exists()
    assert set(TRAPS) == set(re.findall(r"^\| (S\d+) \|", text, re.MULTILINE)) - {"S16", "S17"}


DOORS = ("patch", "put", "transaction", "batch", "json patch to arrived", "$book", "response", "new")


async def confirm(client: Client, request: Tree, door: str) -> httpx.Response:
    """Make a request booked (or arrived) by one of the doors."""
    url = f"Appointment/{request['id']}"
    booked = {**request, "status": "booked"}
    if door == "patch":
        return await patch_status(client, request, "booked")
    if door == "json patch to arrived":  # a way round the life cycle would be one round the rule
        return await patch_status(client, request, "arrived")
    if door == "put":
        return await client.fhir("PUT", url, json=booked)
    if door == "new":
        return await client.fhir("POST", "Appointment", json={**booked, "id": "another"})
    if door == "$book":
        return await call(client, "Appointment/$book", appointment_reference=url)
    if door == "response":
        answer = {
            "resourceType": "AppointmentResponse",
            "appointment": {"reference": url},
            "actor": {"reference": PINE},
            "participantStatus": "accepted",
        }
        return await client.fhir("POST", "AppointmentResponse", json=answer)
    entry = {"resource": booked, "request": {"method": "PUT", "url": url}}
    return await client.fhir("POST", "", json={"resourceType": "Bundle", "type": door, "entry": [entry]})


@pytest.mark.parametrize("door", DOORS)
async def test_s2_every_way_into_booked_is_refused_for_what_is_taken(
    known: Knowledge, store_uri: str, door: str
) -> None:
    """Two requests for one time; one is confirmed, and the other one is not, by no door."""
    async with practice(known, store_uri) as clinic:
        first, second = [
            await post(clinic, visit("10:00", "10:30", PINE, patient, status="pending")) for patient in (ADA, BEN)
        ]
        assert (await patch_status(clinic, first, "booked")).status_code == 200
        refused = await confirm(clinic, second, door)
        if door == "batch":
            (entry,) = refused.json()["entry"]
            assert entry["response"]["status"].startswith("409"), entry
        else:
            assert refused.status_code == (422 if door == "json patch to arrived" else 409), refused.text
            assert f"Appointment/{first['id']}" in diagnostics(refused) or "cannot become" in diagnostics(refused)
        left = (await clinic.get(f"Appointment/{second['id']}")).json()
        assert (left["status"], left["meta"]["versionId"]) == ("pending", "1")
        assert len(await entries(clinic, "Appointment?status=booked")) == 1


@pytest.mark.parametrize("status", ["pending", "booked", "arrived", "checked-in", "fulfilled"])
async def test_s10_a_patient_is_taken_in_every_occupying_status(known: Knowledge, status: str) -> None:
    async with practice(known, clock=Clock()) as clinic:
        first = await post(clinic, visit("10:00", "10:30", PINE, ADA, status=status))
        clash = await call(clinic, "Appointment/$book", appointment_resource=visit("10:15", "10:45", ELM, ADA))
        assert clash.status_code == 409
        assert f"Appointment/{first['id']}" in diagnostics(clash)
