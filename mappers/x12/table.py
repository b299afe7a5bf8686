"""What a transaction set consists of, as data: loops by position and qualifier, their segments and elements.

The tables are text that a specialist can read (`tables/`); this module turns them into `Table`s. A row of a loop:
`loop ID in PARENT,… at POSITION USAGE MAX: name`; a row of a segment in it: `POSITION ID USAGE MAX` with
`match=ELEMENT:CODE,…` (the qualifier) and `need=ELEMENT,…` (required beyond the standard's own). USAGE is R or S
(situational); MAX a number, `*`, or `N/q`: N for each qualifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ROOT = "ST"
UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class SegmentRule:
    """A segment in a loop; `element` (0: none) and `component` say where its qualifier is, `codes` what it may be."""

    loop: str
    position: int
    id: str
    required: bool
    max: int
    each: bool = False
    element: int = 0
    component: int = 0
    codes: frozenset[str] = frozenset()
    needs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopRule:
    """A loop: its rows, the first of which opens it, and the loops in it, each at its position within this one."""

    id: str
    name: str
    segments: tuple[SegmentRule, ...]
    loops: tuple[LoopPlace, ...]
    by_id: Mapping[str, tuple[SegmentRule | LoopPlace, ...]] = field(repr=False, compare=False, hash=False)

    @property
    def trigger(self) -> SegmentRule:
        return self.segments[0]


@dataclass(frozen=True, slots=True)
class LoopPlace:
    """Where a loop stands in another."""

    position: int
    required: bool
    max: int
    rule: LoopRule


@dataclass(frozen=True, slots=True)
class Table:
    """A transaction set of one implementation guide: ST01, the guide's id, GS01, and its loops from ST to SE."""

    code: str
    version: str
    group_code: str
    root: LoopRule
    loops: Mapping[str, LoopRule] = field(repr=False, compare=False, hash=False)


@dataclass(frozen=True, slots=True)
class ElementRule:
    """An element by its X12 type (ID, AN, R, N0, DT, TM, or C for a composite) and lengths."""

    type: str
    min: int
    max: int
    required: bool


_LOOP = re.compile(r"loop (\S+) in (\S+) at (\d+) ([RS]) (\S+): (.+)")
_ELEMENT = re.compile(r"([a-z])(\d+)?(?:-(\d+))?(!)?")
_TYPES = {"i": "ID", "a": "AN", "r": "R", "n": "N0", "d": "DT", "t": "TM", "c": "C"}


def parse_table(code: str, version: str, group_code: str, text: str) -> Table:
    """The table that the rows describe; a row that cannot be read raises ValueError (the tables are ours)."""
    heads: dict[str, re.Match[str]] = {}
    rows: dict[str, list[SegmentRule]] = {ROOT: []}
    current = ROOT
    for line in (line.strip() for line in text.splitlines()):
        if head := _LOOP.fullmatch(line):
            current = head[1]
            heads[current] = head
            rows[current] = []
        elif line:
            rows[current].append(_parse_segment_rule(current, line))
    rules: dict[str, LoopRule] = {}
    root = _link(ROOT, heads, rows, rules)
    return Table(code, version, group_code, root, rules)


def _parse_segment_rule(loop: str, line: str) -> SegmentRule:
    try:
        position, segment_id, usage, maximum, *options = line.split()
        values = dict(option.split("=") for option in options)
    except ValueError as error:
        raise ValueError(f"the row `{line}` of loop {loop} cannot be read") from error
    place, _, codes = values.get("match", "").partition(":")
    element, _, component = place.partition("-")
    count, _, each = maximum.partition("/")
    return SegmentRule(
        loop,
        int(position),
        segment_id,
        usage == "R",
        _to_max(count),
        each == "q",
        int(element or 0),
        int(component or 0),
        frozenset(filter(None, codes.split(","))),
        tuple(int(need) for need in values.get("need", "").split(",") if need),
    )


def _to_max(text: str) -> int:
    return UNLIMITED if text == "*" else int(text)


def _link(
    loop: str, heads: Mapping[str, re.Match[str]], rows: Mapping[str, list[SegmentRule]], rules: dict[str, LoopRule]
) -> LoopRule:
    """The rule of a loop with all loops in it; one that stands in several places is made once."""
    if loop in rules:
        return rules[loop]
    inner = [head for head in heads.values() if loop in head[2].split(",")]
    places = [LoopPlace(int(h[3]), h[4] == "R", _to_max(h[5]), _link(h[1], heads, rows, rules)) for h in inner]
    places.sort(key=lambda place: place.position)
    segments = tuple(rows[loop])
    # The first row opens the loop: it is looked for in the parent
    members: list[SegmentRule | LoopPlace] = [*segments[0 if loop == ROOT else 1 :], *places]
    members.sort(key=lambda member: member.position)
    by_id: dict[str, list[SegmentRule | LoopPlace]] = {}
    for member in members:
        by_id.setdefault(get_segment_rule(member).id, []).append(member)
    name = heads[loop][6] if loop in heads else "transaction set"
    rules[loop] = LoopRule(loop, name, segments, tuple(places), {key: tuple(value) for key, value in by_id.items()})
    return rules[loop]


def get_segment_rule(member: SegmentRule | LoopPlace) -> SegmentRule:
    """The row itself, or the row that opens the loop."""
    return member.rule.trigger if isinstance(member, LoopPlace) else member


def parse_elements(text: str) -> dict[str, tuple[ElementRule, ...]]:
    """The elements of each segment from lines such as `NM1 i2-3! i1! a1-60`: type, lengths, `!` where mandatory."""
    segments = {}
    for line in text.split("\n"):
        if line.strip():
            segment_id, *elements = line.split()
            segments[segment_id] = tuple(rule for element in elements for rule in _parse_element(element))
    return segments


def _parse_element(text: str) -> list[ElementRule]:
    kind, _, times = text.partition("*")
    match = _ELEMENT.fullmatch(kind)
    if not match:
        raise ValueError(f"the element `{text}` cannot be read")
    low = int(match[2] or 1)
    return [ElementRule(_TYPES[match[1]], low, int(match[3] or low), match[4] is not None)] * int(times or 1)


def index_tables(tables: Iterable[Table]) -> dict[tuple[str, str], Table]:
    """Tables by ST01 and implementation guide."""
    return {(table.code, table.version): table for table in tables}
