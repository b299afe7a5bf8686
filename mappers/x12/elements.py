"""Types, lengths and characters of elements (X12.6 §3.3, data element dictionary; codes of IK4-03)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from mappers.x12.fault import Fault, place_segment
from mappers.x12.segment import Segment
from mappers.x12.table import ElementRule, SegmentRule
from mappers.x12.tables.segments import ELEMENTS

# Basic and extended character set (X12.6 §3.3.1, §3.3.2); letters with marks are of neither
_CHARACTERS = re.compile(r"[A-Za-z0-9 !\"&'()*+,\-./:;?=%~@\[\]_{}\\|<>#$^`]*")
# Most elements are of these; nothing can be wrong in them but their length
_PLAIN = re.compile(r"[A-Z0-9 .\-]*")
_PLAIN_TYPES = frozenset({"ID", "AN"})
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_INTEGER = re.compile(r"[-+]?\d+")


def is_date(text: str) -> bool:
    """CCYYMMDD or YYMMDD of a day that exists."""
    if not (text.isascii() and text.isdigit()) or len(text) not in (6, 8):
        return False
    year, month, day = int(text[:-4] if len(text) == 8 else "20" + text[:2]), int(text[-4:-2]), int(text[-2:])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return 1 <= month <= 12 and 1 <= day <= lengths[month - 1]


def is_time(text: str) -> bool:
    """HHMM, HHMMSS or those with tenths or hundredths."""
    digits = text.isascii() and text.isdigit() and len(text) in (4, 6, 7, 8)
    return digits and int(text[:2]) < 24 and int(text[2:4]) < 60 and (len(text) < 6 or int(text[4:6]) < 60)


_CHECKS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "R": (_NUMBER.fullmatch, "6", "is no decimal number"),
    "N0": (_INTEGER.fullmatch, "6", "is no whole number"),
    "DT": (is_date, "8", "is no date CCYYMMDD that exists"),
    "TM": (is_time, "9", "is no time of day HHMM or HHMMSS"),
}


def check_elements(segment: Segment, rule: SegmentRule | None, loop: str) -> Iterator[Fault]:
    """What is wrong in the elements of a segment, by the standard's table and by the row of its loop."""
    rules = ELEMENTS.get(segment.id)
    if rules is None:
        return
    elements = segment.elements
    needs = rule.needs if rule else ()
    if _make_pattern(segment.id, needs).fullmatch("\x00".join(elements)):
        return
    for number in range(1, len(elements)):
        text = elements[number]
        if number > len(rules):
            sentence = f"{segment.id} has {len(elements) - 1} elements where the standard has {len(rules)}."
            yield Fault(sentence, place_segment(segment, loop, number), "element", "3")
            break
        if text:
            yield from _check_text(segment, number, rules[number - 1], loop)
    last = len(elements) - 1
    for number, expected in enumerate(rules, 1):
        if (expected.required or number in needs) and (number > last or not elements[number]):
            sentence = f"{segment.id}{number:02} is missing; it is required."
            yield Fault(sentence, place_segment(segment, loop, number), "element", "1")


# By X12 type, with least and most characters: texts in which nothing is wrong. Dates and times may be none.
_RIGHT: dict[str, Callable[[ElementRule], str]] = {
    "ID": lambda rule: rf"[A-Z0-9 .\-]{{{rule.min},{rule.max}}}",
    "AN": lambda rule: rf"[A-Z0-9 .\-]{{{rule.min},{rule.max}}}",
    "N0": lambda rule: f"[0-9]{{{rule.min},{rule.max}}}",
    "R": lambda rule: rf"[0-9]{{{rule.min},{max(rule.min, rule.max - 2)}}}(?:\.[0-9]{{1,2}})?",
    "C": lambda rule: r"[A-Z0-9 .\-:]+",
}


@lru_cache(maxsize=1024)
def _make_pattern(segment_id: str, needs: tuple[int, ...]) -> re.Pattern[str]:
    """A segment in which nothing is wrong, with NUL between its elements; what it does not match may be right too."""
    pattern, ends = "", True
    for number, rule in reversed(list(enumerate(ELEMENTS[segment_id], 1))):
        text = _RIGHT[rule.type](rule) if rule.type in _RIGHT else "(?!)"
        needed = rule.required or number in needs
        # a segment ends after the last element that it has, so that what follows is optional together
        pattern = f"\x00{text if needed else f'(?:{text})?'}{pattern}"
        ends = ends and not needed
        pattern = f"(?:{pattern})?" if ends else pattern
    return re.compile(segment_id + pattern)


def _check_text(segment: Segment, number: int, rule: ElementRule, loop: str) -> Iterator[Fault]:
    text = segment.elements[number]
    if _PLAIN.fullmatch(text) and rule.min <= len(text) <= rule.max and rule.type in _PLAIN_TYPES:
        return
    name, place = f"{segment.id}{number:02}", place_segment(segment, loop, number)
    if not _CHARACTERS.fullmatch(text):
        sentence = f"{name} has characters that are in neither the basic nor the extended character set."
        yield Fault(sentence, place, "element", "6", value=text)
    if rule.type == "C":
        return
    for part in segment.repeats(number):
        size = len(part.lstrip("+-").replace(".", "")) if rule.type in ("R", "N0") else len(part)
        if size > rule.max:
            sentence = f"{name} has {size} characters; at most {rule.max} are allowed."
            yield Fault(sentence, place, "element", "5", value=part)
        elif size < rule.min:
            sentence = f"{name} `{part}` has {size} characters; at least {rule.min} are needed."
            yield Fault(sentence, place, "element", "4", value=part)
        elif rule.type in _CHECKS and not _CHECKS[rule.type][0](part):
            _, code, says = _CHECKS[rule.type]
            yield Fault(f"{name} `{part}` {says}.", place, "element", code, value=part)
