"""Clashes, capacity, buffers, overrides and lock names; brute force over sequences of bookings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice, read_practice
from mappers.scheduling.clashes import (
    Refusal,
    apply_override,
    check_actors,
    find_clashes,
    find_refusals,
    note_override,
)
from mappers.scheduling.elements import Resource, find_extension
from mappers.scheduling.extensions import BOOKING_OVERRIDE, HOLD_EXPIRES
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.locks import name_locks
from mappers.scheduling.occupied import list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from tests.mappers.scheduling.scheduling_resources import (
    WORKDAYS,
    appointment,
    at,
    concept,
    parameters,
    role,
    schedule,
    slot,
)

NOW = at("2026-03-01T00:00:00Z")
DAY = "2026-03-02"  # a Monday, −06:00 in Chicago


def practice_of(*more: Resource, pine: list[Resource] | None = None) -> Practice:
    resources = [
        role("north", "Practitioner/pine", ("09:00:00", "17:00:00"), days=WORKDAYS),
        schedule("pine", "PractitionerRole/north", extension=pine),
        {"resourceType": "Practitioner", "id": "pine"},
        {"resourceType": "Location", "id": "room", "physicalType": {"coding": [{"code": "ro"}]}},
        {"resourceType": "Location", "id": "clinic", "physicalType": {"coding": [{"code": "bu"}]}},
        *more,
    ]
    practice, issues = read_practice(resources, SchedulingParameters(zone="America/Chicago"))
    assert issues == []
    return practice


def visit(id: str, start: str, end: str, *actors: str, **more: Any) -> Resource:
    return appointment(id, f"{DAY}T{start}:00-06:00", f"{DAY}T{end}:00-06:00", *actors, **more)


def clashes(new: Resource, *there: Resource, practice: Practice | None = None, **more: Any) -> list[Refusal]:
    practice = practice or practice_of()
    return find_clashes(new, list_occupied(there, (), practice, NOW), practice, **more)


@pytest.mark.parametrize("actor", ["Practitioner/pine", "Location/room", "Device/scanner", "Patient/ada"])
def test_every_kind_of_actor_clashes(actor: str) -> None:
    (refusal,) = clashes(visit("b", "10:15", "10:45", actor), visit("a", "10:00", "10:30", actor))
    assert (refusal.kind, refusal.actor, refusal.others) == ("clash", actor, ("Appointment/a",))
    assert refusal.issue.code == "conflict"
    assert refusal.issue.expression == ("Appointment.participant[0]",)
    expected = f"`{actor}` is taken from 2026-03-02T16:00:00.000Z to 2026-03-02T16:30:00.000Z by `Appointment/a`."
    assert refusal.issue.diagnostics == expected


def test_touching_visits_do_not_clash_nor_does_an_appointment_with_itself() -> None:
    assert (
        clashes(visit("b", "10:30", "11:00", "Practitioner/pine"), visit("a", "10:00", "10:30", "Practitioner/pine"))
        == []
    )
    assert (
        clashes(visit("a", "10:15", "10:45", "Practitioner/pine"), visit("a", "10:00", "10:30", "Practitioner/pine"))
        == []
    )


def test_a_role_is_its_practitioner() -> None:
    (refusal,) = clashes(
        visit("b", "10:00", "10:30", "PractitionerRole/north"), visit("a", "10:00", "10:30", "Practitioner/pine")
    )
    assert refusal.actor == "Practitioner/pine"


def test_places_that_are_no_rooms_hold_many_visits() -> None:
    for actor in ("Location/clinic", "Location/unknown", "HealthcareService/s", "RelatedPerson/mother"):
        assert clashes(visit("b", "10:00", "10:30", actor), visit("a", "10:00", "10:30", actor)) == []


def test_buffers_of_both_visits_count_and_are_told_from_clashes() -> None:
    """Pine needs 10 minutes after a check and 5 before each visit: 10:30 to 10:40 and 5 more."""
    rows = [parameters("check", bufferAfter=10), parameters(bufferBefore=5)]
    practice = practice_of(pine=rows)
    check = visit("a", "10:00", "10:30", "Practitioner/pine", appointmentType=concept("check"))
    assert clashes(visit("b", "10:45", "11:00", "Practitioner/pine"), check, practice=practice) == []
    (refusal,) = clashes(visit("b", "10:44", "11:00", "Practitioner/pine"), check, practice=practice)
    assert refusal.kind == "buffer"
    assert "buffers of `Practitioner/pine` do not fit" in refusal.issue.diagnostics


def test_the_least_capacity_of_those_there_counts() -> None:
    """Three may come to a group; a single visit lets nobody be there beside it."""
    practice = practice_of(pine=[parameters("group", capacity=3)])
    group = [
        visit(str(n), "10:00", "11:00", "Practitioner/pine", f"Patient/{n}", appointmentType=concept("group"))
        for n in range(4)
    ]
    single = visit("s", "10:30", "10:45", "Practitioner/pine")
    assert clashes(group[2], *group[:2], practice=practice) == []
    (refusal,) = clashes(group[3], *group[:3], practice=practice)
    assert "All 3 places of `Practitioner/pine` are taken" in refusal.issue.diagnostics
    assert [each.kind for each in clashes(single, group[0], practice=practice)] == ["clash"]
    assert [each.kind for each in clashes(group[0], single, practice=practice)] == ["clash"]


def test_a_participant_is_there_for_its_own_period() -> None:
    first = visit("a", "10:00", "12:00", "Practitioner/pine", "Device/scanner")
    first["participant"][1]["period"] = {"start": f"{DAY}T10:00:00-06:00", "end": f"{DAY}T10:30:00-06:00"}
    second = visit("b", "11:00", "11:30", "Device/scanner")
    assert clashes(second, first) == []
    assert len(clashes(visit("b", "10:15", "10:45", "Device/scanner"), first)) == 1


def test_a_busy_slot_without_an_appointment_lets_nobody_beside_it() -> None:
    practice = practice_of(pine=[parameters(capacity=3)])
    busy = slot("s", "Schedule/pine", f"{DAY}T10:00:00-06:00", f"{DAY}T10:30:00-06:00")
    occupied = list_occupied((), (busy,), practice, NOW)
    (refusal,) = find_clashes(visit("a", "10:00", "10:30", "Practitioner/pine"), occupied, practice)
    assert refusal.others == ("Slot/s",)
    own = visit("a", "10:00", "10:30", "Practitioner/pine", slot=[{"reference": "Slot/s"}])
    assert find_clashes(own, occupied, practice) == []


def test_a_busy_slot_of_a_cancelled_appointment_is_the_word_of_the_site() -> None:
    practice = practice_of()
    busy = slot("s", "Schedule/pine", f"{DAY}T10:00:00-06:00", f"{DAY}T10:30:00-06:00")
    old = visit("o", "10:00", "10:30", "Practitioner/pine", status="cancelled", slot=[{"reference": "Slot/s"}])
    occupied = list_occupied((old,), (busy,), practice, NOW)
    assert len(find_clashes(visit("a", "10:00", "10:30", "Practitioner/pine"), occupied, practice)) == 1


def test_operations_are_held_to_the_rules_of_the_schedule() -> None:
    practice = practice_of(pine=[parameters(grid=30, minimumNotice=60, horizon=60 * 24 * 7, mostPerDay=1)])
    none = list_occupied((), (), practice, NOW)

    def kinds(start: str, end: str, now: int = NOW, *there: Resource) -> list[str]:
        occupied = list_occupied(there, (), practice, now) if there else none
        return [
            r.kind for r in find_refusals(appointment("n", start, end, "Practitioner/pine"), occupied, practice, now)
        ]

    assert kinds(f"{DAY}T10:00:00-06:00", f"{DAY}T10:30:00-06:00") == []
    assert kinds(f"{DAY}T08:30:00-06:00", f"{DAY}T09:30:00-06:00") == ["hours"]
    assert kinds(f"{DAY}T16:30:00-06:00", f"{DAY}T17:10:00-06:00") == ["hours"]
    assert kinds(f"{DAY}T10:10:00-06:00", f"{DAY}T10:30:00-06:00") == ["grid"]
    assert kinds(f"{DAY}T10:00:00-06:00", f"{DAY}T10:30:00-06:00", at(f"{DAY}T09:01:00-06:00")) == ["notice"]
    assert kinds("2026-03-09T10:00:00-05:00", "2026-03-09T10:30:00-05:00") == ["horizon"]
    other = visit("o", "15:00", "15:30", "Practitioner/pine")
    assert kinds(f"{DAY}T10:00:00-06:00", f"{DAY}T10:30:00-06:00", NOW, other) == ["capacity"]


def test_a_past_start_is_said_to_be_past() -> None:
    practice = practice_of()
    occupied = list_occupied((), (), practice, NOW)
    new = visit("n", "10:00", "10:30", "Practitioner/pine")
    late = find_refusals(new, occupied, practice, at(f"{DAY}T12:00:00-06:00"))
    assert [each.kind for each in late] == ["notice"]
    assert "is past" in late[0].issue.diagnostics


def test_an_override_needs_a_reason_and_sets_aside_its_kind_alone() -> None:
    issue = Issue("error", "conflict", "Taken.")
    refusals = [Refusal(kind, "Practitioner/pine", (), issue) for kind in ("clash", "hours", "notice", "buffer")]
    remaining, aside, issues = apply_override(refusals, ["clash"], "mother of Cy Reed asked")
    assert [each.kind for each in remaining] == ["hours", "notice"]
    assert [each.kind for each in aside] == ["clash", "buffer"]
    assert issues == []
    assert [each.code for each in apply_override(refusals, ["clash"], " ")[2]] == ["required"]
    assert "`everything` cannot be overridden" in apply_override(refusals, ["everything"], "x")[2][0].diagnostics


def test_who_set_a_rule_aside_and_why_is_noted() -> None:
    noted = note_override(visit("a", "10:00", "10:30"), ["clash"], "mother asked", "Practitioner/elm")
    note = find_extension(noted, BOOKING_OVERRIDE)
    assert note is not None
    assert note["extension"] == [
        {"url": "kind", "valueCode": "clash"},
        {"url": "reason", "valueString": "mother asked"},
        {"url": "who", "valueReference": {"reference": "Practitioner/elm"}},
    ]


def test_unknown_actors_and_senseless_times_are_issues() -> None:
    issues = check_actors(visit("a", "10:30", "10:00", "Practitioner/pine", "Practitioner/nobody"), practice_of())
    assert [each.expression for each in issues] == [("Appointment.end",), ("Appointment.participant[1].actor",)]
    assert check_actors(visit("a", "10:00", "10:30", "Patient/ada"), practice_of(), {"Patient/ada"}) == []


def test_locks_are_named_by_person_and_utc_day() -> None:
    late = appointment("a", f"{DAY}T17:30:00-06:00", f"{DAY}T18:30:00-06:00", "PractitionerRole/north", "Patient/ada")
    assert name_locks(late, practice_of()) == [
        "booking Patient/ada 2026-03-02",
        "booking Patient/ada 2026-03-03",
        "booking Practitioner/pine 2026-03-02",
        "booking Practitioner/pine 2026-03-03",
    ]
    early = visit("a", "17:00", "18:00", "Practitioner/pine")
    assert name_locks(early, practice_of()) == ["booking Practitioner/pine 2026-03-02"]
    buffered = practice_of(pine=[parameters(bufferAfter=5)])
    assert len(name_locks(early, buffered)) == 2  # type: ignore[arg-type]
    long = appointment("a", "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "Practitioner/pine")
    issue = name_locks(long, practice_of())
    assert isinstance(issue, Issue)
    assert issue.code == "too-costly"


def test_overlapping_visits_of_two_zones_share_a_lock() -> None:
    one = appointment("a", "2026-03-02T23:30:00-06:00", "2026-03-03T00:30:00-06:00", "Practitioner/pine")
    two = appointment("b", "2026-03-03T16:45:00+11:00", "2026-03-03T17:15:00+11:00", "Practitioner/pine")
    first, second = name_locks(one, practice_of()), name_locks(two, practice_of())
    assert isinstance(first, list) and isinstance(second, list)
    assert set(first) & set(second)


steps = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 12).map(lambda n: n * 5),
        st.sampled_from([10, 15, 25]),
        st.sampled_from(["booked", "booked", "pending", "cancelled"]),
        st.sampled_from(["group", "single"]),
    ),
    max_size=25,
)


@given(steps, st.integers(1, 3))
def test_no_sequence_of_writes_is_above_capacity(writes: list[tuple[int, int, int, str, str]], capacity: int) -> None:
    """Each write is stored when nothing is in the way; then no minute holds more than its visits allow."""
    practice = practice_of(pine=[parameters("group", capacity=capacity)])
    start = at(f"{DAY}T10:00:00-06:00")
    store: dict[str, Resource] = {}
    for id, offset, length, status, kind in writes:
        times = (format_instant(start + offset * MINUTE), format_instant(start + (offset + length) * MINUTE))
        hold = [{"url": HOLD_EXPIRES, "valueInstant": "2026-03-01T01:00:00Z"}]
        new = appointment(
            str(id), *times, "Practitioner/pine", status=status, appointmentType=concept(kind), extension=hold
        )
        occupied = list_occupied(store.values(), (), practice, NOW)
        if status == "cancelled" or not find_clashes(new, occupied, practice, store.get(str(id))):
            store[str(id)] = new
    for minute in range(start, start + 120 * MINUTE, MINUTE):
        there = [
            each
            for each in store.values()
            if each["status"] != "cancelled" and at(each["start"]) <= minute < at(each["end"])
        ]
        allowed = [capacity if each["appointmentType"] == concept("group") else 1 for each in there]
        assert len(there) <= min(allowed, default=0)
