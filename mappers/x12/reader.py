"""Segments into loops, by the table of their set; what fits nowhere stays where it stood, with a fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mappers.x12.elements import check_elements
from mappers.x12.envelope import TransactionSet
from mappers.x12.fault import Fault, Place, place_segment
from mappers.x12.loop import Loop
from mappers.x12.segment import Segment
from mappers.x12.table import ROOT, LoopPlace, LoopRule, SegmentRule, Table, get_segment_rule
from mappers.x12.tables import find_table
from mappers.x12.tables.segments import ELEMENTS

FAULTS = 500
"""No more faults than these are listed of one set; one sentence says that there are more."""

Member = SegmentRule | LoopPlace


@dataclass(frozen=True, slots=True)
class Loops:
    """A transaction set as loops from ST to SE, and what is wrong in it."""

    table: Table
    root: Loop
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Frame:
    """A loop that is being read: how far its rows are used up, and how often each was."""

    rule: LoopRule
    loop: Loop
    position: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    each: dict[tuple[int, str], int] = field(default_factory=dict)


def read_set(received: TransactionSet) -> Loops | None:
    """The loops of a set, its envelope's faults first; None where there is no table for it or it was refused."""
    table = find_table(received.code, received.version)
    if table is None or received.refused:
        return None
    loops = read_loops(received.iterate_segments(), table)
    return Loops(table, loops.root, received.faults + loops.faults)


def explain_unread(received: TransactionSet) -> Fault:
    """Why `read_set` gives none: the sentence for a set without a table."""
    sentence = f"Transaction set {received.code or '(none)'} of guide `{received.version}` is not known here."
    return Fault(sentence, place_segment(received.st), "set", "1" if received.code else "6")


def read_loops(segments: Iterable[Segment], table: Table) -> Loops:
    """The loops that the table makes of the segments. Never raises; linear in the number of segments."""
    root = Loop(ROOT)
    frames = [_Frame(table.root, root)]
    faults: list[Fault] = []
    segment = None
    for segment in segments:
        _place(frames, segment, faults)
        if len(faults) > FAULTS:
            del faults[FAULTS + 1 :]
    while frames:
        _close(frames.pop(), segment, faults)
    if len(faults) > FAULTS:
        faults[FAULTS:] = [Fault(f"There are more than {FAULTS} faults; no more are listed.", level="set", code="5")]
    return Loops(table, root, tuple(faults))


def _place(frames: list[_Frame], segment: Segment, faults: list[Fault]) -> None:
    """Put a segment into the innermost loop that has a row for it, else, with a fault, where it stands."""
    for strict in (True, False):
        for depth in range(len(frames) - 1, -1, -1):
            member = find_member(frames[depth].rule, segment, frames[depth].position, strict)
            if member is None:
                continue
            while len(frames) > depth + 1:
                _close(frames.pop(), segment, faults)
            _accept(frames, segment, member, faults)
            if not strict:
                faults.append(_unknown_qualifier(segment, get_segment_rule(member)))
            return
    frame = frames[-1]
    frame.loop.content.append(segment)
    if segment.id in ELEMENTS:
        text = f"Segment {segment.id} is not expected here, in loop {frame.loop.id}."
        faults.append(Fault(text, place_segment(segment, frame.loop.id), "segment", "2"))
    else:
        text = f"`{segment.id[:10]}` is no segment of this transaction set."
        faults.append(Fault(text, place_segment(segment, frame.loop.id), "segment", "1"))


def find_member(rule: LoopRule, segment: Segment, position: int, strict: bool = True) -> Member | None:
    """The row for a segment at or after a position of a loop; not `strict`: also one of another qualifier."""
    for member in rule.by_id.get(segment.id, ()):
        row = get_segment_rule(member)
        if member.position < position:
            continue
        if not row.codes or segment.at(row.element, row.component) in row.codes:
            return member
        if not strict and not isinstance(member, LoopPlace) and row.component == 0:
            return member
    return None


def _unknown_qualifier(segment: Segment, row: SegmentRule) -> Fault:
    value = segment.at(row.element)
    codes = ", ".join(sorted(row.codes))
    sentence = f"{segment.id}{row.element:02} `{value}` is none of those allowed here: {codes}."
    return Fault(sentence, place_segment(segment, row.loop, row.element), "element", "7", value=value)


def _accept(frames: list[_Frame], segment: Segment, member: Member, faults: list[Fault]) -> None:
    frame = frames[-1]
    frame.position = member.position
    row = get_segment_rule(member)
    _count(frame, segment, member, row, faults)
    if isinstance(member, LoopPlace):
        inner = frame.loop.open(member.rule.id)
        frame = _Frame(member.rule, inner)
        frames.append(frame)
    frame.loop.content.append(segment)
    faults.extend(check_elements(segment, row, frame.loop.id))


def _count(frame: _Frame, segment: Segment, member: Member, row: SegmentRule, faults: list[Fault]) -> None:
    key = id(member)
    count = frame.counts[key] = frame.counts.get(key, 0) + 1
    if isinstance(member, LoopPlace):
        if count == member.max + 1:
            text = f"Loop {member.rule.id} stands more than {member.max} times in loop {frame.loop.id}."
            faults.append(Fault(text, place_segment(segment, member.rule.id), "segment", "4"))
        return
    if row.each:
        qualifier = (key, segment.at(row.element))
        count = frame.each[qualifier] = frame.each.get(qualifier, 0) + 1
    if count == row.max + 1:
        text = f"Segment {segment.id} stands more than {row.max} times in loop {frame.loop.id}."
        faults.append(Fault(text, place_segment(segment, frame.loop.id), "segment", "5"))


def _close(frame: _Frame, at: Segment | None, faults: list[Fault]) -> None:
    """Tell what a loop that ends should have had."""
    segment = at or Segment(("",))
    for row in frame.rule.segments if frame.rule.id == ROOT else frame.rule.segments[1:]:
        if row.required and id(row) not in frame.counts:
            qualifier = f" with {'/'.join(sorted(row.codes))}" if row.codes else ""
            text = f"Loop {frame.loop.id} ends without its segment {row.id}{qualifier}, which is required."
            faults.append(Fault(text, _before(segment, frame.loop.id, row.id), "segment", "3"))
    for place in frame.rule.loops:
        if place.required and id(place) not in frame.counts:
            text = f"Loop {frame.loop.id} ends without loop {place.rule.id} ({place.rule.name}), which is required."
            faults.append(Fault(text, _before(segment, place.rule.id, place.rule.trigger.id), "segment", "I7"))


def _before(segment: Segment, loop: str, missing: str) -> Place:
    """The place of the segment at which it was noticed that another one is missing."""
    return replace(place_segment(segment, loop), segment=missing)
