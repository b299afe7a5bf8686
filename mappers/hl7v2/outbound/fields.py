"""The engine that walks the inbound tables from right to left: a row takes the value at its path into its field.

A value that a row has taken is gone from the copy of the resource, so that the next row takes what is left, and what no
row takes is told. `tables/outbound.tsv` names the rows that are not written and the fields that hold one value alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes import CONVERSIONS
from mappers.hl7v2.er7 import USUAL, Composite, Segment, write_field
from mappers.hl7v2.outbound import codes, identifiers, people, quantities, times
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.rows import Row, Step, read_rows
from mappers.hl7v2.tables import read_table


class Spot(NamedTuple):
    """Where a value stands: what holds it, its name or place there, and the entry of a list that it is part of."""

    holder: Any
    name: Any
    owner: Resource

    def get(self) -> Any:
        return self.holder.get(self.name) if isinstance(self.holder, dict) else self.holder[self.name]


Write = Callable[[Spot, Row, Writing], Composite | None]


def _plain(function: Callable[[Any, Writing], Composite | None]) -> Write:
    return lambda spot, row, writing: function(spot.get(), writing)


def _vocabulary(function: Callable[[Any, str, str, Writing], Composite | None]) -> Write:
    return lambda spot, row, writing: function(spot.get(), row.vocabulary, row.name, writing)


def _date_time(spot: Spot, row: Row, writing: Writing) -> Composite | None:
    return codes.compose(times.write_date_time(spot.holder, spot.name, writing))


def _cx(spot: Spot, row: Row, writing: Writing) -> Composite | None:
    identifier = spot.get()
    types = {"MB": ("", "MB"), "PLAC": ("PLAC",)}.get(row.argument)
    if types and identifiers.read_type(identifier) not in types:
        return None
    return identifiers.write_cx(identifier, writing)


def _visit(spot: Spot, row: Row, writing: Writing) -> Composite | None:
    """The guide gives each visit number the type VN and a text; neither is sent."""
    if identifiers.read_type(spot.get()) not in ("", "VN"):
        return None
    spot.get().pop("type", None)
    return identifiers.write_cx(spot.get(), writing)


def _ei(spot: Spot, row: Row, writing: Writing) -> Composite | None:
    return identifiers.write_ei(spot.get(), row.argument, writing)


WRITES: dict[str, Write] = {
    "address": _plain(people.write_address),
    "boolean": lambda spot, row, writing: codes.write_boolean(spot.get()),
    "code": _vocabulary(codes.write_code),
    "count": lambda spot, row, writing: codes.compose(str(spot.get())),
    "codeText": lambda spot, row, writing: codes.compose("", str(spot.get())),
    "closedPeriod": _plain(times.write_period),
    "coding": _vocabulary(codes.write_coding),
    "concept": _vocabulary(codes.write_concept),
    "contact": lambda spot, row, writing: people.write_contact(spot.get(), row.argument, writing),
    "cx": _cx,
    "date": _date_time,
    "dateTime": _date_time,
    "discharge": _plain(people.write_discharge_place),
    "ei": _ei,
    "duration": lambda spot, row, writing: quantities.write_quantity(spot.get(), writing),
    "first": lambda spot, row, writing: codes.compose(str(spot.get())),
    "instant": _date_time,
    "integer": lambda spot, row, writing: codes.compose(str(spot.get())),
    "length": lambda spot, row, writing: quantities.write_length(spot.get(), row.argument),
    "location": _plain(people.write_location),
    "money": lambda spot, row, writing: quantities.write_money(spot.get()),
    "name": _plain(people.write_name),
    "nameText": lambda spot, row, writing: codes.compose([str(spot.get())]),
    "ndl": _plain(people.write_ndl),
    "number": lambda spot, row, writing: codes.compose(quantities.write_decimal(spot.get())),
    "openDateTime": _date_time,
    "organization": _plain(people.write_organization),
    "organizationText": lambda spot, row, writing: codes.compose(str(spot.get())),
    "organizationCode": _plain(people.write_organization_code),
    "practitioner": _plain(people.write_person),
    "quantity": lambda spot, row, writing: quantities.write_quantity(spot.get(), writing),
    "ssn": _plain(identifiers.write_social_security),
    "text": lambda spot, row, writing: codes.compose(str(spot.get())),
    "textConcept": lambda spot, row, writing: codes.compose(spot.get().pop("text", "")),
    "timeOfBirth": _date_time,
    "unit": _plain(quantities.take_unit),
    "visit": _visit,
}
"""The reverse of the conversions of `datatypes.CONVERSIONS`."""

REVERSE = {CONVERSIONS[name]: write for name, write in WRITES.items()}
REFERENCES = frozenset(
    CONVERSIONS[name] for name in ("practitioner", "organization", "organizationCode", "location", "ndl")
)
FIRST = CONVERSIONS["ssn"]
"""Its rows go first: they take what is theirs and leave the rest to the others."""


@cache
def read_outbound() -> dict[tuple[str, str], str]:
    """By kind and field: `never`, `once` (one value), `when` (the row's condition counts), or the version needed."""
    return {(row[0], row[1]): row[2] for row in read_table("outbound.tsv")}


class Fields:
    """The fields of one segment while it is written."""

    __slots__ = ("name", "values", "writing")

    def __init__(self, name: str, writing: Writing) -> None:
        self.name = name
        self.writing = writing
        self.values: dict[int, list[Composite]] = {}

    def __bool__(self) -> bool:
        return any(self.values.values())

    def put(self, number: int, *parts: codes.Part) -> None:
        """Sets a field to one repetition."""
        value = codes.compose(*parts)
        self.values[number] = [value] if value else []

    def add(self, number: int, value: Composite | None) -> None:
        """Adds a repetition."""
        if value:
            self.values.setdefault(number, []).append(value)

    def segment(self) -> Segment:
        """The segment with the text of its fields."""
        last = max((number for number, each in self.values.items() if each), default=0)
        texts = (write_field(self.values.get(number, ()), USUAL) for number in range(1, last + 1))
        return Segment(self.name, tuple(texts))

    def fill(self, resource: Resource, kind: str) -> Fields:
        """Takes out of a resource what the rows of a kind say in this segment."""
        rows = read_rows().get((kind, self.name), ())
        for row in sorted(rows, key=lambda row: row.convert is not FIRST):
            rule = read_outbound().get((kind, row.name), "")
            if rule[:1].isdigit():
                rule = "" if self.writing.receiver.version >= rule else "never"
            if rule == "never" or row.convert not in REVERSE:
                continue
            if rule == "when" and not all(holds(lambda _: self.segment()) for holds in row.conditions):
                continue
            for spot in list(find_spots(resource, row.steps, resource)):
                if not rule or not self.values.get(row.field):
                    self._take(spot, row)
                elif self.values[row.field] == [codes.compose(times.write_moment(str(spot.get())))]:
                    spot.holder.pop(spot.name)
        return self

    def _take(self, spot: Spot, row: Row) -> None:
        value = spot.get()
        if (value in (None, {}, []) and f"_{spot.name}" not in spot.holder) or not _fits(spot.owner, row):
            return
        before = deepcopy(value) if isinstance(value, dict) else None
        written = REVERSE[row.convert](spot, row, self.writing)
        if written is None:
            if before is not None:
                value.update(before)
            return
        if row.convert in REFERENCES:
            value.clear()
        if isinstance(spot.holder, dict) and not isinstance(value, dict):
            spot.holder.pop(spot.name, None)
        for steps, text in row.also:
            for beside in list(find_spots(spot.owner, steps, spot.owner)):
                taken = beside.holder.pop(beside.name)
                if text.startswith("@"):
                    self.put(int(text.rpartition("-")[2]), str(taken))
        if row.convert is CONVERSIONS["timeOfBirth"]:
            self.values.pop(row.field, None)
        self.add(row.field, written)


def find_spots(target: Any, steps: tuple[Step, ...], owner: Resource) -> Iterator[Spot]:
    """Where the values of a path stand, in their order."""
    if not isinstance(target, dict) or not steps:
        return
    step, rest = steps[0], steps[1:]
    value = target.get(step.name)
    if step.url:
        for entry in value or ():
            if entry.get("url") == step.url:
                yield from find_spots(entry, rest, owner)
    elif step.mode:
        for number, entry in enumerate(value or ()):
            if not rest:
                yield Spot(value, number, entry if isinstance(entry, dict) else owner)
            elif isinstance(entry, dict):
                yield from find_spots(entry, rest, entry)
            if step.mode == "0":
                return
    elif not rest:
        if step.name in target or f"_{step.name}" in target:
            yield Spot(target, step.name, owner)
    else:
        yield from find_spots(value, rest, owner)


def _fits(owner: Resource, row: Row) -> bool:
    """Whether what the row sets beside the value is there; a place without a status is an active one."""
    for steps, text in row.also:
        if text.startswith("@") or steps[-1].name == "text":
            continue
        value = next((spot.get() for spot in find_spots(owner, steps, owner)), None)
        if "#" in text:
            code = text.split("#")[1]
            if not any(each.get("code") == code for each in (value or {}).get("coding", [])):
                return False
        elif value != text and not (value is None and text == "active"):
            return False
    return True
