"""A received file as interchanges, groups and transaction sets, each with what is wrong with its envelope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mappers.x12.envelope import (
    FileTooLong,
    GroupEnd,
    InterchangeAcknowledgement,
    InterchangeEnd,
    TransactionSet,
    Unreadable,
    read_interchanges,
)
from mappers.x12.fault import Fault
from mappers.x12.segment import Segment, make_segment, render_segment
from mappers.x12.tokenizer import Source

SEGMENTS = 2_000_000
"""Segments of a file that is held whole; more than a file of 64 MB has when they are of the usual length."""

_STRAY = "022"


@dataclass(frozen=True, slots=True)
class ReceivedGroup:
    """GS to GE."""

    end: GroupEnd
    sets: tuple[TransactionSet, ...]


@dataclass(frozen=True, slots=True)
class ReceivedInterchange:
    """ISA to IEA; `answers` are its TA1."""

    end: InterchangeEnd
    groups: tuple[ReceivedGroup, ...]
    answers: tuple[Segment, ...]

    @property
    def isa(self) -> Segment:
        return self.end.interchange.isa


@dataclass(slots=True)
class ReceivedFile:
    """What a file holds; `outside`: faults of bytes that are in no interchange. `complete` False: it held too much."""

    interchanges: list[ReceivedInterchange] = field(default_factory=list)
    outside: list[Fault] = field(default_factory=list)
    complete: bool = True


@dataclass(slots=True)
class _Current:
    """The interchange that is being read."""

    sets: list[TransactionSet] = field(default_factory=list)
    groups: list[ReceivedGroup] = field(default_factory=list)
    answers: list[Segment] = field(default_factory=list)
    stray: list[Fault] = field(default_factory=list)


def collect_interchanges(source: Source, most: int, most_segments: int = SEGMENTS) -> ReceivedFile:
    """All of a file, which memory holds; at most so many interchanges, groups and sets together. Never raises."""
    found = ReceivedFile()
    try:
        _collect(found, source, most, most_segments)
    except FileTooLong:
        found.complete = False
    return found


def _collect(found: ReceivedFile, source: Source, most: int, most_segments: int) -> None:
    current = _Current()
    for count, event in enumerate(read_interchanges(source, most_segments), 1):
        if count > most:
            raise FileTooLong
        match event:
            case TransactionSet():
                current.sets.append(event)
            case GroupEnd():
                current.groups.append(ReceivedGroup(event, tuple(current.sets)))
                current.sets = []
            case InterchangeAcknowledgement():
                current.answers.append(event.ta1)
            case Unreadable():
                (current.stray if event.fault.code == _STRAY else found.outside).append(event.fault)
            case InterchangeEnd():
                found.interchanges.append(_end_interchange(event, current))
                current = _Current()


def _end_interchange(end: InterchangeEnd, current: _Current) -> ReceivedInterchange:
    """A segment that stands in no set breaks its interchange (TA1-05 022: invalid control structure)."""
    end = replace(end, faults=(*end.faults, *current.stray))
    return ReceivedInterchange(end, tuple(current.groups), tuple(current.answers))


def wrap_set(received: TransactionSet, raw: bytes) -> bytes:
    """A set with its ISA and GS around it, as an interchange of its own; `raw` is its text from ST to SE."""
    group = received.group
    number, group_number = received.interchange.control_number, group.control_number
    tail = (make_segment("GE", "1", group_number), make_segment("IEA", "1", number))
    return _wrap(received.interchange.isa, (group.gs,), raw, tail)


def wrap_answer(interchange: ReceivedInterchange, ta1: Segment) -> bytes:
    """A TA1 with its ISA around it."""
    number = interchange.end.interchange.control_number
    return _wrap(interchange.isa, (ta1,), b"", (make_segment("IEA", "0", number),))


def _wrap(isa: Segment, head: Sequence[Segment], raw: bytes, tail: Sequence[Segment]) -> bytes:
    delimiters = isa.delimiters
    before = "".join(render_segment(each, delimiters) for each in (isa, *head))
    after = "".join(render_segment(each, delimiters) for each in tail)
    newline = delimiters.newline if raw else ""
    return before.encode("latin-1", "replace") + raw + (newline + after).encode("latin-1", "replace")


def cut_set(text: bytes, received: TransactionSet) -> bytes:
    """The text of a set that was too large to be kept while it was read, from the file that it is in."""
    terminator = received.interchange.delimiters.terminator.encode("latin-1")
    part = text[received.offset : received.offset + received.size]
    return part[: part.rfind(terminator) + 1] or part
