"""What calendar programs and apps read: iCalendar feeds, SMART Scheduling Links, kept free Slots, and the report."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import pytest

from mappers.scheduling.calendars import Calendar, build_calendar, read_practice
from mappers.scheduling.elements import Resource, extension_value, slot_origin
from mappers.scheduling.extensions import BOOKING_LINK, BOOKING_PHONE, SLOT_CAPACITY
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest, compute_free_times, list_chunks
from mappers.scheduling.icalendar_feed import Feed, write_feed
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.occupied import Occupied, list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.publication import (
    check_published,
    make_manifest,
    plan_published_slots,
    published_slot,
    write_ndjson,
)
from mappers.scheduling.report import (
    ReportRequest,
    list_figures,
    make_measure_report,
    third_next_available,
    write_csv,
)
from tests.mappers.scheduling.scheduling_resources import (
    WORKDAYS,
    appointment,
    at,
    concept,
    directory,
    parameters,
    role,
    schedule,
    slot,
)

PEOPLE = directory(
    {"resourceType": "Practitioner", "id": "pine", "name": [{"family": "Pine", "text": "Dr Pine"}]},
    {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill", "given": ["Ada", "May"]}]},
    {"resourceType": "Location", "id": "room", "name": "Room 1", "address": {"line": ["1 Oak St"], "city": "Anytown"}},
)
FEED = Feed("Practitioner/pine", "Dr Pine", ZoneInfo("America/Chicago"), "clinic.example")
NOW = at("2026-03-20T00:00:00Z")


def visit(id: str = "a", **more: Any) -> Resource:
    meta = {"versionId": "3", "lastUpdated": "2026-03-01T10:00:00Z"}
    reason = {"reasonCode": [{"text": "knee pain"}], "comment": "fasting", "description": "knee"}
    times = ("2026-03-09T09:00:00-05:00", "2026-03-09T09:30:00-05:00")
    actors = ("Practitioner/pine", "Patient/ada", "Location/room")
    return appointment(id, *times, *actors, **{"meta": meta, **reason, **more})


def events(*appointments: Resource, feed: Feed = FEED) -> list[Any]:
    read = icalendar.Calendar.from_ical(write_feed(feed, appointments, PEOPLE, NOW).decode())
    return list(read.walk("VEVENT"))


def test_an_event_says_who_when_and_where_and_no_more() -> None:
    text = write_feed(FEED, [visit()], PEOPLE, NOW).decode()
    (event,) = events(visit())
    assert str(event["uid"]) == "a@clinic.example"
    assert int(event["sequence"]) == 2
    assert event.decoded("dtstart").isoformat() == "2026-03-09T09:00:00-05:00"
    assert event["dtstart"].params["TZID"] == "America/Chicago"
    assert str(event["summary"]) == "A.M.Q."
    assert str(event["location"]) == "Room 1, 1 Oak St, Anytown"
    assert str(event["status"]) == "CONFIRMED"
    for secret in ("Quill", "Ada", "knee", "fasting"):
        assert secret not in text


def test_the_patient_sees_the_practitioner() -> None:
    feed = Feed("Patient/ada", "Ada", ZoneInfo("America/Chicago"), "clinic.example")
    (event,) = events(visit(), feed=feed)
    assert str(event["summary"]) == "Dr Pine"


def test_the_zone_of_the_feed_has_its_clock_changes() -> None:
    read = icalendar.Calendar.from_ical(write_feed(FEED, [visit()], PEOPLE, NOW).decode())
    (zone,) = read.walk("VTIMEZONE")
    offsets = {
        part.decoded("tzoffsetto").total_seconds() / 3600 for part in (*zone.walk("DAYLIGHT"), *zone.walk("STANDARD"))
    }
    assert offsets == {-5, -6}


@pytest.mark.parametrize(
    ("changed", "status", "shown"),
    [
        ("2026-02-19T00:00:00Z", "cancelled", ["CANCELLED"]),
        ("2026-02-17T23:59:59Z", "cancelled", []),
        ("2026-02-17T00:00:00Z", "booked", ["CONFIRMED"]),
        ("2026-03-10T00:00:00Z", "entered-in-error", ["CANCELLED"]),
        ("2026-03-10T00:00:00Z", "pending", ["TENTATIVE"]),
        ("2026-03-10T00:00:00Z", "unheard-of", []),
    ],
)
def test_cancelled_ones_stay_thirty_days(changed: str, status: str, shown: list[str]) -> None:
    found = events(visit(status=status, meta={"versionId": "2", "lastUpdated": changed}))
    assert [str(event["status"]) for event in found] == shown


def test_text_cannot_leave_its_line() -> None:
    people = {**PEOPLE, "Location/room": {"resourceType": "Location", "id": "room", "name": "A\r\nATTENDEE:x;y,z"}}
    read = icalendar.Calendar.from_ical(write_feed(FEED, [visit()], people, NOW).decode())
    (event,) = read.walk("VEVENT")
    assert "attendee" not in event


def test_a_feed_without_appointments_is_a_calendar() -> None:
    assert icalendar.Calendar.from_ical(write_feed(FEED, [], PEOPLE, NOW).decode()).walk("VEVENT") == []


# SMART Scheduling Links

DAY_START = at("2026-03-09T00:00:00-05:00")


def group_calendar(capacity: int = 3) -> tuple[Calendar, Any]:
    practice, _ = read_practice(
        [
            role("r", "Practitioner/pine", ("09:00:00", "11:00:00"), days=WORKDAYS),
            schedule("pine", "PractitionerRole/r", extension=[parameters(capacity=capacity, grid=15)]),
        ],
        SchedulingParameters(zone="America/Chicago"),
    )
    calendar, _ = build_calendar(practice.directory["Schedule/pine"], frozenset(), practice)
    assert calendar is not None
    return calendar, practice


def free(calendar: Calendar, occupied: Occupied) -> list[FreeTime]:
    request = FreeTimesRequest(Interval(DAY_START, DAY_START + DAY), DAY_START, ((calendar,),))
    return [each for chunk in list_chunks(request) for each in compute_free_times(request, chunk, occupied)]


def test_a_published_slot_has_its_link_and_what_is_left_now() -> None:
    calendar, practice = group_calendar()
    taken = [
        appointment(str(n), f"2026-03-09T{a}:00-05:00", f"2026-03-09T{b}:00-05:00", "Practitioner/pine")
        for n, (a, b) in enumerate([("09:00", "09:15"), ("09:15", "09:30"), ("09:00", "09:30")])
    ]
    occupied = list_occupied(taken, (), practice, DAY_START)
    first = free(calendar, occupied)[0]
    found = published_slot(first, occupied, lambda time: f"https://clinic.example/book?start={time.start}", "555-0100")
    assert extension_value(found, SLOT_CAPACITY) == 1  # two are there at every instant
    assert extension_value(found, BOOKING_LINK) == f"https://clinic.example/book?start={first.start}"
    assert extension_value(found, BOOKING_PHONE) == "555-0100"
    assert published_slot(first, Occupied(), lambda _: "x")["id"] == found["id"]


def test_the_manifest_says_when_it_was_made() -> None:
    manifest = make_manifest(
        "https://x.example/fhir/$bulk-publish", NOW, [("Slot", "https://x.example/s", ("MA",)), ("Location", "l", ())]
    )
    assert manifest["transactionTime"] == "2026-03-20T00:00:00.000Z"
    assert manifest["output"] == [
        {"type": "Slot", "url": "https://x.example/s", "extension": {"state": ["MA"]}},
        {"type": "Location", "url": "l"},
    ]
    assert manifest["error"] == []


def test_ndjson_has_a_resource_on_each_line() -> None:
    lines = write_ndjson([{"id": "a", "name": "Zoë\nB"}, {"id": "b"}]).decode().split("\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == ["a", "b"]
    assert lines[-1] == ""


def test_what_a_publication_lacks_is_named() -> None:
    assert check_published({"resourceType": "Location", "id": "l", "name": "North"}) == ["telecom", "address"]
    assert check_published({"resourceType": "Slot"}) == []


def test_free_slots_are_kept_side_by_side() -> None:
    calendar, _ = group_calendar(1)
    times = free(calendar, Occupied())
    assert len(times) == 7  # every quarter hour from 09:00 to 10:30
    writes, deletes = plan_published_slots(calendar.schedule, times, ())
    assert [each["start"][11:16] for each in writes] == ["14:00", "14:30", "15:00", "15:30"]
    assert {slot_origin(each) for each in writes} == {"published"}
    assert deletes == []
    stale = slot(
        "old",
        calendar.schedule,
        "2026-03-09T20:00:00Z",
        "2026-03-09T20:30:00Z",
        "free",
        extension=writes[0]["extension"],
    )
    site = slot("site", calendar.schedule, "2026-03-09T20:00:00Z", "2026-03-09T20:30:00Z", "free")
    again, gone = plan_published_slots(calendar.schedule, times, [*writes, stale, site])
    assert (again, gone) == ([], [stale])


# The report


def report() -> list[Any]:
    """Pine is open two hours on Monday; computed by hand below."""
    calendar, practice = group_calendar(1)
    rows = [
        ("fulfilled", "09:00", "09:30"),
        ("booked", "09:30", "10:00"),
        ("noshow", "10:00", "10:15"),
        ("cancelled", "10:30", "11:00"),
    ]
    visits = tuple(
        appointment(
            status,
            f"2026-03-09T{start}:00-05:00",
            f"2026-03-09T{end}:00-05:00",
            "Practitioner/pine",
            status=status,
            created="2026-03-07T09:00:00-05:00",
            appointmentType=concept("check"),
        )
        for status, start, end in rows
    )
    occupied = list_occupied(visits, (), practice, DAY_START)
    request = ReportRequest(Interval(DAY_START, DAY_START + DAY), DAY_START, (calendar,), visits, occupied, practice)
    return list_figures(request)


def test_figures_are_those_computed_by_hand() -> None:
    found = {(each.name, each.by, each.key): each.value for each in report()}
    assert found["utilisation", "schedule", "Schedule/pine"] == 0.25  # 30 of 120 minutes
    assert found["fill-rate", "schedule", "Schedule/pine"] == 0.5  # 60 of 120 minutes
    # 48, 48.5, 49 and 49.5 hours
    assert found["lead-time-days-median", "all", "all"] == round(48.75 / 24, 4)
    assert found["cancellation-rate", "provider", "Practitioner/pine"] == 0.25
    assert found["no-show-rate", "weekday", "1 mon"] == 0.25
    assert found["no-show-rate", "hour", "10"] == 0.5
    assert found["no-show-rate", "hour", "09"] == 0
    assert found["cancellation-rate", "type", "urn:example:types|check"] == 0.25


def test_the_third_next_available_time() -> None:
    calendar, _ = group_calendar(1)
    figure = third_next_available(calendar.schedule, free(calendar, Occupied()), DAY_START)
    assert figure is not None
    assert figure.value == round((9.5 * 60 * MINUTE) / DAY, 4)
    assert third_next_available(calendar.schedule, [], DAY_START) is None


def test_csv_and_measure_report_hold_the_same_figures() -> None:
    figures = report()
    rows = list(csv.DictReader(io.StringIO(write_csv(figures))))
    assert [float(row["value"]) for row in rows] == [each.value for each in figures]
    measure = make_measure_report(figures, Interval(DAY_START, DAY_START + DAY), NOW)
    assert len(measure["group"]) == len(figures)
    first = measure["group"][0]
    assert first["population"][1] == {"code": {"text": "denominator"}, "count": 120}
    assert first["stratifier"][0]["stratum"][0]["measureScore"] == {"value": 0.25}


def test_a_formula_in_a_key_is_text() -> None:
    figure = report()[0]._replace(key="=1+1")
    assert "'=1+1" in write_csv([figure])
