"""TQ1, and TQ before it, become Dosage and its Timing; a repeat pattern (HL70335) is a row of `tables/timings.tsv`.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html (RPT, TQ), https://hl7.org/fhir/R4/datatypes.html#Timing
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell, Context, Primitive
from mappers.hl7v2.datatypes.codes import cwe_to_codeable_concept
from mappers.hl7v2.datatypes.quantities import read_number, read_unit
from mappers.hl7v2.datatypes.times import tm_to_time
from mappers.hl7v2.er7 import USUAL, Composite, Segment, write_field
from mappers.hl7v2.rows import Draft, fill
from mappers.hl7v2.tables import read_table
from mappers.hl7v2.vocabulary import TERMINOLOGY

UNITS = {"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk", "L": "mo"}
"""Units of `Q<integer>X` and of TQ.3, as UCUM has them; L is a month."""

EVERY = re.compile(r"Q([1-9]\d{0,3})([SMHDWL])", re.ASCII)
DAILY = re.compile(r"([1-9]\d?)ID", re.ASCII)
DURATION = re.compile(r"([SMHDWL])(\d{1,4})", re.ASCII)
WHENS = frozenset({"MORN", "AFT", "EVE", "NIGHT", "PHS", "HS", "WAKE"}) | {
    f"{order}{meal}" for order in ("", "A", "P") for meal in ("C", "CM", "CD", "CV")
}
"""https://hl7.org/fhir/R4/valueset-event-timing.html"""

PATTERNS = f"{TERMINOLOGY}v2-0335"


@cache
def read_patterns() -> dict[str, tuple[str, Resource]]:
    """By code of HL70335: the system in which FHIR has it, and what it means as Timing.repeat."""
    found: dict[str, tuple[str, Resource]] = {}
    for code, system, frequency, period, unit, when, count in read_table("timings.tsv"):
        repeat: Resource = {"count": int(count)} if count else {}
        if frequency:
            repeat |= {"frequency": int(frequency), "period": int(period), "periodUnit": unit}
        found[code] = (system, repeat | ({"when": [when]} if when else {}))
    return found


def read_pattern(code: str) -> tuple[str, Resource] | None:
    """The system and the meaning of a repeat pattern code, None where it is not known."""
    if known := read_patterns().get(code.upper()):
        return known[0], dict(known[1])
    if every := EVERY.fullmatch(code.upper()):
        return PATTERNS, {"frequency": 1, "period": int(every[1]), "periodUnit": UNITS[every[2]]}
    if daily := DAILY.fullmatch(code.upper()):
        return PATTERNS, {"frequency": int(daily[1]), "period": 1, "periodUnit": "d"}
    return None


def tq1_to_dosage(segment: Segment, context: Context) -> Resource:
    """What a TQ1 says of a Dosage."""
    draft = Draft({})
    fill(draft, segment, "Dosage", context)
    dosage = draft.resource
    if segment.text(6) and (segment.raw(7) or segment.raw(8)):
        text = "TQ1-6 is kept with the message: start or end of the order are told beside it."
        context.tell(text, segment.place(6))
    for number, pattern in enumerate(segment.repetitions(3), 1):
        _add_pattern(dosage, pattern, Cell(context, segment.place(3, number, 1)))
    if times := [tm_to_time(each, Cell(context, segment.place(4, 1))) for each in segment.repetitions(4)]:
        _add_times(dosage, times, segment, context)
    return dosage


def _add_pattern(dosage: Resource, pattern: Composite, cell: Cell) -> None:
    """A repetition of TQ1-3: `PRN` is as needed; of several others the first is the timing."""
    code = pattern.text(1)
    if code.upper().startswith("PRN"):
        dosage["asNeededBoolean"] = True
        code = code[3:]
        if not code:
            return
        pattern = Composite(((code,), *pattern.parts[1:]))
    timing: Resource = dosage.setdefault("timing", {})
    if "code" in timing:
        text = "One repeat pattern of a TQ1 is mapped beside PRN; the others are kept with the message."
        cell.context.tell(text, cell.location)
        return
    repeat = _read_repeat(pattern)
    known = read_pattern(code)
    if concept := cwe_to_codeable_concept(pattern.part(1), cell):
        codings = concept.get("coding", [{}])
        if known and "system" not in codings[0]:
            codings[0] |= {"system": known[0], "code": code.upper()}
        timing["code"] = concept
    if known:
        repeat = {**known[1], **repeat}
    if repeat:
        timing["repeat"] = {**timing.get("repeat", {}), **repeat}
    if not timing:
        dosage.pop("timing")


def _read_repeat(pattern: Composite) -> Resource:
    """Period, unit and event of an RPT (.5, .6 and .8), where FHIR has them."""
    repeat: Resource = {}
    period, unit = read_number(pattern.text(5)), read_unit(pattern.text(6))
    if period and unit:
        repeat |= {"frequency": 1, "period": period, "periodUnit": unit}
    if pattern.text(8) in WHENS:
        repeat["when"] = [pattern.text(8)]
    return repeat


def _add_times(dosage: Resource, times: list[Any], segment: Segment, context: Context) -> None:
    """Times of day, which R4 has not beside an event (tim-10)."""
    values = [each.value if isinstance(each, Primitive) else each for each in times]
    repeat: Resource = dosage.setdefault("timing", {}).setdefault("repeat", {})
    if "when" in repeat:
        text = "TQ1-4 is kept with the message: the pattern of TQ1-3 names an event."
        context.warn("102", text, segment.place(4))
    elif any(values):
        repeat["timeOfDay"] = [each for each in values if each]
    for name, holder in (("repeat", dosage["timing"]), ("timing", dosage)):
        if not holder[name]:
            holder.pop(name)


def tq_to_tq1(segment: Segment, number: int) -> list[Segment]:
    """The TQ of a field as segments TQ1, one for each repetition: RXE-1 and ORC-7, as they were before 2.5."""
    found = []
    for count, value in enumerate(segment.repetitions(number), 1):
        fields: dict[int, list[Composite]] = {
            2: [Composite((value.parts[0][:1], value.parts[0][1:2] or ("",)))],
            3: [Composite(((value.part(2).text(1),),))],
            4: [Composite(((each,),)) for each in value.part(2).text(2).split(",")],
            **{to: [Composite(((value.text(place),),))] for place, to in ((4, 7), (5, 8), (6, 9), (7, 10), (8, 11))},
            14: [Composite(((value.text(12),),))],
        }
        if lasts := DURATION.fullmatch(value.text(3).upper()):
            fields[6] = [Composite(((lasts[2],), (UNITS[lasts[1]],)))]
        texts = (write_field([each for each in fields.get(place, []) if each], USUAL) for place in range(1, 15))
        found.append(Segment("TQ1", tuple(texts), count))
    return [each for each in found if any(each.values)]
