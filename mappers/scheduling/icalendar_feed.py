"""Appointments of a practitioner, room or patient as an iCalendar feed (https://www.rfc-editor.org/rfc/rfc5545)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from zoneinfo import ZoneInfo

from icalendar import Calendar, Event, Timezone

from mappers.scheduling.elements import (
    Directory,
    Resource,
    code_of,
    hold_expired,
    members,
    read_instant,
    target_of,
    texts,
)
from mappers.scheduling.intervals import DAY
from mappers.scheduling.wall_clock import to_local

_STATUS = {
    "proposed": "TENTATIVE",
    "pending": "TENTATIVE",
    "waitlist": "TENTATIVE",
    "booked": "CONFIRMED",
    "arrived": "CONFIRMED",
    "checked-in": "CONFIRMED",
    "fulfilled": "CONFIRMED",
    "noshow": "CANCELLED",
    "cancelled": "CANCELLED",
    "entered-in-error": "CANCELLED",
}
_CANCELLED_STAY = 30 * DAY


@dataclass(frozen=True, slots=True)
class Feed:
    """Whose calendar it is (a reference), its name in calendar programs, its zone, and the host of its UIDs."""

    owner: str
    name: str
    zone: ZoneInfo
    host: str


def write_feed(feed: Feed, appointments: Iterable[Resource], directory: Directory, now: int) -> bytes:
    """The feed's text. Cancelled Appointments stay 30 days, so that calendar programs learn of it.

    It says who, when and where: no reason, no comment, and of a patient the initials, for its URL may be passed on.
    """
    calendar = Calendar()
    calendar.add("prodid", "-//fhir-server//scheduling//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("x-wr-calname", feed.name)
    years: set[int] = set()
    events: list[Event] = []
    for appointment in appointments:
        if event := appointment_to_event(appointment, feed, directory, now):
            events.append(event)
            years.update(to_local(at(appointment), feed.zone).year for at in (_start, _end))
    if years:
        calendar.add_component(_zone_component(feed.zone.key, min(years), max(years)))
    for event in events:
        calendar.add_component(event)
    return bytes(calendar.to_ical())


def _start(appointment: Resource) -> int:
    return read_instant(appointment.get("start")) or 0


def _end(appointment: Resource) -> int:
    return read_instant(appointment.get("end")) or 0


@lru_cache(maxsize=64)
def _zone_component(zone: str, first: int, last: int) -> Timezone:
    """The VTIMEZONE with the clock changes of these years."""
    moment = to_local(0, ZoneInfo(zone)).date()
    return Timezone.from_tzid(
        zone, first_date=moment.replace(first - 1, 1, 1), last_date=moment.replace(last + 2, 1, 1)
    )


def appointment_to_event(appointment: Resource, feed: Feed, directory: Directory, now: int) -> Event | None:
    """A VEVENT, or None for an Appointment without times or one that was cancelled too long ago."""
    start, end = read_instant(appointment.get("start")), read_instant(appointment.get("end"))
    over = code_of(appointment) == "pending" and hold_expired(appointment, now)
    status = "CANCELLED" if over else _STATUS.get(code_of(appointment))
    changed = read_instant(appointment.get("meta", {}).get("lastUpdated")) or now
    if start is None or end is None or status is None:
        return None
    if status == "CANCELLED" and now - changed > _CANCELLED_STAY:
        return None
    event = Event()
    event.add("uid", f"{appointment.get('id')}@{feed.host}")
    version = str(appointment.get("meta", {}).get("versionId", "1"))
    # the version rises with every change, so also with those of time, place and status
    event.add("sequence", int(version) - 1 if version.isdecimal() else 0)
    event.add("dtstamp", to_local(changed, ZoneInfo("UTC")))
    event.add("dtstart", to_local(start, feed.zone))
    event.add("dtend", to_local(end, feed.zone))
    event.add("status", status)
    event.add("summary", _summary(appointment, feed, directory))
    place = _place(appointment, directory)
    if place:
        event.add("location", place)
    event.add("transp", "TRANSPARENT" if status == "CANCELLED" else "OPAQUE")
    event.add("class", "PRIVATE")
    return event


def _summary(appointment: Resource, feed: Feed, directory: Directory) -> str:
    """`Pine, A.Q.`: the others who take part, patients by their initials."""
    actors = [target_of(person.get("actor")) for person in members(appointment, "participant")]
    names = [
        name_actor(actor, directory) for actor in actors if actor != feed.owner and not actor.startswith("Location/")
    ]
    return ", ".join(name for name in names if name) or "Appointment"


def name_actor(actor: str, directory: Directory) -> str:
    """The name of a person, place or thing in a feed; of a patient the initials."""
    resource = directory.get(actor, {})
    if actor.startswith("PractitionerRole/"):
        return name_actor(target_of(resource.get("practitioner")), directory)
    human: Resource = next(iter(members(resource, "name")), {})
    if actor.startswith("Patient/"):
        parts = [*texts(human, "given"), human.get("family") or ""]
        return "".join(f"{part[0].upper()}." for part in parts if part)
    if actor.startswith("Practitioner/"):
        return str(human.get("text") or human.get("family") or "")
    return str(resource.get("name") or "") if isinstance(resource.get("name"), str) else ""


def _place(appointment: Resource, directory: Directory) -> str:
    for person in members(appointment, "participant"):
        actor = target_of(person.get("actor"))
        if actor.startswith("Location/"):
            resource = directory.get(actor, {})
            address = resource.get("address", {})
            parts = [resource.get("name"), *texts(address, "line"), address.get("city")]
            return ", ".join(str(part) for part in parts if part)
    return ""
