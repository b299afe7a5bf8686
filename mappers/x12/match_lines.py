"""Which line of a Claim each line of a remittance speaks of (x12.md, deciding rules: matching)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from mappers.x12.fault import Fault, place_segment
from mappers.x12.item_to_2400 import Line, find_lines
from mappers.x12.partner import ClaimSource, Mapping837, Partner, Party
from mappers.x12.remittance import RemittanceClaim, RemittanceLine
from mappers.x12.resource import Resource, get_day, get_object, get_text
from mappers.x12.writer import Envelope

_NOBODY = Partner(Envelope("", ""), Party("", ""), Party("", ""))


@dataclass(frozen=True, slots=True)
class LineMatches:
    """`sequences`: place of a remittance line from 0 to `Claim.item.sequence`; what fits none is in `faults`."""

    sequences: Mapping[int, int]
    faults: tuple[Fault, ...]


def match_lines(remitted: RemittanceClaim, claim: Resource) -> LineMatches:
    """By control number; else code, modifiers, date and charge; else code, date and charge if just one fits (told)."""
    lines = find_lines(Mapping837(ClaimSource(claim, {}), _NOBODY))
    sequences: dict[int, int] = {}
    faults: list[Fault] = []
    by_number = {line.control_number: line for line in lines}
    rest = []
    for place, paid_line in enumerate(remitted.lines):
        line = by_number.get(paid_line.control_number) if paid_line.control_number else None
        if line is None:
            rest.append(place)
        else:
            sequences[place] = line.sequence
    matches = set(sequences.values())
    for place in rest:
        paid_line = remitted.lines[place]
        free = [line for line in lines if line.sequence not in matches]
        exact = _select(free, paid_line, _has_modifiers)
        loose = exact or _select(free, paid_line, lambda line, modifiers: True)
        where = place_segment(paid_line.segment, "2110", 1)
        if exact or len(loose) == 1:
            sequences[place] = loose[0].sequence
            matches.add(loose[0].sequence)
        if not exact and len(loose) == 1:
            sentence = f"Line {place + 1} was matched by code, date and charge alone; its modifiers differ."
            faults.append(Fault(sentence, where, "element", "7", "warning"))
        elif not loose or (not exact and len(loose) > 1):
            sentence = f"Line {place + 1} of claim `{remitted.control_number}` fits no line of the claim that was sent."
            faults.append(Fault(sentence, where, "element", "7"))
    return LineMatches(sequences, tuple(faults))


def _has_modifiers(line: Line, modifiers: tuple[str, ...]) -> bool:
    return sorted(line.modifiers) == sorted(modifiers)


def _select(lines: list[Line], paid_line: RemittanceLine, fits: Callable[[Line, tuple[str, ...]], bool]) -> list[Line]:
    """Lines of the code that was sent (SVC06, else SVC01), the date where the remittance has one, and the charge."""
    procedure = paid_line.original or paid_line.procedure
    code, modifiers = (procedure[1] if len(procedure) > 1 else ""), tuple(filter(None, procedure[2:6]))
    return [
        line
        for line in lines
        if line.procedure == code and _equal_day(line, paid_line.start) and line.charge == Decimal(paid_line.charge)
        if fits(line, modifiers)
    ]


def _equal_day(line: Line, day: date | None) -> bool:
    own = get_text(line.item, "servicedDate") or get_text(get_object(line.item, "servicedPeriod"), "start")
    return day is None or get_day(own) == day


def is_candidate(echoed: str, control_number: str) -> bool:
    """Whether an echoed control number was cut by the payer: a candidate for a person, never a match (traps.md B18)."""
    return len(echoed) >= 6 and echoed != control_number and control_number.startswith(echoed)
