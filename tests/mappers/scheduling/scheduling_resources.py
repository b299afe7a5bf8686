"""Makes the small invented resources that the scheduling tests speak about."""

from __future__ import annotations

from typing import Any

from mappers.scheduling.elements import Resource, read_instant, reference_of
from mappers.scheduling.extensions import SCHEDULING_PARAMETERS

EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WORKDAYS = EVERY_DAY[:5]


def at(text: str) -> int:
    """µs since 1970 UTC."""
    found = read_instant(text)
    assert found is not None
    return found


def minutes(value: int) -> Resource:
    return {"value": value, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}


def concept(code: str) -> Resource:
    return {"coding": [{"system": "urn:example:types", "code": code}]}


def parameters(kind: str | None = None, **parts: Any) -> Resource:
    """A scheduling-parameters extension: minutes for durations, numbers for counts."""
    rows: list[Resource] = [{"url": "appointmentType", "valueCodeableConcept": concept(kind)}] if kind else []
    for name, value in parts.items():
        element = {"capacity": "valuePositiveInt", "mostPerDay": "valuePositiveInt", "zone": "valueCode"}.get(name)
        rows.append({"url": name, element or "valueDuration": value if element else minutes(value)})
    return {"url": SCHEDULING_PARAMETERS, "extension": rows}


def schedule(id: str, *actors: str, extension: list[Resource] | None = None, **more: Any) -> Resource:
    found = {"resourceType": "Schedule", "id": id, "actor": [{"reference": actor} for actor in actors], **more}
    return {**found, "extension": extension} if extension else found


def role(id: str, practitioner: str, *hours: tuple[str, str], days: list[str] = EVERY_DAY, **more: Any) -> Resource:
    available = [{"daysOfWeek": days, "availableStartTime": start, "availableEndTime": end} for start, end in hours]
    found = {"resourceType": "PractitionerRole", "id": id, "practitioner": {"reference": practitioner}, **more}
    return {**found, "availableTime": available} if available else found


def appointment(id: str, start: str, end: str, *actors: str, status: str = "booked", **more: Any) -> Resource:
    participants = [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors]
    times = {"start": start, "end": end}
    return {"resourceType": "Appointment", "id": id, "status": status, **times, "participant": participants, **more}


def slot(id: str, owner: str, start: str, end: str, status: str = "busy", **more: Any) -> Resource:
    times = {"start": start, "end": end}
    return {"resourceType": "Slot", "id": id, "schedule": {"reference": owner}, "status": status, **times, **more}


def directory(*resources: Resource) -> dict[str, Resource]:
    return {reference_of(each): each for each in resources}
