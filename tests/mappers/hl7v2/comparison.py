"""Compares what the mapper makes of a sample with what its authors expect, leaf by leaf.

Only leaves that a table drives count: elements that the official guide or our own tables name, of the resource types
that are mapped. Ids, literal references, displays, narratives, and systems and extensions of the samples' authors are
their choices. Instants, codes, names and amounts are compared by meaning, not as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, NamedTuple

from mappers.hl7v2.er7 import Message
from mappers.hl7v2.rows import FILES
from mappers.hl7v2.tables import read_table

SKIPPED = frozenset(
    ["id", "meta", "extension", "contained", "reference", "display", "resourceType", "div", "mode", "physicalType"]
)
PARTS = {
    "Payor": "Organization",
    "Holder": "Organization",
    "Facility": "Organization",
    "contact-organization": "Organization",
    "Subscriber": "RelatedPerson",
    "Guarantor": "RelatedPerson",
    "RelatedPerson-Mother": "RelatedPerson",
    "Orderer": "Practitioner",
}
# What the data type maps XCN, XON and PL fill in the resources that a field refers to.
REFERRED = {
    "Practitioner": {"identifier", "name", "address"},
    "Organization": {"identifier", "name", "address", "telecom", "contact"},
    "Location": {"name"},
}


class Leaf(NamedTuple):
    """A value with the type and element path that it stands at, without the indexes of lists."""

    type: str
    path: str
    value: str


@cache
def driven() -> dict[str, frozenset[str]]:
    """By resource type, the paths of elements that a row of a table names."""
    paths: dict[str, set[str]] = {name: set(elements) for name, elements in REFERRED.items()}
    for file in FILES:
        for resource, _, path, convert, *_ in read_table(f"{file}.tsv"):
            if convert != "ignore" and "extension" not in path and resource not in ("note", "participant", "contact"):
                clean = re.sub(r"\[.\]", "", path)
                paths.setdefault(PARTS.get(resource, resource), set()).add(clean)
    for title, _, element in read_table("official.tsv"):
        target = title.partition("[")[2].rstrip("]").partition("-")[0]
        first = re.match(r"[a-z][A-Za-z.]*", re.sub(r"\[\d\]", "", element))
        if first and target in paths and "extension" not in element:
            paths[target].add(first[0])
    paths["Appointment"].add("participant.actor")
    return {name: frozenset(found) for name, found in paths.items()}


def is_driven(leaf: Leaf) -> bool:
    """Whether a row of a table fills the element of the leaf, or an element that it is part of."""
    known = driven().get(leaf.type, frozenset())
    parts = leaf.path.split(".")
    return any(".".join(parts[:count]) in known for count in range(1, len(parts) + 1))


def find_leaves(resource: dict[str, Any]) -> Iterator[Leaf]:
    """The driven leaves of a resource."""
    for path, value in _walk(resource, ()):
        leaf = Leaf(resource["resourceType"], ".".join(path), normalise(path[-1], value))
        if leaf.value and is_driven(leaf):
            yield leaf


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name not in SKIPPED and not name.startswith("_"):
                yield from _walk(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from _walk(each, path)
    elif path:
        yield path, value


def normalise(name: str, value: Any) -> str:
    """The meaning of a value: an instant in UTC, a number without trailing zeros, a text without case; "" to skip."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return format(Decimal(str(value)).normalize(), "f")
    text = " ".join(str(value).split())
    if name == "system":
        return text if re.match(r"https?://(terminology\.hl7|hl7|loinc|snomed|unitsofmeasure)|urn:oid", text) else ""
    if re.match(r"\d{4}-\d{2}-\d{2}T", text):
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds")
    try:
        return format(Decimal(text).normalize(), "f") if re.fullmatch(r"-?\d+\.\d+", text) else text.casefold()
    except InvalidOperation:
        return text.casefold()


# Resources that the samples make of what is no row of a table, or of what is decided otherwise here.
OTHER_RESOURCES: tuple[tuple[str, Callable[[dict[str, Any]], bool], str], ...] = (
    ("MessageHeader", lambda resource: True, "the message log is the Task of the intake, not a MessageHeader"),
    ("Device", lambda resource: True, "devices of MSH and SFT are not mapped; that of OBX-18 is known by number alone"),
    ("Organization", lambda resource: "name" not in resource, "an assigning authority is the system of an identifier"),
    ("Observation", lambda resource: has_foreign_code(resource), "PDA and ACC are in no map of the guide"),
    ("Procedure", lambda resource: has_foreign_code(resource), "PDA is in no map of the guide"),
    ("ServiceRequest", lambda resource: "EXTERNAL" in str(resource.get("category")), "RF1 is in no map of the guide"),
    (
        "PractitionerRole",
        lambda resource: True,
        "a person who only acts is referred to as Practitioner; ROL has a test of its own",
    ),
    ("Provenance", lambda resource: "policy" in resource, "the samples' own transformation"),
    ("Provenance", lambda resource: "agent" not in resource, "one Provenance stands for the message"),
    ("Provenance", lambda resource: "entity" not in resource, "one Provenance stands for the message"),
)


VISIT = frozenset({"PV1", "PV2"})
"""Segments that A28 and A31, which are about a person alone, do not read."""

FOREIGN_CODES = frozenset(
    {"death-certificate", "autopsy", "coroner", "injury-incident", "death-certification", "autopsy-performed"}
)


def has_foreign_code(resource: dict[str, Any]) -> bool:
    """Whether a resource is made of PDA or ACC, which are in no map of the guide."""
    codings = resource.get("code", {}).get("coding", [])
    return any(each.get("code") in FOREIGN_CODES for each in codings)


@cache
def filled_by() -> dict[str, frozenset[str]]:
    """By field, the resource types that a row fills from it."""
    types: dict[str, set[str]] = {}
    for file in FILES:
        for resource, field, _, convert, *_ in read_table(f"{file}.tsv"):
            if convert == "ignore":
                continue
            found = types.setdefault(field.partition(".")[0], set())
            found.add({"participant": "Appointment", "contact": "Patient"}.get(resource, PARTS.get(resource, resource)))
            found.update({"practitioner": {"Practitioner"}, "ndl": {"Practitioner"}}.get(convert, ()))
            found.update({"organization": {"Organization"}, "organizationCode": {"Organization"}}.get(convert, ()))
            found.update({"location": {"Location"}, "discharge": {"Location"}}.get(convert, ()))
    types["FT1-13"].add("Organization")
    types["ORC-21"].add("Organization")
    types["AIG-3"].update({"Device", "Location", "Practitioner"})
    types["OBR-15"].add("Specimen")
    return {field: frozenset(found) for field, found in types.items()}


def has_other_source(leaf: Leaf, message: Message) -> bool:
    """Whether the text of a leaf stands in the message, but only in fields from which no row fills its type."""
    if message.header.text(9, 2) in ("A28", "A31"):
        if leaf.type == "Encounter":
            return True
        message = replace(message, segments=tuple(each for each in message.segments if each.name not in VISIT))
    sources = set()
    for segment in message.segments:
        for number in segment.numbers():
            raw = segment.raw(number).casefold()
            if re.search(rf"(?<![\w.]){re.escape(leaf.value)}(?![\w.])", raw):
                sources.add(f"{segment.name}-{number}")
    return bool(sources) and not any(leaf.type in filled_by().get(source, ()) for source in sources)


SAMPLE_ZONES = (0, 330)
"""Minutes east of Greenwich that the samples' authors took for times without offset: UTC, and India."""


def is_without_offset(leaf: Leaf, message: Message) -> bool:
    """Whether a leaf is a time that the message tells without offset: here MSH-7's is taken, there their own zone's."""
    if not re.match(r"\d{4}-\d{2}-\d{2}T", leaf.value):
        return False
    instant = datetime.fromisoformat(leaf.value)
    local = [f"{instant + timedelta(minutes=zone):%Y%m%d%H%M}" for zone in SAMPLE_ZONES]
    raws = [value for segment in message.segments for value in segment.values]
    return any(re.search(rf"(?<!\d){text[:10]}(\d\d)*(\.\d+)?(?![\d+.-])", raw) for text in local for raw in raws)


def _is_other(resource: dict[str, Any]) -> bool:
    return any(resource["resourceType"] == name and holds(resource) for name, holds, _ in OTHER_RESOURCES)


class Compared(NamedTuple):
    """The expected leaves that are met, and the others as (leaf, what is there at the same path)."""

    matched: list[Leaf]
    differing: list[tuple[Leaf, tuple[str, ...]]]
    missing: list[Leaf]


def compare(expected: list[dict[str, Any]], actual: list[dict[str, Any]], message: Message) -> Compared:
    """Compares the resources of two bundles made of a message."""
    counted = [each for each in expected if not _is_other(each)]
    wanted = Counter(leaf for resource in counted for leaf in set(find_leaves(resource)))
    wanted = Counter({leaf: count for leaf, count in wanted.items() if not has_other_source(leaf, message)})
    present: dict[Leaf, int] = {}
    at: dict[tuple[str, str], list[str]] = {}
    for resource in actual:
        for leaf in find_leaves(resource):
            present[leaf] = present.get(leaf, 0) + 1
            at.setdefault((leaf.type, leaf.path), []).append(leaf.value)
    result = Compared([], [], [])
    for leaf in wanted:
        if leaf in present:
            result.matched.append(leaf)
        elif found := at.get((leaf.type, leaf.path)):
            result.differing.append((leaf, tuple(sorted(set(found)))))
        else:
            result.missing.append(leaf)
    return result
