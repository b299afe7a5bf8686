"""CQ and CWE become Duration and the unit of a Quantity, as prescriptions tell them.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html
"""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell
from mappers.hl7v2.datatypes.quantities import read_number, read_unit, read_units
from mappers.hl7v2.er7 import Composite


def cwe_to_unit(value: Composite, cell: Cell) -> Resource | None:
    """What a field of its own says of the unit of a Quantity."""
    return read_units(value, cell) or None


def cq_to_duration(value: Composite, cell: Cell) -> Resource | None:
    """A Duration from a CQ; a unit that is none of time is told (drt-1)."""
    number, names = read_number(value.text(1)), value.part(2)
    unit = read_unit(names.text(1), names.text(2))
    if number is None or not unit:
        if value:
            text = f"`{value.text(1)[:20]} {names.text(1)[:20]}` is no duration; it is left out."
            cell.warn("102", text)
        return None
    name = names.text(2) or unit
    return {"value": number, "unit": name, "system": "http://unitsofmeasure.org", "code": unit}
