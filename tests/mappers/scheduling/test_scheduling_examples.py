"""The official R4 examples of Appointment, Slot and Schedule, read as a site's resources (hl7.org/fhir/R4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fhir_server.fhir.datetimes import format_instant
from mappers.scheduling.calendars import build_calendar, read_practice
from mappers.scheduling.clashes import check_actors, find_clashes
from mappers.scheduling.elements import Resource
from mappers.scheduling.free_times import FreeTimesRequest, compute_free_times, list_chunks
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.locks import name_locks
from mappers.scheduling.occupied import list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.slots import SlotContext, derive_slots
from tests.mappers.scheduling.scheduling_resources import at, schedule

SETTING = SchedulingParameters(duration=15, zone="Etc/UTC")


@pytest.fixture(scope="module")
def example(shared: Path) -> dict[str, Resource]:
    names = ("Slot-1", "Slot-2", "Slot-3", "Slot-example", "Schedule-exampleloc2", "Appointment-example")
    every = {name: shared / "data" / "r4-examples" / f"{name}.json" for name in (*names, "Appointment-examplereq")}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in every.items()}


def test_the_free_slot_is_offered_and_the_busy_ones_are_not(example: dict[str, Resource]) -> None:
    """09:00 busy, 09:15 free, 09:30 busy-unavailable, 09:45 busy-tentative; nobody says any hours."""
    practice, issues = read_practice([schedule("example", "Practitioner/example")], SETTING)
    calendar, more = build_calendar(practice.directory["Schedule/example"], frozenset(), practice)
    assert calendar is not None and issues + more == []
    now = at("2013-12-25T00:00:00Z")
    slots = [resource for name, resource in example.items() if name.startswith("Slot")]
    request = FreeTimesRequest(Interval(now, now + DAY), now, ((calendar,),))
    occupied = list_occupied((), slots, practice, now)
    found = [each for chunk in list_chunks(request) for each in compute_free_times(request, chunk, occupied)]
    assert [format_instant(each.start) for each in found] == ["2013-12-25T09:15:00.000Z"]


def test_the_booked_appointment_takes_its_patient_and_practitioner(example: dict[str, Resource]) -> None:
    practice, _ = read_practice([example["Schedule-exampleloc2"]], SETTING)
    booked, now = example["Appointment-example"], at("2013-12-01T00:00:00Z")
    occupied = list_occupied([booked], (), practice, now)
    assert set(occupied.actors) == {"Patient/example", "Practitioner/example"}
    assert len(find_clashes({**booked, "id": "other"}, occupied, practice)) == 2
    assert name_locks(booked, practice) == [
        "booking Patient/example 2013-12-10",
        "booking Practitioner/example 2013-12-10",
    ]
    unknown = {issue.expression[0] for issue in check_actors(booked, practice)}
    assert unknown == {f"Appointment.participant[{n}].actor" for n in range(3)}


def test_a_proposed_one_takes_no_time_and_frees_no_slot_that_it_only_names(example: dict[str, Resource]) -> None:
    practice, _ = read_practice([example["Schedule-exampleloc2"]], SETTING)
    proposed, now = example["Appointment-examplereq"], at("2013-12-01T00:00:00Z")
    assert list_occupied([proposed], (), practice, now).actors == {}
    busy = {**example["Slot-example"], "status": "busy"}
    changes = derive_slots(proposed, practice, SlotContext((busy,), frozenset(), lambda: "n", now))
    assert (changes.writes, changes.deletes, changes.appointment) == ((), (), proposed)


def test_the_planning_horizon_of_the_schedule_holds(example: dict[str, Resource]) -> None:
    practice, _ = read_practice([example["Schedule-exampleloc2"]], SETTING)
    calendar, _ = build_calendar(example["Schedule-exampleloc2"], frozenset(), practice)
    assert calendar is not None
    assert calendar.actor == "Practitioner/1"
    assert calendar.horizon == Interval(at("2017-12-25T09:15:00Z"), at("2017-12-25T09:30:00Z"))
