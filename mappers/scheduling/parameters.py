"""The scheduling-parameters extension of Schedule and HealthcareService: by type, the most specific wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.elements import Resource, code_of, list_codings, members
from mappers.scheduling.extensions import SCHEDULING_PARAMETERS, TIME_ZONE
from mappers.scheduling.wall_clock import read_zone

# Minutes of a UCUM unit of time (https://ucum.org).
_MINUTES = {"min": 1, "h": 60, "d": 1440, "wk": 10_080}
_DEFAULT_HORIZON = 90 * 1440


@dataclass(frozen=True, slots=True)
class SchedulingParameters:
    """What holds for one appointment type in one calendar; all times in minutes."""

    duration: int = 30
    grid: int = 15
    buffer_before: int = 0
    buffer_after: int = 0
    capacity: int = 1
    minimum_notice: int = 0
    horizon: int = _DEFAULT_HORIZON
    most_per_day: int | None = None
    # The appointment types that `most_per_day` counts; empty: all.
    most_per_day_types: frozenset[str] = frozenset()
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """One extension: the appointment types it is for (none: all) and what it sets."""

    types: frozenset[str]
    values: Mapping[str, Any]


# Part of the extension: the field, its value element, and the least value.
_PARTS: Mapping[str, tuple[str, str, int]] = {
    "duration": ("duration", "valueDuration", 1),
    "grid": ("grid", "valueDuration", 1),
    "bufferBefore": ("buffer_before", "valueDuration", 0),
    "bufferAfter": ("buffer_after", "valueDuration", 0),
    "capacity": ("capacity", "valuePositiveInt", 1),
    "minimumNotice": ("minimum_notice", "valueDuration", 0),
    "horizon": ("horizon", "valueDuration", 1),
    "mostPerDay": ("most_per_day", "valuePositiveInt", 1),
    "zone": ("zone", "valueCode", 0),
}


def read_parameters(resource: Resource) -> tuple[list[ParameterRow], list[Issue]]:
    """The rows of a Schedule or HealthcareService and what is wrong with them; wrong parts are left out."""
    rows: list[ParameterRow] = []
    issues: list[Issue] = []
    for position, extension in enumerate(members(resource, "extension")):
        path = f"{resource.get('resourceType')}.extension[{position}]"
        if extension.get("url") == TIME_ZONE:
            rows.append(ParameterRow(frozenset(), _keep("zone", extension.get("valueCode"), path, issues)))
        elif extension.get("url") == SCHEDULING_PARAMETERS:
            rows.append(_read_row(extension, path, issues))
    return rows, issues


def _read_row(extension: Resource, path: str, issues: list[Issue]) -> ParameterRow:
    types: set[str] = set()
    values: dict[str, Any] = {}
    for position, part in enumerate(members(extension, "extension")):
        name, place = str(part.get("url")), f"{path}.extension[{position}]"
        if name == "appointmentType":
            types.update(list_codings(part.get("valueCodeableConcept")))
        elif name in _PARTS:
            values.update(_keep(name, part.get(_PARTS[name][1]), place, issues))
        else:
            known = ", ".join(f"`{each}`" for each in ("appointmentType", *_PARTS))
            text = f"`{name}` is no scheduling parameter; there are {known}."
            issues.append(Issue("error", "not-supported", text, (place,)))
    return ParameterRow(frozenset(types), values)


def _keep(name: str, value: Any, path: str, issues: list[Issue]) -> dict[str, Any]:
    """The field with its value, or nothing and an issue."""
    field, element, least = _PARTS[name]
    if name == "zone":
        zone = read_zone(str(value), f"{path}.{element}")
        if isinstance(zone, Issue):
            issues.append(zone)
            return {}
        return {field: value}
    number = _to_minutes(value) if element == "valueDuration" else value
    if not isinstance(number, int) or isinstance(number, bool):
        unit = (
            "a Duration in whole minutes with the UCUM code min, h, d or wk"
            if element == "valueDuration"
            else "a whole number"
        )
        issues.append(Issue("error", "value", f"`{name}` has to be {unit} (`{element}`).", (f"{path}.{element}",)))
        return {}
    if number < least:
        text = f"`{name}` is {number}; the least is {least}."
        issues.append(Issue("error", "value", text, (f"{path}.{element}",)))
        return {}
    return {field: number}


def _to_minutes(duration: Any) -> int | None:
    """Minutes of a Duration; None where they are no whole number."""
    if not isinstance(duration, dict):
        return None
    value, unit = duration.get("value"), _MINUTES.get(code_of(duration, "code") or code_of(duration, "unit"))
    if (
        unit is None
        or isinstance(value, bool)
        or not isinstance(value, int | float)
        or value * unit != int(value * unit)
    ):
        return None
    return int(value * unit)


def resolve_parameters(
    places: Iterable[Iterable[ParameterRow]], types: frozenset[str], default: SchedulingParameters
) -> SchedulingParameters:
    """What holds for these appointment types; `places` goes from the Schedule to the least specific resource.

    A row for a named type goes before a row for all, and among those the earlier place and row goes first; each
    parameter is looked up on its own.
    """
    rows = [row for place in places for row in place]
    named = [row for row in rows if row.types & types]
    values: dict[str, Any] = {}
    for row in (*named, *(row for row in rows if not row.types)):
        for field, value in row.values.items():
            if field not in values:
                values[field] = value
                if field == "most_per_day":
                    values["most_per_day_types"] = row.types
    return replace(default, **values) if values else default
