"""The locks of a booking: one for each actor and day, so that overlapping bookings of an actor meet in a lock."""

from __future__ import annotations

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice
from mappers.scheduling.elements import Resource, read_times
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.occupied import list_takings, reserve
from mappers.scheduling.wall_clock import write_day

_LONGEST = 366 * DAY


def name_locks(appointment: Resource, practice: Practice) -> list[str] | Issue:
    """`booking Practitioner/pine 2026-03-02` for each actor and UTC day, sorted; an issue for times without sense.

    Two visits that overlap with their buffers share an instant, so they share its UTC day, whatever their zones are.
    Where `most_per_day` counts the visits of a local day, every UTC day that it can touch is locked.
    """
    times = read_times(appointment)
    if isinstance(times, Issue):
        return times
    if issue := check_length(times):
        return issue
    names: set[str] = set()
    for taking in list_takings(appointment, practice):
        low, high = reserve(taking.time, taking.parameters)
        if taking.parameters.most_per_day is not None:
            low, high = min(low, taking.time.start - DAY), max(high, taking.time.start + DAY)
        names.update(lock_names(taking.actor, Interval(low, high)))
    return sorted(names)


def check_length(time: Interval) -> Issue | None:
    """An issue for a visit so long that its days would cost too much."""
    if time.end - time.start <= _LONGEST:
        return None
    return Issue(
        "error", "too-costly", "The Appointment is longer than 366 days; book it in parts.", ("Appointment.end",)
    )


def lock_names(actor: str, time: Interval) -> list[str]:
    """The locks of one actor for a time, such as that of a Slot."""
    return [f"booking {actor} {write_day(day)}" for day in range(time.start // DAY, (time.end - 1) // DAY + 1)]
