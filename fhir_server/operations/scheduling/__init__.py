"""The operations of scheduling: one file each, one row each in this table (docs/scheduling.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import ANY, Handler, Level, Operation
from fhir_server.operations.scheduling import (
    book,
    bulk_publish,
    calendar,
    calendar_link,
    cancel,
    check_in,
    find,
    hold,
    no_show,
    open_time,
    reschedule,
    schedule_report,
)
from fhir_server.requests.request import FHIR_JSON

_ON_TYPE: dict[str, tuple[Level, ...]] = {"Appointment": ("type",)}
_ON_CALENDARS: dict[str, tuple[Level, ...]] = dict.fromkeys(
    ("Practitioner", "Location", "Patient", "Schedule"), ("instance",)
)
_ON_ONE: dict[str, tuple[Level, ...]] = {"Appointment": ("type", "instance")}


def _change(code: str, documentation: str, handler: Handler) -> Operation:
    url, needs = operation_url(f"appointment-{code}"), {"Appointment": "ru"}
    return Operation(code, ("POST",), url, documentation, handler, at=_ON_ONE, needs=needs)


def _take(code: str, documentation: str, handler: Handler, letters: str, *methods: str) -> Operation:
    url, needs = operation_url(f"appointment-{code}"), {"Appointment": letters}
    return Operation(code, (*methods, "POST"), url, documentation, handler, at=_ON_TYPE, needs=needs)


SCHEDULING: tuple[Operation, ...] = (
    _take("find", "Free times as proposed Appointments, earliest first.", find.find, "s", "GET"),
    _take("hold", "A time is kept for some minutes.", hold.hold, "cu"),
    _take("book", "A held, proposed or new time is booked.", book.book, "cu"),
    _change("reschedule", "Another time, provider or room for an Appointment or its series.", reschedule.reschedule),
    _change("cancel", "An Appointment or its series is cancelled and its Slots are freed.", cancel.cancel),
    _change("check-in", "The patient is here.", check_in.check_in),
    _change("no-show", "The patient did not come.", no_show.no_show),
    Operation(
        "calendar-link",
        ("GET", "POST", "DELETE"),
        operation_url("calendar-link"),
        "The secret URL of a calendar feed is made, listed or revoked.",
        calendar_link.calendar_link,
        at=_ON_CALENDARS,
        needs={"Appointment": "s", "*": "r"},
    ),
    Operation(
        "calendar",
        ("GET",),
        operation_url("calendar"),
        "The Appointments of a person, room or Schedule as an iCalendar feed.",
        calendar.calendar,
        at=_ON_CALENDARS,
        gives=(calendar.CALENDAR,),
        keyed=True,
        needs={},
    ),
    Operation(
        "schedule-report",
        ("GET", "POST"),
        operation_url("schedule-report"),
        "Utilisation, fill rate, third next available time, lead time, cancellations and no-shows.",
        schedule_report.schedule_report,
        at={"Schedule": ("type", "instance")},
        gives=(FHIR_JSON, schedule_report.CSV),
        needs={"Appointment": "s", "Schedule": "s"},
    ),
    Operation(
        "bulk-publish",
        ("GET",),
        operation_url("bulk-publish"),
        "The free times of Schedules that ask for it, for apps (SMART Scheduling Links).",
        bulk_publish.bulk_publish,
        at={ANY: ("system",)},
        gives=bulk_publish.GIVES,
        needs={"Slot": "s"},
    ),
    Operation(
        "open-time",
        ("GET",),
        operation_url("open-time"),
        "A published time as a proposed Appointment, or the next free ones.",
        open_time.open_time,
        at={"Schedule": ("instance",)},
        needs={"Appointment": "s"},
    ),
)
