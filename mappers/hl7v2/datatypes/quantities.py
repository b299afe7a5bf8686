"""NM, SN, CQ, CP, MO, NR, NA and TQ's durations become Quantity, Range, Ratio, Money, SampledData and minutes.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html. Numbers are Decimals; their digits stay as they were sent.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.vocabulary import find_system

NUMBER = re.compile(r"[+-]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})", re.ASCII)
COMPARATORS = frozenset({"<", "<=", ">=", ">"})
MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}
LENGTH = re.compile(r"([SMHDWL])(\d{1,6})", re.ASCII)

NAMES = {
    name: unit
    for unit, names in {
        "s": "s sec second seconds",
        "min": "m min minute minutes",
        "h": "h hr hour hours",
        "d": "d day days",
        "wk": "w wk week weeks",
        "mo": "l mo month months",
        "a": "a y yr year years ann",
    }.items()
    for name in names.split()
}
"""Names of units of time as senders write them, with the code of UCUM."""


def read_number(text: str) -> Decimal | int | None:
    """The number of a text, None where it is none."""
    if not NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return int(number) if "." not in text else number


def read_amount(value: Composite, cell: Cell) -> Decimal | int | None:
    """The number of a value; a text that is none is told."""
    text = value.text()
    number = read_number(text)
    if number is None and text:
        cell.warn("102", f"`{text[:40]}` is no number; it is left out.")
    return number


def nm_to_integer(value: Composite, cell: Cell, least: int = 1) -> int | None:
    """A whole number, of `least` or more."""
    number = read_amount(value, cell)
    if number is None:
        return None
    if not least <= number < 2**31 or number != int(number):
        text = f"`{value.text()[:40]}` is no whole number above {least - 1}; it is left out."
        cell.warn("102", text)
        return None
    return int(number)


def nm_to_count(value: Composite, cell: Cell) -> int | None:
    """A whole number, 0 included."""
    return nm_to_integer(value, cell, 0)


def read_units(value: Composite, cell: Cell) -> Resource:
    """Unit, system and code of a Quantity from OBX-6 or a CQ."""
    code, name = value.text(1), value.text(2)
    system = find_system(value.text(3), value.text(14), cell.context.partner)
    quantity: Resource = {}
    if name or code:
        quantity["unit"] = name or code
    if system and code:
        quantity |= {"system": system, "code": "".join(code.split())}
    return quantity


def nm_to_quantity(value: Composite, cell: Cell) -> Resource | None:
    """A Quantity; the row's argument is the code of its unit in UCUM and the unit's name."""
    number = read_amount(value, cell)
    if number is None:
        return None
    code, _, unit = cell.argument.partition(" ")
    told = {"unit": unit, "system": "http://unitsofmeasure.org", "code": code} if code else {}
    return {"value": number, **told}


def cq_to_quantity(value: Composite, cell: Cell) -> Resource | None:
    """A Quantity with the unit of CQ.2."""
    number = read_amount(value, cell)
    if number is None:
        return None
    return {"value": number, **read_units(value.part(2), cell)}


def read_unit(*names: str) -> str:
    """The UCUM code of a unit of time by the first name that is known, "" without one."""
    return next((NAMES[name.lower()] for name in names if name.lower() in NAMES), "")


def mo_to_money(value: Composite, cell: Cell) -> Resource | None:
    """Money from a CP or MO: amount and currency, which is US dollars where none is told."""
    price = value.part(1)
    text = price.text(1)
    if not text:
        return None
    number = read_number(text)
    if number is None:
        cell.warn("102", f"`{text[:40]}` is no amount; it is left out.")
        return None
    currency = price.text(2) or value.text(2)
    return {"value": number, "currency": currency if re.fullmatch("[A-Z]{3}", currency) else "USD"}


def nr_to_range(value: Composite, unit: Resource) -> Resource | None:
    """A Range from a NR."""
    return build_range(read_number(value.text(1)), read_number(value.text(2)), unit)


def build_range(low: Any, high: Any, unit: Resource) -> Resource | None:
    """A Range of two numbers, either of which may be None."""
    pairs = (("low", low), ("high", high))
    return {name: {"value": number, **unit} for name, number in pairs if number is not None} or None


def sn_to_value(value: Composite, unit: Resource) -> tuple[str, Any]:
    """The value[x] of a structured numeric: Quantity, Ratio or Range where it is one, else its text."""
    comparator, separator = value.text(1), value.text(3)
    first, second = read_number(value.text(2)), read_number(value.text(4))
    if first is not None and comparator in ("", "=", *COMPARATORS):
        mark = {"comparator": comparator} if comparator in COMPARATORS else {}
        if not separator and second is None:
            return "valueQuantity", {"value": first, **mark, **unit}
        if separator == ":" and second is not None:
            return "valueRatio", {"numerator": {"value": first, **mark, **unit}, "denominator": {"value": second}}
        if separator == "-" and second is not None and not mark:
            return "valueRange", build_range(first, second, unit)
    return "valueString", " ".join(value.text(number) for number in (1, 2, 3, 4) if value.text(number))


def na_to_sampled_data(value: Composite, unit: Resource) -> Resource | None:
    """SampledData from a NA; points that are no numbers are errors (`E`)."""
    points = [sub for part in value.parts for sub in part]
    if not points:
        return None
    data = " ".join(point if NUMBER.fullmatch(point) else "E" for point in points)
    return {"origin": {"value": 0, **unit}, "period": 1, "dimensions": 1, "data": data}


def read_minutes(amount: str, unit: str) -> float | None:
    """A duration in minutes; seconds, minutes, hours and days are known, and minutes are meant without unit."""
    number = read_number(amount)
    factor = MINUTES.get(read_unit(unit)) if unit else 1
    if number is None or factor is None or not 0 < number < 10**6:
        return None
    return float(number) * factor


def read_length(text: str) -> float | None:
    """The minutes of a TQ.3 such as `M45` or `H2`."""
    found = LENGTH.fullmatch(text.upper())
    factors = {"S": 1 / 60, "M": 1.0, "H": 60.0, "D": 1440.0, "W": 10080.0, "L": 43200.0}
    return int(found[2]) * factors[found[1]] if found else None
