"""What scheduling reads from resources as JSON trees: references, codings, extensions, instants and periods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Any

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.extensions import HOLD_EXPIRES, SLOT_ORIGIN
from mappers.scheduling.intervals import Interval

Resource = dict[str, Any]
# Resources by their reference, such as `Practitioner/pine`.
Directory = Mapping[str, Resource]

# An open end of a Period: earlier and later than every instant that FHIR can write.
BEFORE_ALL, AFTER_ALL = -(2**62), 2**62

_has_offset = re.compile(r".*T.*(Z|[+-]\d\d:\d\d)$").fullmatch

# The elements that say what a visit is about.
_TYPED = frozenset(("serviceType", "type", "appointmentType"))


def members(parent: Any, name: str) -> list[Resource]:
    """The items of a repeating element that are JSON objects; empty for an absent one and for what is no list."""
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, list):
        return []
    return [each for each in value if isinstance(each, dict)]


def texts(parent: Any, name: str) -> list[str]:
    """The strings of a repeating element of a simple type."""
    value = parent.get(name) if isinstance(parent, dict) else None
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def code_of(parent: Any, name: str = "status") -> str:
    """The code in an element; empty for an absent one and for what is no string."""
    value = parent.get(name) if isinstance(parent, dict) else None
    return value if isinstance(value, str) else ""


def reference_of(resource: Resource) -> str:
    """`Slot/7` for that Slot."""
    return f"{resource.get('resourceType')}/{resource.get('id')}"


def target_of(element: Any) -> str:
    """`Practitioner/pine` for a Reference element to it, absolute or with a version; empty without a reference."""
    text = element.get("reference") if isinstance(element, dict) else None
    if not isinstance(text, str):
        return ""
    if text.count("/") == 1:  # most of them
        return text
    parts = text.partition("/_history/")[0].rsplit("/", 2)
    return "/".join(parts[-2:])


def find_extension(element: Any, url: str) -> Resource | None:
    """The first extension with this URL."""
    for extension in members(element, "extension"):
        if extension.get("url") == url:
            return extension
    return None


def extension_value(element: Any, url: str) -> Any:
    """The value[x] of the first extension with this URL, or None."""
    for name, value in (find_extension(element, url) or {}).items():
        if name.startswith("value"):
            return value
    return None


def list_codings(concept: Any) -> Iterator[str]:
    """`system|code` of each coding of a CodeableConcept."""
    for coding in members(concept, "coding"):
        if coding.get("code"):
            yield f"{coding.get('system', '')}|{coding['code']}"


def list_types(resource: Resource) -> frozenset[str]:
    """The codings of service type and appointment type of an Appointment, Slot, Schedule or HealthcareService."""
    if resource.keys().isdisjoint(_TYPED):  # most Appointments of other systems
        return frozenset()
    concepts = [*members(resource, "serviceType"), *members(resource, "type"), resource.get("appointmentType")]
    return frozenset(coding for concept in concepts for coding in list_codings(concept))


def read_instant(text: Any, zone: tzinfo = UTC) -> int | None:
    """µs since 1970 UTC; None for what is no date. A value without an offset is taken in `zone`."""
    return _parse_start(text, zone) if isinstance(text, str) else None


def _read_moment(text: Any) -> int | None:
    """µs of an instant with its offset; None for a day or a time of no known zone."""
    return read_instant(text) if isinstance(text, str) and _has_offset(text) else None


# visits start and end at the same few times: a day of a practice is read again and again
@lru_cache(4096)
def _parse_start(text: str, zone: tzinfo) -> int | None:
    try:
        return parse_interval(text, zone)[0]
    except ValueError:
        return None


def read_period(period: Any, zone: tzinfo = UTC) -> Interval | None:
    """A Period whose partial dates cover their local span; an open end is far away; None for what is no Period."""
    try:
        start = parse_interval(period["start"], zone)[0] if "start" in period else BEFORE_ALL
        end = period.get("end")
        # an end with a time is that instant, an end that is a day includes the day
        last = (
            AFTER_ALL
            if end is None
            else parse_interval(end, zone)[0]
            if "T" in end
            else parse_interval(end, zone)[1] + 1
        )
    except (ValueError, TypeError, AttributeError):
        return None
    return Interval(start, last)


def read_times(resource: Resource) -> Interval | Issue:
    """Start and end of an Appointment or Slot, or what is wrong with them."""
    span = read_span(resource)
    if span is not None:
        return span
    kind = resource.get("resourceType", "Appointment")
    start, end = _read_moment(resource.get("start")), _read_moment(resource.get("end"))
    if start is None or end is None:
        name = "start" if start is None else "end"
        missing = name not in resource
        what = (
            f"`{kind}.{name}` is missing" if missing else f"`{kind}.{name}` is `{resource[name]}`, which is no instant"
        )
        text = f"{what}: write a day that exists, time and offset, `2026-03-02T09:00:00-06:00`."
        return Issue("error", "required" if missing else "value", text, (f"{kind}.{name}",))
    if end <= start:
        text = f"The end `{resource['end']}` is not after the start `{resource['start']}`."
        return Issue("error", "value", text, (f"{kind}.end",))
    return Interval(start, end)


def read_span(resource: Resource) -> Interval | None:
    """As `read_times`, None where something is wrong with them."""
    start, end = resource.get("start"), resource.get("end")
    return _parse_span(start, end) if isinstance(start, str) and isinstance(end, str) else None


@lru_cache(4096)
def _parse_span(start: str, end: str) -> Interval | None:
    low, high = _read_moment(start), _read_moment(end)
    return None if low is None or high is None or high <= low else Interval(low, high)


def hold_expired(resource: Resource, now: int) -> bool:
    """Whether this is a hold whose time is over at `now`."""
    expires = read_instant(extension_value(resource, HOLD_EXPIRES))
    return expires is not None and expires <= now


def slot_origin(slot: Resource) -> str:
    """`booking`, `published` or empty for a Slot of the site."""
    return str(extension_value(slot, SLOT_ORIGIN) or "")


def person_of(reference: str, directory: Directory) -> str:
    """The practitioner of a PractitionerRole; every other actor is itself."""
    if reference.startswith("PractitionerRole/"):
        return target_of(directory.get(reference, {}).get("practitioner")) or reference
    return reference
