"""HL7 v2 messages in vertical-bar encoding, read and written without loss.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, sections 2.5 to 2.7. A segment keeps the text of its fields; a field is
split and unescaped when it is asked for. Versions 2.2 to 2.8 are written alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mappers.hl7v2.escapes import CONTROL, Delimiters, escape_text, unescape
from mappers.hl7v2.issues import Issue, Location, refuse, warn

DELETE = '""'
"""A field that holds two quotes asks for the deletion of the value; an empty field asks for no change."""

NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
HEADERS = frozenset({"MSH", "BHS", "FHS"})
LINE_ENDS = re.compile(r"\r\n|\r|\n")
MARKS = "\ufeff\x0b"
USUAL = Delimiters()
LONGEST_REMEMBERED = 1000
"""Characters of a field that is split once only."""


class Composite(NamedTuple):
    """One repetition of a field, or one component of it: parts counted from 1, each a list of sub-components."""

    parts: tuple[tuple[str, ...], ...]

    def text(self, number: int = 1) -> str:
        """The first sub-component of a part, trimmed: "" where there is none, and where it is to be deleted."""
        value = self.parts[number - 1][0].strip() if len(self.parts) >= number else ""
        return "" if value == DELETE else value

    def part(self, number: int) -> Composite:
        """A part as a composite of its own: its sub-components become parts."""
        if len(self.parts) < number:
            return NOTHING
        return Composite(tuple((each,) for each in self.parts[number - 1]))

    def __bool__(self) -> bool:
        return any(value and value != DELETE for part in self.parts for value in part)


NOTHING = Composite(())


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment with the text of its fields as received; `sequence` counts the segments of this name from 1."""

    name: str
    values: tuple[str, ...]
    sequence: int = 1
    delimiters: Delimiters = USUAL
    _read: dict[int, tuple[Composite, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The repetitions of fields that were asked for, long ones aside."""

    def raw(self, number: int) -> str:
        """A field as it is written, "" where it is absent. MSH-1 is the field separator itself."""
        if self.name in HEADERS:
            if number == 1:
                return self.delimiters.field
            number -= 1
        return self.values[number - 1] if 0 < number <= len(self.values) else ""

    def repetitions(self, number: int) -> tuple[Composite, ...]:
        """The repetitions of a field; a repetition without any value is left out."""
        if (known := self._read.get(number)) is not None:
            return known
        raw = self.raw(number)
        if not raw:
            return ()
        mark = self.delimiters.repetition
        pieces = raw.split(mark) if mark and mark in raw else (raw,)
        read = tuple(read_composite(piece, self.delimiters) for piece in pieces if piece)
        if len(raw) <= LONGEST_REMEMBERED:
            self._read[number] = read
        return read

    def first(self, number: int) -> Composite:
        """The first repetition of a field."""
        found = self.repetitions(number)
        return found[0] if found else NOTHING

    def text(self, number: int, component: int = 1) -> str:
        """A component of the first repetition of a field, unescaped."""
        return self.first(number).text(component)

    def numbers(self) -> Iterator[int]:
        """The numbers of the fields that hold something."""
        shift = 1 if self.name in HEADERS else 0
        for number, value in enumerate(self.values, 1 + shift):
            if value:
                yield number

    def place(self, number: int = 0, repetition: int = 0, component: int = 0) -> Location:
        """The location of a field of this segment."""
        return Location(self.name, self.sequence, number, repetition, component)


class Segments:
    """What holds segments, `segments`, in their order."""

    __slots__ = ()
    segments: Sequence[Segment]

    def all(self, name: str) -> list[Segment]:
        """The segments of a name."""
        return [segment for segment in self.segments if segment.name == name]

    def segment(self, name: str) -> Segment:
        """The first segment of a name; one without fields where there is none."""
        return next((segment for segment in self.segments if segment.name == name), Segment(name, ()))

    def holds(self, name: str) -> bool:
        """Whether there is a segment of this name."""
        return any(segment.name == name for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Message(Segments):
    """A message: its header and all its segments in their order, MSH first, and what is wrong with its text."""

    segments: tuple[Segment, ...]
    delimiters: Delimiters = USUAL
    issues: tuple[Issue, ...] = ()

    @property
    def header(self) -> Segment:
        return self.segments[0]


class Parsed(NamedTuple):
    """A message, None where the text is none, and what is wrong with the text."""

    message: Message | None
    issues: tuple[Issue, ...]


def read_composite(text: str, delimiters: Delimiters) -> Composite:
    """Splits a repetition at both levels and then unescapes."""
    escaped = bool(delimiters.escape) and delimiters.escape in text
    mark = delimiters.component
    pieces = text.split(mark) if mark and mark in text else [text]
    below = delimiters.subcomponent
    parts = []
    for piece in pieces:
        values: Sequence[str] = piece.split(below) if below and below in piece else (piece,)
        parts.append(tuple(unescape(value, delimiters)[0] for value in values) if escaped else tuple(values))
    return Composite(tuple(parts))


def parse_message(text: str) -> Parsed:
    """Reads one message; lines may end with CR, LF or both. Never raises."""
    lines = [line for line in LINE_ENDS.split(text.lstrip(MARKS).rstrip("\x1c")) if line.strip(" \t\x1c")]
    if not lines or not lines[0].startswith("MSH"):
        start = lines[0][:20] if lines else ""
        return Parsed(None, (refuse("100", f"A message begins with `MSH`; this begins with `{start}`."),))
    delimiters, fault = read_delimiters(lines[0])
    if delimiters is None:
        return Parsed(None, (refuse("102", fault, Location("MSH", 1, 2)),))
    segments, issues = [], []
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, *values = line.split(delimiters.field)
        if not NAME.fullmatch(name):
            text = (
                f"Line {number} begins with `{name[:20]}`, which is no segment name; a field must not hold line ends."
            )
            issues.append(refuse("100", text, Location("MSH")))
            continue
        counts[name] = counts.get(name, 0) + 1
        segment = Segment(name, tuple(values), counts[name], delimiters)
        if name == "MSH" and number > 1:
            issues.append(
                refuse("100", f"Line {number} is a second MSH; send each message on its own.", segment.place())
            )
        segments.append(segment)
        if found := CONTROL.search(line):
            text = f"Line {number} holds the control character U+{ord(found[0]):04X}; a message is text."
            issues.append(refuse("102", text, segment.place()))
        issues.extend(find_escape_faults(segment))
    message = Message(tuple(segments), delimiters, tuple(issues))
    return Parsed(message, message.issues)


def read_delimiters(line: str) -> tuple[Delimiters | None, str]:
    """The delimiters that a header line names, or a sentence that says what is wrong with them."""
    mark = line[3:4]
    if not mark or mark.isalnum() or mark.isspace():
        return None, f"MSH-1 must be a punctuation mark that separates fields; it is `{mark}`."
    encoding = line[4:].split(mark, 1)[0]
    if not 1 <= len(encoding) <= 5:
        return None, f"MSH-2 must hold one to five encoding characters, usually `^~\\&`; it holds `{encoding[:20]}`."
    if len({mark, *encoding}) != len(encoding) + 1 or any(each.isalnum() or each.isspace() for each in encoding):
        return None, f"MSH-1 and MSH-2 must be different punctuation marks; they are `{mark}` and `{encoding}`."
    return Delimiters(mark, *encoding), ""


def find_escape_faults(segment: Segment) -> Iterator[Issue]:
    """A warning for each field that holds an escape without end or meaning; the text stays as it is written."""
    escape = segment.delimiters.escape
    if not escape:
        return
    shift = 1 if segment.name in HEADERS else 0
    for number, value in enumerate(segment.values, 1 + shift):
        if escape not in value or (shift and number == 2):
            continue
        delimiters = segment.delimiters
        marks = delimiters.repetition + delimiters.component + delimiters.subcomponent
        for piece in re.split(f"[{re.escape(marks)}]", value) if marks else [value]:
            if fault := unescape(piece, delimiters)[1]:
                text = f"The escape sequence at `{fault[:20]}` has no end or no meaning; it is kept as written."
                yield warn("102", text, segment.place(number))
                break


def write_segment(segment: Segment) -> str:
    """A segment without its end; `parse_message` gives it back."""
    return segment.delimiters.field.join((segment.name, *segment.values))


def write_message(message: Message) -> str:
    """A message with CR after each segment."""
    return "".join(f"{write_segment(segment)}\r" for segment in message.segments)


def write_field(repetitions: Iterable[Composite], delimiters: Delimiters) -> str:
    """The text of a field: the reverse of `Segment.repetitions`."""
    return delimiters.repetition.join(
        delimiters.component.join(
            delimiters.subcomponent.join(escape_text(value, delimiters) for value in part) for part in each.parts
        )
        for each in repetitions
    )
