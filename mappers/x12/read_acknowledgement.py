"""TA1 and 999 read for what we sent: statuses, faults, and the claims that a fault concerns (005010X231A1)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from mappers.x12.fault import Fault, Level, Place
from mappers.x12.loop import Loop
from mappers.x12.reader import Loops
from mappers.x12.segment import Segment

# In words of our own; the code lists are X12's (I18, 620, 621, 716, 715)
_SEGMENT_CODES = {
    "1": "is not known", "2": "was not expected", "3": "is missing", "4": "begins a loop too often",
    "5": "stands too often", "6": "does not belong to the transaction set",
    "7": "is out of order", "8": "has faulty elements",
    "I4": "is not used by the guide", "I6": "is missing though the guide asks for it",
    "I7": "is missing: its loop is required",
    "I8": "begins a loop too often for the guide", "I9": "stands too often for the guide",
}  # fmt: skip
_ELEMENT_CODES = {
    "1": "is missing", "2": "is missing though another element asks for it", "3": "is one too many",
    "4": "is too short",
    "5": "is too long", "6": "has a character that is not allowed", "7": "has a code that is not allowed",
    "8": "is no valid date", "9": "is no valid time", "10": "excludes another element", "12": "is repeated too often",
    "13": "has too many components", "I6": "has a code that the guide does not use",
    "I9": "is missing though the guide asks for it",
    "I10": "is not used by the guide",
    "I12": "does not match a pattern of the guide", "I13": "has a value that the guide excludes",
}  # fmt: skip
_STATUSES = {"A": "accepted", "E": "accepted with errors", "M": "rejected: authentication", "P": "partly accepted",
             "R": "rejected", "W": "rejected: assurance", "X": "rejected: decryption"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class InterchangeAnswer:
    """TA1: the interchange answered (ISA13, date and time), A, E or R, and the note code."""

    control_number: str
    date: str
    time: str
    status: str
    code: str

    @property
    def accepted(self) -> bool:
        return self.status in ("A", "E")


@dataclass(frozen=True, slots=True)
class SetAnswer:
    """Loop 2000 of a 999: the set by ST01 and ST02, IK501, IK502–06, and the faults with their places in the set."""

    code: str
    control_number: str
    status: str
    codes: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def accepted(self) -> bool:
        return self.status in ("A", "E")


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """A 999: the group answered by GS01, GS06 and GS08, AK901 and AK905–09, and its sets (none: AK9 speaks of all)."""

    group_code: str
    control_number: str
    version: str
    status: str
    codes: tuple[str, ...]
    sets: tuple[SetAnswer, ...]

    @property
    def accepted(self) -> bool:
        return self.status in ("A", "E")


def ta1_to_answer(ta1: Segment) -> InterchangeAnswer:
    """A TA1 segment as the answer that it is."""
    return InterchangeAnswer(ta1.at(1), ta1.at(2), ta1.at(3), ta1.at(4), ta1.at(5))


def read_999(loops: Loops) -> GroupAnswer:
    """The answer that a 999 gives to a group."""
    ak1, ak9 = loops.root.segment("AK1"), loops.root.loop("AK9").segment("AK9")
    sets = tuple(_read_set_answer(loop) for loop in loops.root.loops("2000"))
    return GroupAnswer(ak1.at(1), ak1.at(2), ak1.at(3), ak9.at(1), tuple(filter(None, ak9.elements[5:])), sets)


def describe_status(status: str) -> str:
    """IK501, AK901 or TA104 in words."""
    return _STATUSES.get(status, f"answered by `{status}`, which is no known status")


def _read_set_answer(loop: Loop) -> SetAnswer:
    ak2, ik5 = loop.segment("AK2"), loop.segment("IK5")
    faults = tuple(fault for inner in loop.loops("2100") for fault in _read_faults(inner))
    return SetAnswer(ak2.at(1), ak2.at(2), ik5.at(1), tuple(filter(None, ik5.elements[2:])), faults)


def _read_faults(loop: Loop) -> Iterator[Fault]:
    ik3 = loop.segment("IK3")
    inner = loop.loops("2110")
    segment, code = ik3.at(1), ik3.at(4)
    index = _to_number(ik3.at(2))
    place = Place(index=index, loop=ik3.at(3), segment=segment)
    if not inner:
        yield _make_fault(f"Segment {segment}", _SEGMENT_CODES, code, place, "segment")
    for each in inner:
        ik4 = each.segment("IK4")
        element, component, repetition = (_to_number(ik4.at(1, n)) for n in (1, 2, 3))
        exact = Place(0, index, -1, place.loop, segment, element, component, repetition)
        name = f"{segment}{element:02}" + (f"-{component}" if component else "")
        yield _make_fault(name, _ELEMENT_CODES, ik4.at(3), exact, "element", ik4.at(4))


def _make_fault(name: str, words: dict[str, str], code: str, place: Place, level: Level, value: str = "") -> Fault:
    says = words.get(code, "is faulty")
    value_text = f" `{value}`" if value else ""
    loop = f" in loop {place.loop}" if place.loop else ""
    return Fault(f"{name}{value_text}{loop} {says} (code {code}).", place, level, code, value=value)


def _to_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def find_claims_at(sent: Loops, index: int) -> tuple[str, ...]:
    """The CLM01 of the claims that segment `index` of a set we sent belongs to.

    That of its claim; for a segment of a billing provider, subscriber or patient those of all claims below it; all
    claims of the set for its head.
    """
    loop = sent.root
    while loop.id != "2300":
        inner = _find_inner(loop, index)
        # A name loop stands for its level: 2010BA means the claims of its 2000B
        if inner is None or inner.id.startswith(("1000", "2010", "SE")):
            break
        loop = inner
    claims = [loop] if loop.id == "2300" else list(loop.find_loops("2300"))
    return tuple(claim.segment("CLM").at(1) for claim in claims)


def _find_inner(loop: Loop, index: int) -> Loop | None:
    """The inner loop that segment `index` is in, found by halving, since a set may have thousands."""
    place = bisect_right(loop.content, index, key=_get_ordinal) - 1
    candidate = loop.content[place] if place >= 0 else None
    return candidate if isinstance(candidate, Loop) else None


def _get_ordinal(content: Segment | Loop) -> int:
    while isinstance(content, Loop):
        content = content.content[0]
    return content.ordinal
