"""`near` on Location: positions within a distance on the great circle (https://hl7.org/fhir/R4/location.html#search).

`latitude|longitude|distance|units` in WGS84 degrees; kilometres when the units are left out, `DEFAULT_METRES` when the
distance is. R4 leaves the distance meant by "near" to the server. Altitude plays no part.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from fhir_server.fhir import ucum
from fhir_server.search.entries import NumberEntry
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings, reject
from fhir_server.search.query import Clause, Near
from fhir_server.search.registry import Parameter

DEFAULT_METRES = 50_000.0
FORM = (
    "a position is `latitude|longitude|distance|units`; distance (50 km when left out) and units (km) may be left out; "
    "units are UCUM codes of length such as `km`, `m`, `[mi_i]`, `[ft_i]`, `[nmi_i]`, or `mi` and `ft`."
)
_EVERYDAY_UNITS = {"mi": "[mi_i]", "ft": "[ft_i]", "kms": "km"}


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The positions at most that far away."""
    parts = [unescape(part) for part in split(text, "|")]
    if not 2 <= len(parts) <= 4:
        raise reject(parameter, text, FORM)
    latitude, longitude, distance, units = (*parts, "", "")[:4]
    north, east = _parse_number(parameter, text, latitude, 90), _parse_number(parameter, text, longitude, 180)
    if not distance:
        return Near(parameter.code, north, east, DEFAULT_METRES)
    length = ucum.parse_unit(_EVERYDAY_UNITS.get(units, units or "km"))
    if length is None or length.unit != "m":
        raise reject(parameter, text, f"`{units}` is no unit of length; {FORM}")
    far = _parse_number(parameter, text, distance, float("inf"))
    if far < 0:
        raise reject(parameter, text, FORM)
    return Near(parameter.code, north, east, length.to_base_units(far))


def _parse_number(parameter: Parameter, text: str, number: str, limit: float) -> float:
    try:
        value = float(number)
    except ValueError:
        raise reject(parameter, text, FORM) from None
    if not isfinite(value) or abs(value) > limit:
        raise reject(parameter, text, f"`{number}` is out of range; {FORM}")
    return value


def _extract_position(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    return (("", value["latitude"], value["longitude"], ""),)


NEAR = ParameterType(
    kind="numbers", extractors={"Location.position": _extract_position}, parse_clause=parse_clause, sort_kind=None
)
