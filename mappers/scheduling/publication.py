"""Free Slots for apps: SMART Scheduling Links (https://github.com/smart-on-fhir/smart-scheduling-links), kept Slots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Calendar
from mappers.scheduling.elements import Resource, code_of, extension_value, read_times, slot_origin, target_of
from mappers.scheduling.extensions import BOOKING_LINK, BOOKING_PHONE, PUBLISH_SLOTS, SLOT_CAPACITY, SLOT_ORIGIN
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import Interval, intersect, unite
from mappers.scheduling.occupied import Occupied, reserve

File = tuple[str, str, tuple[str, ...]]
"""(resource type, URL, states that it covers)."""


def make_manifest(request: str, now: int, files: Iterable[File]) -> Resource:
    """The answer to `$bulk-publish`; files of OperationOutcomes are its errors."""
    output: list[dict[str, Any]] = []
    error: list[dict[str, Any]] = []
    for kind, url, states in files:
        entry: dict[str, Any] = {"type": kind, "url": url}
        entry = {**entry, "extension": {"state": list(states)}} if states else entry
        (error if kind == "OperationOutcome" else output).append(entry)
    return {"transactionTime": format_instant(now), "request": request, "output": output, "error": error}


def write_ndjson(resources: Iterable[Resource]) -> bytes:
    """One resource a line."""
    lines = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in resources)
    return "".join(lines).encode()


def count_left(calendar: Calendar, time: Interval, occupied: Occupied) -> int:
    """How many more visits fit at a time."""
    low, high = reserve(time, calendar.parameters)
    near = [each for each in occupied.actors.get(calendar.actor, ()) if each.low < high and low < each.high]
    least = min((calendar.parameters.capacity, *(each.capacity for each in near)))
    changes = sorted([(each.low, 1) for each in near] + [(each.high, -1) for each in near])
    there = most = 0
    for _, change in changes:
        there += change
        most = max(most, there)
    return max(0, least - most)


def published_slot(time: FreeTime, occupied: Occupied, link: Callable[[FreeTime], str], phone: str = "") -> Resource:
    """A free time as a Slot of the publication: the link that opens this very time, and the places left now."""
    calendar, span = time.calendars[0], Interval(time.start, time.end)
    extensions: list[Resource] = [{"url": BOOKING_LINK, "valueUrl": link(time)}]
    if phone:
        extensions.append({"url": BOOKING_PHONE, "valueString": phone})
    extensions.append({"url": SLOT_CAPACITY, "valueInteger": count_left(calendar, span, occupied)})
    return {
        "resourceType": "Slot",
        "id": _slot_id(calendar.schedule, span),
        "extension": extensions,
        "schedule": {"reference": calendar.schedule},
        "status": "free",
        "start": format_instant(time.start),
        "end": format_instant(time.end),
    }


def _slot_id(schedule: str, time: Interval) -> str:
    """The same id in every publication, so that readers can compare them."""
    return sha256(f"{schedule} {time.start} {time.end}".encode()).hexdigest()[:32]


def select_side_by_side(times: Iterable[FreeTime]) -> Iterator[FreeTime]:
    """Of free times in their order, those that do not overlap one before."""
    last = None
    for time in times:
        if last is None or time.start >= last:
            last = time.end
            yield time


def asks_for_slots(schedule: Resource) -> bool:
    """Whether a Schedule wants its free times published."""
    return extension_value(schedule, PUBLISH_SLOTS) is True and schedule.get("active", True) is not False


def plan_published_slots(
    schedule: str, times: Iterable[FreeTime], slots: Iterable[Resource]
) -> tuple[list[Resource], list[Resource]]:
    """(Slots to write, Slots to delete) so that a Schedule has real free Slots, side by side, at its free times.

    `slots` are those of the Schedule in the same window. Slots that are there and still free stay, so that time going
    on does not move all of them. Only free Slots that this server published are deleted.
    """
    free = {Interval(each.start, each.end): each for each in times}
    kept: list[Interval] = []
    deletes = []
    for slot in slots:
        span = read_times(slot)
        if code_of(slot) != "free" or target_of(slot.get("schedule")) != schedule or isinstance(span, Issue):
            continue
        if span in free and not any(span.overlaps(each) for each in kept):
            kept.append(span)
        elif slot_origin(slot) == "published":
            deletes.append(slot)
    taken = unite(kept)
    rest = (time for span, time in free.items() if not intersect([span], taken))
    writes = [_make_published(schedule, Interval(each.start, each.end)) for each in select_side_by_side(rest)]
    return writes, deletes


def _make_published(schedule: str, time: Interval) -> Resource:
    return {
        "resourceType": "Slot",
        "id": _slot_id(schedule, time),
        "extension": [{"url": SLOT_ORIGIN, "valueCode": "published"}],
        "schedule": {"reference": schedule},
        "status": "free",
        "start": format_instant(time.start),
        "end": format_instant(time.end),
    }


def check_published(resource: Resource) -> list[str]:
    """What a publication asks of a Location or Schedule and is absent: names of elements."""
    needed = {"Location": ("id", "name", "telecom", "address"), "Schedule": ("id", "actor", "serviceType")}
    return [name for name in needed.get(str(resource.get("resourceType")), ()) if not resource.get(name)]
