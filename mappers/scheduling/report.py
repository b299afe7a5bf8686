"""Figures about schedules: utilisation, fill rate, third next available time, lead time, cancellations and no-shows."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.urls import BASE
from mappers.scheduling.calendars import Calendar, Practice, list_open_of
from mappers.scheduling.elements import Resource, code_of, hold_expired, list_types, read_instant, reference_of
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.hours import WEEKDAYS
from mappers.scheduling.intervals import DAY, MINUTE, Interval, subtract, unite
from mappers.scheduling.occupied import Occupied, Taking, list_takings
from mappers.scheduling.wall_clock import to_local

_ATTENDED = frozenset(("arrived", "checked-in", "fulfilled"))
_BOOKED = _ATTENDED | {"pending", "booked"}
# A time that was booked once, whatever became of it.
_ONCE_BOOKED = _ATTENDED | {"booked", "cancelled", "noshow"}


class Figure(NamedTuple):
    """One figure: what it is, by what (`provider`, `weekday`, `hour`, `type`) and of which; a ratio.

    Without a denominator the numerator is the value itself (days); a denominator of 0 has no value.
    """

    name: str
    by: str
    key: str
    numerator: float
    denominator: float | None = None

    @property
    def value(self) -> float | None:
        """The ratio, rounded to four places."""
        if self.denominator is None:
            return round(self.numerator, 4)
        return round(self.numerator / self.denominator, 4) if self.denominator else None


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The window, the calendars and what is in the store for it; `now` is where the search for free times starts."""

    window: Interval
    now: int
    calendars: tuple[Calendar, ...]
    appointments: tuple[Resource, ...]
    occupied: Occupied
    practice: Practice


def list_figures(request: ReportRequest) -> list[Figure]:
    """All figures but the third next available time, in a fixed order.

    Visits belong to the window in which they start. Weekday and hour are those of the calendar's wall clock.
    """
    visits = _list_visits(request)
    figures: list[Figure] = []
    for calendar in sorted(request.calendars, key=lambda each: each.schedule):
        figures += _list_use(calendar, request, [visit for visit in visits if visit[2] is calendar])
    leads = [lead for appointment, taking, _ in visits if (lead := _lead_days(appointment, taking)) is not None]
    if leads:
        figures.append(Figure("lead-time-days-median", "all", "all", median(leads)))
    for name, status in (("cancellation-rate", "cancelled"), ("no-show-rate", "noshow")):
        figures += _list_rates(name, status, visits)
    return figures


_Visit = tuple[Resource, Taking, Calendar]


def _list_visits(request: ReportRequest) -> list[_Visit]:
    """Each visit once for each of the calendars that it is in. A hold that nobody took is no visit."""
    calendars = {calendar.schedule: calendar for calendar in request.calendars}
    return [
        (appointment, taking, calendars[reference_of(taking.schedule)])
        for appointment in request.appointments
        if not _was_given_up(appointment, request.now)
        for taking in list_takings(appointment, request.practice)
        if taking.schedule is not None
        and reference_of(taking.schedule) in calendars
        and request.window.start <= taking.time.start < request.window.end
    ]


def _was_given_up(appointment: Resource, now: int) -> bool:
    """Whether it is a hold that has expired, tidied or not."""
    return code_of(appointment) in ("pending", "cancelled") and hold_expired(appointment, now)


def _list_use(calendar: Calendar, request: ReportRequest, visits: Sequence[_Visit]) -> list[Figure]:
    """Utilisation (attended minutes) and fill rate (booked minutes), each of the open minutes times the capacity."""
    opened = list_open_of(calendar, request.window, request.occupied.opened.get(calendar.schedule, ()))
    opened = subtract(opened, unite(request.occupied.closed.get(calendar.schedule, ())))
    places = sum(end - start for start, end in opened) / MINUTE * calendar.parameters.capacity
    minutes = {
        name: sum((t.time.end - t.time.start) / MINUTE for each, t, _ in visits if code_of(each) in statuses)
        for name, statuses in (("utilisation", _ATTENDED), ("fill-rate", _BOOKED))
    }
    return [Figure(name, "schedule", calendar.schedule, value, places) for name, value in minutes.items()]


def _lead_days(appointment: Resource, taking: Taking) -> float | None:
    """Days from making the Appointment to its start."""
    created = read_instant(appointment.get("created"))
    if created is None or code_of(appointment) not in _ONCE_BOOKED or created > taking.time.start:
        return None
    return (taking.time.start - created) / DAY


def _list_rates(name: str, status: str, visits: Iterable[_Visit]) -> list[Figure]:
    """Visits with a status among all that were booked once, by provider, weekday, hour and type."""
    counts: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for appointment, taking, calendar in visits:
        if code_of(appointment) not in _ONCE_BOOKED:
            continue
        wall = to_local(taking.time.start, calendar.zone)
        keys = [
            (0, "provider", taking.actor),
            (1, "weekday", f"{wall.weekday() + 1} {WEEKDAYS[wall.weekday()]}"),
            (2, "hour", f"{wall.hour:02}"),
            *((3, "type", each) for each in list_types(appointment) or ("none",)),
        ]
        for key in keys:
            counts[key][0] += code_of(appointment) == status
            counts[key][1] += 1
    return [Figure(name, by, key, *count) for (_, by, key), count in sorted(counts.items())]


def third_next_available(schedule: str, times: Iterable[FreeTime], now: int) -> Figure | None:
    """Days from now to the third free time, as the first may be luck; None with fewer than three."""
    third = next(islice(times, 2, None), None)
    return Figure("third-next-available-days", "schedule", schedule, (third.start - now) / DAY) if third else None


def write_csv(figures: Iterable[Figure]) -> str:
    """A header and one line a figure; what a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("figure", "by", "key", "numerator", "denominator", "value"))
    for each in figures:
        key = f"'{each.key}" if each.key[:1] in ("=", "+", "-", "@") else each.key
        row = (each.name, each.by, key, f"{each.numerator:g}", each.denominator, each.value)
        writer.writerow("" if cell is None else f"{cell:g}" if isinstance(cell, float) else cell for cell in row)
    return text.getvalue()


def make_measure_report(figures: Iterable[Figure], window: Interval, now: int) -> Resource:
    """The figures as a MeasureReport (https://hl7.org/fhir/R4/measurereport.html), a group for each."""
    groups: list[Resource] = []
    for each in figures:
        group: Resource = {"code": {"text": each.name}}
        if each.denominator is not None:
            parts = (("numerator", each.numerator), ("denominator", each.denominator))
            group["population"] = [{"code": {"text": name}, "count": round(count)} for name, count in parts]
        stratum: Resource = {"value": {"text": each.key}}
        if each.value is not None:
            stratum["measureScore"] = {"value": each.value}
        groups.append({**group, "stratifier": [{"code": [{"text": each.by}], "stratum": [stratum]}]})
    return {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": f"{BASE}/Measure/schedule-report",
        "date": format_instant(now),
        "period": {"start": format_instant(window.start), "end": format_instant(window.end)},
        "group": groups,
    }
