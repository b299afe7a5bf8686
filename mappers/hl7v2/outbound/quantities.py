"""Quantity, Money, Range, Ratio and SampledData become NM, CQ, CP, SN, NR and NA, with the digits that they have."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.outbound.codes import compose, find_name
from mappers.hl7v2.outbound.receiver import Writing


def write_decimal(value: Any) -> str:
    """The digits of a number without an exponent."""
    return f"{Decimal(str(value)):f}"


def take_value(quantity: Resource) -> str:
    """Takes the number of a Quantity, "" without one."""
    return write_decimal(quantity.pop("value")) if "value" in quantity else ""


def take_unit(quantity: Resource, writing: Writing) -> Composite | None:
    """Takes the unit as a CWE: code, name, and system; the name alone where code or system is missing."""
    unit = quantity.pop("unit", "")
    if not quantity.get("code") or not quantity.get("system"):
        return compose(unit)
    code, system = quantity.pop("code"), quantity.pop("system")
    name, oid = find_name(system, writing.receiver.partner)
    return compose(code, unit if unit != code else "", name, *[""] * 10, oid)


def write_length(quantity: Resource, unit: str) -> Composite | None:
    """A number whose unit the field tells; one of another unit is none for it."""
    code, _, name = unit.partition(" ")
    if quantity.get("code", code) != code or "comparator" in quantity:
        return None
    if code:
        quantity.pop("system", None)
        quantity.pop("code", None)
        if quantity.get("unit") in (name, code):
            quantity.pop("unit")
    return compose(take_value(quantity))


def write_quantity(quantity: Resource, writing: Writing) -> Composite | None:
    """A CQ: number and unit."""
    number = take_value(quantity)
    unit = take_unit(quantity, writing)
    return compose(number, [part[0] for part in unit.parts] if unit else "")


def write_money(money: Resource) -> Composite | None:
    """Amount and currency as the first component of a CP."""
    if "value" not in money:
        return None
    return compose([take_value(money), money.pop("currency", "")])
