"""PL becomes a chain of Locations, from the building down to the bed.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html#Heading60. The innermost place is what is referred to; each is
`partOf` the next: bed, room, floor, point of care, building, facility.
"""

from __future__ import annotations

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.context import Cell
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import (
    add_derived,
    build_identifier,
    derive_identifier,
    hd_to_system,
    read_identity,
)
from mappers.hl7v2.er7 import Composite

LEVELS = ((4, "si"), (7, "bu"), (1, "wa"), (8, "lvl"), (2, "ro"), (3, "bd"))
"""Components of PL from the largest place to the smallest, with the physical type of each."""


def pl_to_location(value: Composite, cell: Cell) -> Resource | None:
    """A reference to the smallest place of a PL; all its places are added."""
    parent: Change | None = None
    path: list[str] = []
    description = value.text(9)
    levels = [(number, kind) for number, kind in LEVELS if value.text(number) or value.part(number).text(2)]
    for number, kind in levels:
        part = value.part(number)
        name = part.text(1) or part.text(2)
        path.append(f"{kind}:{name}")
        identifier = derive_identifier("location", tuple(path), cell.context.partner)
        location: Resource = {"resourceType": "Location", "identifier": [identifier], "name": name, "mode": "instance"}
        if part.text(2) and part.text(3) in ("ISO", "UUID"):
            system = hd_to_system(part, cell.context.partner)
            location["identifier"].append(build_identifier(system, "urn:ietf:rfc:3986"))
        location["physicalType"] = build_concept("location-physical-type", kind)
        if number == levels[-1][0] and description:
            location["description"] = description
        if parent:
            location["partOf"] = parent.reference
        parent = cell.context.changes.add(location, read_identity(identifier))
    return parent.reference if parent else None


def dld_to_location(value: Composite, cell: Cell) -> Resource | None:
    """A reference to the place that a patient was discharged to, which is known by its name or code."""
    name = value.part(1).text(2) or value.text(1)
    if not name:
        return None
    return add_derived({"resourceType": "Location", "name": name}, "location", (f"to:{name}",), cell.context).reference
