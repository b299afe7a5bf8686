"""Free Slots for apps: SMART Scheduling Links (https://github.com/smart-on-fhir/smart-scheduling-links), kept Slots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from fhir_server.fhir.datetimes import format_instant
from mappers.scheduling.calendars import Calendar
from mappers.scheduling.elements import Resource, code_of, read_times, reference_of, slot_origin, target_of
from mappers.scheduling.extensions import BOOKING_LINK, BOOKING_PHONE, SLOT_CAPACITY, SLOT_ORIGIN
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import Interval
from mappers.scheduling.occupied import Occupied, reserve


def make_manifest(request: str, now: int, files: Iterable[tuple[str, str, tuple[str, ...]]]) -> Resource:
    """The answer to `$bulk-publish`: `files` are (resource type, URL, states that it covers)."""
    output: list[dict[str, Any]] = []
    for kind, url, states in files:
        entry: dict[str, Any] = {"type": kind, "url": url}
        output.append({**entry, "extension": {"state": list(states)}} if states else entry)
    return {"transactionTime": format_instant(now), "request": request, "output": output, "error": []}


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


def plan_published_slots(
    calendar: Calendar, times: Iterable[FreeTime], slots: Iterable[Resource]
) -> tuple[list[Resource], list[str]]:
    """(Slots to write, references to delete) so that a Schedule has real free Slots, side by side, at its free times.

    `slots` are those of the Schedule in the same window. Only free Slots that this server published are deleted.
    """
    wanted: dict[Interval, Resource] = {}
    last = None
    for time in times:
        if last is not None and time.start < last:
            continue
        last, span = time.end, Interval(time.start, time.end)
        wanted[span] = {
            "resourceType": "Slot",
            "id": _slot_id(calendar.schedule, span),
            "extension": [{"url": SLOT_ORIGIN, "valueCode": "published"}],
            "schedule": {"reference": calendar.schedule},
            "status": "free",
            "start": format_instant(time.start),
            "end": format_instant(time.end),
        }
    deletes = []
    for slot in slots:
        span_or_issue = read_times(slot)
        if code_of(slot) != "free" or target_of(slot.get("schedule")) != calendar.schedule:
            continue
        if isinstance(span_or_issue, Interval) and wanted.pop(span_or_issue, {}):
            continue
        if slot_origin(slot) == "published":
            deletes.append(reference_of(slot))
    return list(wanted.values()), deletes


def check_published(resource: Resource) -> list[str]:
    """What a publication asks of a Location or Schedule and is absent: names of elements."""
    needed = {"Location": ("id", "name", "telecom", "address"), "Schedule": ("id", "actor", "serviceType")}
    return [name for name in needed.get(str(resource.get("resourceType")), ()) if not resource.get(name)]
