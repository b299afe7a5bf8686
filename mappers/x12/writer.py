"""Loops into segments in the order of their table, and transaction sets into interchanges (X12.5, X12.6).

Control numbers, date and time are arguments: whoever keeps them allots them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from fhir_server.fhir.letters import list_letters
from mappers.x12.loop import Loop
from mappers.x12.reader import find_member
from mappers.x12.segment import STANDARD, Delimiters, Segment, make_segment, render_segment
from mappers.x12.table import LoopRule, Table

_BASIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !\"&'()+,-./;?=")
# Words with single spaces between them
_PLAIN = re.compile(r"[A-Z0-9]+(?: [A-Z0-9]+)*")
_EXTENDED = _BASIC | frozenset("abcdefghijklmnopqrstuvwxyz%@[]_{}\\|<>#$")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What ISA and GS say: qualifiers and ids of both sides, who is meant by GS02/GS03, test or production."""

    sender: str
    receiver: str
    sender_qualifier: str = "ZZ"
    receiver_qualifier: str = "ZZ"
    group_sender: str = ""
    group_receiver: str = ""
    usage: str = "T"
    wants_acknowledgement: bool = False
    delimiters: Delimiters = STANDARD


@dataclass(frozen=True, slots=True)
class ControlNumbers:
    """ISA13 and GS06 as numbers, and when the interchange is written, in the practice's time."""

    interchange: int
    group: int
    moment: datetime


def write_interchange(
    envelope: Envelope, numbers: ControlNumbers, table: Table, sets: Sequence[Sequence[Segment]], extra: str = ""
) -> str:
    """An interchange of one group with these sets, each from ST to SE; `extra` is text before GS (TA1 segments)."""
    delimiters, moment = envelope.delimiters, numbers.moment
    gs = make_segment(
        "GS",
        table.group_code,
        envelope.group_sender or envelope.sender,
        envelope.group_receiver or envelope.receiver,
        f"{moment:%Y%m%d}",
        f"{moment:%H%M}",
        str(numbers.group),
        "X",
        table.version,
    )
    ge = make_segment("GE", str(len(sets)), str(numbers.group))
    segments = [gs, *(segment for one in sets for segment in one), ge] if sets else []
    body = "".join(render_segment(segment, delimiters) for segment in segments)
    return (
        render_segment(write_isa(envelope, numbers), delimiters)
        + extra
        + body
        + render_segment(make_segment("IEA", "1" if sets else "0", f"{numbers.interchange:09}"), delimiters)
    )


def write_isa(envelope: Envelope, numbers: ControlNumbers) -> Segment:
    """The ISA segment, 106 characters with its terminator."""
    delimiters, moment = envelope.delimiters, numbers.moment
    return Segment(
        (
            "ISA", "00", " " * 10, "00", " " * 10,
            envelope.sender_qualifier, f"{envelope.sender:<15}",
            envelope.receiver_qualifier, f"{envelope.receiver:<15}",
            f"{moment:%y%m%d}", f"{moment:%H%M}", delimiters.repetition or "U", "00501", f"{numbers.interchange:09}",
            "1" if envelope.wants_acknowledgement else "0", envelope.usage, delimiters.component,
        )
    )  # fmt: skip


def write_set(table: Table, content: Loop, control_number: str) -> list[Segment]:
    """A set from ST to SE made of loops in any order: in the table's order, HL and LX numbered, SE01 counted."""
    body = [segment for segment in write_loops(content, table) if segment.id not in ("ST", "SE")]
    body = number_levels(body)
    st = make_segment("ST", table.code, control_number, "" if table.code == "835" else table.version)
    return [st, *body, make_segment("SE", str(len(body) + 2), control_number)]


def write_loops(root: Loop, table: Table) -> Iterator[Segment]:
    """The segments of the loops, ordered by position in the table; equals stay in the order in which they came."""
    yield from _write_loop(root, table.root)


def _write_loop(loop: Loop, rule: LoopRule) -> Iterator[Segment]:
    inner = {place.rule.id: place for place in rule.loops}
    keyed: list[tuple[int, Segment | Loop]] = []
    position = 0
    for each in loop.content:
        if isinstance(each, Loop):
            position = inner[each.id].position if each.id in inner else position
        elif loop.content[0] is not each:
            # What no row fits stays behind what it stood behind
            member = find_member(rule, each, 0) or find_member(rule, each, 0, strict=False)
            position = member.position if member else position
        keyed.append((position, each))
    for _, each in sorted(keyed, key=lambda pair: pair[0]):
        if isinstance(each, Loop):
            yield from _write_loop(each, inner[each.id].rule) if each.id in inner else (s for s, _ in each.walk())
        else:
            yield each


_LEVELS = {"20": 0, "21": 1, "19": 2, "22": 3, "23": 4, "PT": 4}


def number_levels(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with HL01 (number), HL02 (parent) and HL04 (has children) filled in from the order of their HL03."""
    result, stack, parents = list(segments), list[tuple[int, int]](), set[int]()
    levels: list[tuple[int, int, int]] = []
    for index, segment in enumerate(segments):
        if segment.id == "HL":
            rank = _LEVELS.get(segment.at(3), 9)
            while stack and stack[-1][0] >= rank:
                stack.pop()
            parent = stack[-1][1] if stack else 0
            parents.add(parent)
            stack.append((rank, len(levels) + 1))
            levels.append((index, len(levels) + 1, parent))
    for index, number, parent in levels:
        code = segments[index].at(3)
        child = "1" if number in parents else "0"
        result[index] = make_segment("HL", str(number), str(parent or ""), code, child)
    return result


def clean(text: object, size: int, extended: bool = False) -> str:
    """Text for an AN element: upper case of the basic set, or `extended` as it is; no separators; cut to size."""
    plain = str(text or "")
    if not extended:
        plain = plain.upper()
    if len(plain) <= size and _PLAIN.fullmatch(plain):
        return plain
    allowed = _EXTENDED if extended else _BASIC
    letters = (each if each in allowed else " " for each in list_letters(plain))
    return " ".join("".join(letters).split())[:size].strip()


def write_decimal(number: Decimal) -> str:
    """A number of type R: no exponent, no needless zeros, a leading zero only before the point."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
