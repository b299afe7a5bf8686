"""The field tables and the engine that walks them: a row says which element a field fills, and by which conversion.

The columns of `tables/*.tsv`: the resource; the field, with a component if it is one alone (`SCH-7.3`); the path of
the element; the conversion (`mapper` where a function decides, `ignore` where nothing is to be kept); its vocabulary
and its argument; the condition; what is set beside the value. A path has `[+]` for a new entry of a list, `[0]` for its
first entry and `{url}` for an extension. A condition names fields of the segments of the group: `PV1-45`, `!PV1-45`,
`PV1-2=P`, `PV1-2!=P`; several are joined by blanks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell, Context, Primitive
from mappers.hl7v2.datatypes import CONVERSIONS, Convert
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.times import put_primitive
from mappers.hl7v2.er7 import DELETE, Segment
from mappers.hl7v2.events import read_events
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.tables import read_table

FILES = tuple(dict.fromkeys(name for row in read_table("families.tsv") for name in row[2].split()))
"""The field tables, `.tsv` left out."""

SOURCE_EXTENSION = extension_url("hl7v2-source")
"""Names the partner and field that an entry of a list came from, so that a later message replaces only its own."""

SOURCED = frozenset({"Patient", "RelatedPerson", "Encounter"})
UNSOURCED = frozenset({"identifier", "extension", "meta"})

STEP = re.compile(r"([A-Za-z_]\w*)(?:\{([^}]*)\})?(\[[+0]\])?(?:\.|$)")


class Step(NamedTuple):
    """A step of a path. `mode` is `+` for a new entry, `0` for the first one, and empty for an object or value."""

    name: str
    mode: str = ""
    url: str = ""


Condition = Callable[[Callable[[str], Segment]], bool]
"""Takes what finds a segment by its name."""


class Row(NamedTuple):
    """A row that fills an element."""

    field: int
    component: int
    steps: tuple[Step, ...]
    convert: Convert
    vocabulary: str
    argument: str
    conditions: tuple[Condition, ...]
    also: tuple[tuple[tuple[Step, ...], str], ...]
    name: str
    repeats: bool
    """Whether each repetition of the field has a place."""


class Draft:
    """A resource that rows fill, with the paths that the message deletes and the sources that it speaks of."""

    __slots__ = ("delete", "resource", "sources")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.delete: list[str] = []
        self.sources: list[str] = []


@cache
def read_steps(path: str) -> tuple[Step, ...]:
    """Parses a path."""
    steps = []
    position = 0
    while position < len(path):
        found = STEP.match(path, position)
        if not found or found.end() == position:
            raise ValueError(f"The path `{path}` cannot be read at `{path[position:]}`.")
        name, url, mode = found.groups()
        steps.append(Step(name, (mode or "").strip("[]"), url or ""))
        position = found.end()
    return tuple(steps)


def read_condition(text: str) -> Condition:
    """Parses one condition."""
    found = re.fullmatch(r"(!?)([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d+))?(?:(!?=)(\S+))?", text)
    if not found:
        raise ValueError(f"The condition `{text}` cannot be read.")
    negated, name, field, component, sign, values = found.groups()
    number, part = int(field), int(component or 1)
    if sign:
        codes = frozenset(values.split(","))
        return lambda find: (find(name).text(number, part) in codes) == (sign == "=")
    return lambda find: (find(name).raw(number) in ("", DELETE)) == bool(negated)


def read_row(cells: Iterable[str]) -> tuple[str, str, Row | None]:
    """The resource and segment of a row, and the row itself, None where no conversion stands in it."""
    resource, field, path, convert, vocabulary, argument, when, also = cells
    segment, _, number = field.partition("-")
    whole, _, component = number.partition(".")
    if convert not in CONVERSIONS:
        if convert not in ("mapper", "ignore"):
            raise ValueError(f"The conversion `{convert}` of {field} is not known.")
        return resource, segment, None
    beside = tuple((read_steps(each.partition("=")[0]), each.partition("=")[2]) for each in also.split(";") if each)
    conditions = tuple(read_condition(each) for each in when.split())
    steps = read_steps(path)
    convert_ = CONVERSIONS[convert]
    repeats = any(step.mode == "+" for step in steps)
    row = Row(
        int(whole), int(component or 0), steps, convert_, vocabulary, argument, conditions, beside, field, repeats
    )
    return resource, segment, row


@cache
def read_rows() -> dict[tuple[str, str], tuple[Row, ...]]:
    """All rows that fill something, by resource and segment."""
    found: dict[tuple[str, str], list[Row]] = {}
    for name in FILES:
        for cells in read_table(f"{name}.tsv"):
            resource, segment, row = read_row(cells)
            if row:
                found.setdefault((resource, segment), []).append(row)
    return {key: tuple(rows) for key, rows in found.items()}


def find_rows(resource: str, segment: str, partner: Partner) -> tuple[Row, ...]:
    """The rows of a resource and segment, those of the site last."""
    rows = read_rows().get((resource, segment), ())
    for custom in partner.custom_fields:
        if custom.resource == resource and custom.field.startswith(f"{segment}-"):
            cells = (resource, custom.field, custom.path, custom.convert, custom.vocabulary, "", "", "")
            row = read_row(cells)[2]
            rows = (*rows, row) if row else rows
    return rows


def fill(draft: Draft, segment: Segment, kind: str, context: Context, beside: tuple[Segment, ...] = ()) -> None:
    """Fills a draft with what a segment says of a kind of resource; conditions see the segments beside it too."""

    def find(name: str) -> Segment:
        return next((each for each in (segment, *beside) if each.name == name), Segment(name, ()))

    partner, raw_of = context.partner, segment.raw
    for row in find_rows(kind, segment.name, partner):
        raw = raw_of(row.field)
        if not raw or row.name in partner.ignored:
            continue
        if row.conditions and not all(holds(find) for holds in row.conditions):
            continue
        source = f"{partner.name} {row.name}" if kind in SOURCED else ""
        if source:
            draft.sources.append(source)
        if raw == DELETE:
            draft.delete.append(write_deletion(row.steps, source))
            continue
        _fill_row(draft.resource, segment, row, context, source)


def write_deletion(steps: tuple[Step, ...], source: str) -> str:
    """The path that two quotes delete: up to a list, of which the entries of a source go, or to an extension."""
    path = ""
    for step in steps:
        path = f"{path}.{step.name}" if path else step.name
        if step.url:
            return f"{path}{{{step.url}}}"
        if step.mode == "+":
            return f"{path}|{source}"
    return path


def _fill_row(resource: Resource, segment: Segment, row: Row, context: Context, source: str) -> None:
    for number, repetition in enumerate(segment.repetitions(row.field), 1):
        location = segment.place(row.field, number, row.component)
        if number > 1 and not row.repeats:
            text = f"{row.name} may not repeat here; only its first value is mapped, the others stay with the message."
            context.tell(text, location)
            return
        value = repetition.part(row.component) if row.component else repetition
        result = row.convert(value, Cell(context, location, row.vocabulary, row.argument))
        if result is None:
            continue
        owner = place_value(resource, row.steps, result)
        for steps, text in row.also:
            _place_beside(owner, steps, text, segment)
        if source and isinstance(owner, dict) and row.steps[0].mode == "+" and row.steps[0].name not in UNSOURCED:
            owner.setdefault("extension", []).append({"url": SOURCE_EXTENSION, "valueString": source})


def place_value(target: Resource, steps: tuple[Step, ...], value: Any) -> Resource:
    """Puts a value at a path, and gives the innermost list entry on the way to it, or what holds it."""
    owner, final = target, len(steps) - 1
    for index, step in enumerate(steps):
        last = index == final
        if step.url:
            target = _find_extension(target, step)
        elif step.mode:
            entries = target.setdefault(step.name, [])
            if last and not isinstance(value, Primitive):
                entries.append(value)
                return value if isinstance(value, dict) else owner
            if step.mode == "+" or not entries:
                entries.append({})
            target = entries[-1] if step.mode == "+" else entries[0]
            owner = target
        elif last:
            if isinstance(value, dict) and isinstance(target.get(step.name), dict):
                target[step.name] = {**value, **target[step.name]}
            elif step.name not in target:
                put_primitive(target, step.name, value)
        else:
            target = target.setdefault(step.name, {})
    return owner if any(step.mode for step in steps) else target


def _find_extension(target: Resource, step: Step) -> Resource:
    extensions: list[Resource] = target.setdefault("extension", [])
    known = next((each for each in extensions if each["url"] == step.url), None)
    if known is None or step.mode == "+":
        known = {"url": step.url}
        extensions.append(known)
    return known


def _place_beside(owner: Resource, steps: tuple[Step, ...], text: str, segment: Segment) -> None:
    """Sets a constant, a concept (`system#code#display`) or the text of a field (`@IN1-9`)."""
    value: Any = text
    if text.startswith("@"):
        value = segment.text(int(text.rpartition("-")[2]))
        if not value:
            return
    elif "#" in text:
        value = build_concept(*text.split("#"))
    place_value(owner, steps, value)


def find_source(entry: Any) -> str:
    """The partner and field that an entry of a list came from, "" where that is not told."""
    extensions = entry.get("extension", []) if isinstance(entry, dict) else []
    return next((str(each.get("valueString")) for each in extensions if each.get("url") == SOURCE_EXTENSION), "")


def list_unmapped(segments: Iterable[Segment], context: Context) -> None:
    """Adds an issue for each segment of which nothing is mapped, and for each field that no row of the family names."""
    event = read_events()[context.message, context.event]
    custom = {custom.field for custom in context.partner.custom_fields}
    ignored = context.partner.ignored
    for segment in segments:
        name = segment.name
        if name in ignored:
            continue
        site = {field for field in custom if field.startswith(f"{name}-")}
        if name not in event.segments and not site:
            text = f"Nothing of the segment {name} is mapped; it is kept with the message."
            context.tell(text, segment.place())
            continue
        for number in segment.numbers():
            field = f"{name}-{number}"
            if field not in event.fields and field not in site and field not in ignored:
                text = f"The field {field} is not mapped; it is kept with the message."
                context.tell(text, segment.place(number))


def tell_unmapped(segments: Iterable[Segment], why: str, context: Context) -> None:
    """Adds an issue for each segment that a function leaves out; `why` is a sentence."""
    for segment in segments:
        context.tell(f"{segment.name} is kept with the message: {why}", segment.place())


def warn_missing(segment: Segment, number: int, context: Context) -> None:
    """Adds a warning for a field that the standard requires."""
    text = f"{segment.name}-{number} is required and empty."
    context.warn("101", text, segment.place(number))
