"""The life cycle, and what each change of status does with the Slots of an Appointment."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice, read_practice
from mappers.scheduling.elements import Resource, extension_value, reference_of, slot_origin
from mappers.scheduling.extensions import HOLD_EXPIRES
from mappers.scheduling.life_cycle import TRANSITIONS, check_transition, list_next
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.slots import (
    SlotChanges,
    SlotContext,
    check_hold,
    derive_slots,
    make_schedule,
    mark_hold,
    release_slots,
)
from tests.mappers.scheduling.scheduling_resources import appointment, at, parameters, role, schedule, slot

START, END, NOW = "2026-03-02T16:00:00Z", "2026-03-02T16:30:00Z", at("2026-03-01T00:00:00Z")
PRACTICE, _ = read_practice(
    [
        role("r", "Practitioner/pine"),
        schedule("pine", "PractitionerRole/r"),
        {"resourceType": "Location", "id": "room", "physicalType": {"coding": [{"code": "ro"}]}},
    ],
    SchedulingParameters(zone="America/Chicago"),
)


def derive(new: Resource, *stored: Resource, old: Resource | None = None, **more: Any) -> SlotChanges:
    numbers = itertools.count(1 + sum(slot_origin(each) == "booking" for each in stored))
    values = {"named_by_others": frozenset(), "now": NOW, "practice": PRACTICE, **more}
    practice: Practice = values.pop("practice")
    context = SlotContext(slots=stored, new_id=lambda: f"new{next(numbers)}", **values)
    return derive_slots(new, practice, context, old)


def names(appointment: Resource) -> list[str]:
    return [each["reference"] for each in appointment.get("slot", [])]


def test_a_booking_makes_a_busy_slot_for_each_actor_but_the_patient() -> None:
    changes = derive(appointment("a", START, END, "Practitioner/pine", "Patient/ada", "Location/room"))
    pine, made, room = changes.writes
    assert (pine["schedule"], pine["status"], slot_origin(pine)) == ({"reference": "Schedule/pine"}, "busy", "booking")
    assert (at(pine["start"]), at(pine["end"])) == (at(START), at(END))
    assert made == make_schedule("Location/room")
    assert room["schedule"] == {"reference": reference_of(made)}
    assert names(changes.appointment) == [reference_of(pine), reference_of(room)]


def test_the_same_booking_again_changes_nothing() -> None:
    first = derive(appointment("a", START, END, "Practitioner/pine"))
    again = derive(first.appointment, *first.writes, old=first.appointment)
    assert again == SlotChanges(first.appointment)


def test_a_hold_makes_a_tentative_slot_that_says_when_it_expires() -> None:
    held = derive(mark_hold(appointment("a", START, END, "Practitioner/pine"), at("2026-03-01T00:10:00Z")))
    (tentative,) = held.writes
    assert tentative["status"] == "busy-tentative"
    assert at(extension_value(tentative, HOLD_EXPIRES)) == at("2026-03-01T00:10:00Z")
    booked = derive({**held.appointment, "status": "booked"}, tentative, old=held.appointment)
    (busy,) = booked.writes
    assert (reference_of(busy), busy["status"]) == (reference_of(tentative), "busy")
    assert extension_value(busy, HOLD_EXPIRES) is None


def test_a_published_slot_becomes_busy_and_free_again() -> None:
    published = slot("p", "Schedule/pine", START, END, "free")
    booked = derive(appointment("a", START, END, "Practitioner/pine"), published)
    assert booked.writes == ({**published, "status": "busy"},)
    assert names(booked.appointment) == ["Slot/p"]
    cancelled = derive({**booked.appointment, "status": "cancelled"}, *booked.writes, old=booked.appointment)
    assert cancelled.writes == (published,)
    assert cancelled.deletes == ()


def test_what_published_slots_do_not_cover_gets_a_slot_of_the_booking() -> None:
    half = slot("p", "Schedule/pine", START, "2026-03-02T16:15:00Z", "free")
    booked = derive(appointment("a", START, END, "Practitioner/pine"), half)
    assert names(booked.appointment) == ["Slot/p", "Slot/new1"]
    cancelled = derive({**booked.appointment, "status": "cancelled"}, *booked.writes, old=booked.appointment)
    assert cancelled.deletes == ("Slot/new1",)
    assert cancelled.writes == (half,)
    assert names(cancelled.appointment) == ["Slot/p"]


def test_a_published_slot_that_another_booking_names_stays_busy() -> None:
    busy = slot("p", "Schedule/pine", START, "2026-03-02T17:00:00Z")
    old = appointment("a", START, END, "Practitioner/pine", slot=[{"reference": "Slot/p"}])
    changes = derive({**old, "status": "cancelled"}, busy, old=old, named_by_others=frozenset({"Slot/p"}))
    assert changes.writes == ()


@pytest.mark.parametrize("status", ["cancelled", "entered-in-error", "proposed", "waitlist", "noshow"])
def test_freeing_statuses_delete_the_slot_of_the_booking(status: str) -> None:
    booked = derive(appointment("a", START, END, "Practitioner/pine"))
    freed = derive({**booked.appointment, "status": status}, *booked.writes, old=booked.appointment)
    assert freed.deletes == ("Slot/new1",)
    assert "slot" not in freed.appointment


@pytest.mark.parametrize("status", ["noshow", "fulfilled"])
def test_after_the_end_a_noshow_and_a_fulfilled_one_keep_theirs(status: str) -> None:
    booked = derive(appointment("a", START, END, "Practitioner/pine"))
    changes = derive({**booked.appointment, "status": status}, *booked.writes, old=booked.appointment, now=at(END))
    assert (changes.writes, changes.deletes) == ((), ())
    assert names(changes.appointment) == ["Slot/new1"]


def test_a_moved_booking_moves_its_slot() -> None:
    booked = derive(appointment("a", START, END, "Practitioner/pine"))
    later = {**booked.appointment, "start": "2026-03-02T18:00:00Z", "end": "2026-03-02T18:30:00Z"}
    moved = derive(later, *booked.writes, old=booked.appointment)
    (one,) = moved.writes
    assert (reference_of(one), at(one["start"])) == ("Slot/new1", at("2026-03-02T18:00:00Z"))
    assert moved.deletes == ()


def test_another_provider_gets_another_slot() -> None:
    booked = derive(appointment("a", START, END, "Practitioner/pine"))
    other = {**appointment("a", START, END, "Device/d"), "slot": booked.appointment["slot"]}
    changes = derive(other, *booked.writes, old=booked.appointment, practice=PRACTICE)
    assert changes.deletes == ("Slot/new1",)
    assert [each["resourceType"] for each in changes.writes] == ["Schedule", "Slot"]


def test_a_group_leaves_the_published_slot_to_the_worker() -> None:
    practice, _ = read_practice(
        [role("r", "Practitioner/pine"), schedule("pine", "PractitionerRole/r", extension=[parameters(capacity=3)])],
        SchedulingParameters(zone="America/Chicago"),
    )
    published = slot("p", "Schedule/pine", START, END, "free")
    changes = derive(appointment("a", START, END, "Practitioner/pine"), published, practice=practice)
    assert names(changes.appointment) == ["Slot/new1"]


def test_a_double_booking_marks_the_slot() -> None:
    changes = derive(appointment("a", START, END, "Practitioner/pine"), overbooked=True)
    assert changes.writes[0]["overbooked"] is True


def test_a_deleted_appointment_releases_its_slots() -> None:
    booked = derive(appointment("a", START, END, "Practitioner/pine"))
    context = SlotContext(booked.writes, frozenset(), lambda: "x", NOW)
    assert release_slots(booked.appointment, context).deletes == ("Slot/new1",)


def test_references_to_slots_elsewhere_stay() -> None:
    foreign = appointment("a", START, END, "Practitioner/pine", slot=[{"reference": "https://x.example/fhir/Slot/9"}])
    assert names(derive({**foreign, "status": "cancelled"}, old=foreign).appointment) == [
        "https://x.example/fhir/Slot/9"
    ]


def test_a_hold_is_booked_by_its_patient_before_it_expires() -> None:
    until = at("2026-03-01T00:10:00Z")
    held = mark_hold(appointment("a", START, END, "Practitioner/pine", "Patient/ada"), until)
    assert check_hold(held, "Patient/ada", NOW) is None
    for patient, now, code in (("Patient/bo", NOW, "forbidden"), ("Patient/ada", until, "expired")):
        issue = check_hold(held, patient, now)
        assert issue is not None
        assert issue.code == code
    assert check_hold({**held, "status": "cancelled"}, "Patient/ada", NOW) is not None


# The life cycle


def test_the_table_has_every_status_of_r4() -> None:
    """https://hl7.org/fhir/R4/valueset-appointmentstatus.html"""
    codes = "proposed pending booked arrived fulfilled cancelled noshow entered-in-error checked-in waitlist"
    assert set(TRANSITIONS) == set(codes.split())
    assert all(set(following) <= set(TRANSITIONS) for following in TRANSITIONS.values())


def test_every_change_is_allowed_or_refused_with_what_is_allowed() -> None:
    for old, new in itertools.product(TRANSITIONS, repeat=2):
        issue = check_transition(old, new)
        if new == old or new in TRANSITIONS[old]:
            assert issue is None
        else:
            assert issue is not None
            assert issue.expression == ("Appointment.status",)
            assert f"allowed: {', '.join(list_next(old)) or 'none'}" in issue.diagnostics


def test_a_cancelled_one_is_booked_anew() -> None:
    issue = check_transition("cancelled", "booked")
    assert issue is not None
    assert "book anew" in issue.diagnostics


def test_an_unknown_status_is_an_issue() -> None:
    issue = check_transition("booked", "gone")
    assert isinstance(issue, Issue)
    assert issue.code == "code-invalid"


def test_the_table_in_the_docs_is_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "scheduling.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|", page, flags=re.MULTILINE))
    for status in TRANSITIONS:
        assert re.sub(r"`", "", rows[status]).strip() == (", ".join(list_next(status)) or "none")
