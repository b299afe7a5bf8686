"""How much of HL7's official tables is mapped: for `convert --coverage` and the tests.

`tables/official.tsv` lists what the guide https://build.fhir.org/ig/HL7/v2-to-fhir maps for the segments read here.
"""

from __future__ import annotations

from typing import NamedTuple

from mappers.hl7v2.rows import FILES
from mappers.hl7v2.tables import read_table

SAME = {
    "Account": frozenset({"Account"}),
    "Appointment": frozenset({"Appointment", "participant", "Location"}),
    "Coverage": frozenset({"Coverage", "Payor", "Holder", "Subscriber"}),
    "Encounter": frozenset({"Encounter", "Location", "PractitionerRole", "Condition"}),
    "Observation": frozenset({"Observation", "Organization", "note"}),
    "Patient": frozenset({"Patient", "contact", "contact-organization", "RelatedPerson-Mother", "PractitionerRole"}),
    "ServiceRequest": frozenset({"ServiceRequest", "Facility", "Orderer", "Appointment", "note"}),
}
"""Our rows that fill a resource of the guide's maps, where they have other names."""


class Coverage(NamedTuple):
    """For one map of the guide: fields that it maps, those of them that a row of ours maps, and the others."""

    map: str
    official: int
    mapped: int
    missing: tuple[str, ...]


def find_coverage() -> tuple[Coverage, ...]:
    """The coverage of each map, by its name such as `PID[Patient]`."""
    ours: dict[str, set[str]] = {}
    for name in FILES:
        for resource, field, _, convert, *_ in read_table(f"{name}.tsv"):
            if convert != "ignore":
                ours.setdefault(field.partition(".")[0], set()).add(resource)
    maps: dict[str, dict[str, None]] = {}
    for title, field, _ in read_table("official.tsv"):
        maps.setdefault(title, {})[field] = None
    found = []
    for title, fields in maps.items():
        target = title.partition("[")[2].rstrip("]").partition("-")[0]
        wanted = SAME.get(target, frozenset({target}))
        missing = tuple(field for field in fields if not ours.get(field, set()) & wanted)
        found.append(Coverage(title, len(fields), len(fields) - len(missing), missing))
    return tuple(found)


def write_coverage() -> str:
    """A line for each map, and the sum."""
    rows = find_coverage()
    lines = [f"{row.map}: {row.mapped} of {row.official}" + _list_missing(row.missing) for row in rows]
    mapped, official = sum(row.mapped for row in rows), sum(row.official for row in rows)
    return "\n".join([*lines, f"all: {mapped} of {official} fields ({100 * mapped // max(official, 1)} %)"])


def _list_missing(missing: tuple[str, ...]) -> str:
    return f"; not mapped: {', '.join(missing)}" if missing else ""
