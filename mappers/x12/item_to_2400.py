"""Claim.item to loop 2400: service, dates, control number, drug and the line's own providers (005010X222A1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from mappers.x12 import codes
from mappers.x12.loop import Loop
from mappers.x12.parties import Provider, provider_to_name, write_date
from mappers.x12.partner import Mapping837
from mappers.x12.resource import (
    Resource,
    find_code,
    find_codes,
    find_extension,
    get_day,
    get_decimal,
    get_list,
    get_object,
    get_text,
)
from mappers.x12.writer import clean, write_decimal

LINES = 50
POINTERS = 4
MODIFIERS = 4
_CONTROL_NUMBER = re.compile(r"[A-Z0-9]{1,30}")
_LINE_LOOPS = {"82": "2420A", "DQ": "2420D", "DK": "2420E", "DN": "2420F"}


class Line(NamedTuple):
    """A line: its item, place in `Claim.item`, procedure, modifiers, charge, units and control number (REF*6R)."""

    item: Resource
    place: int
    procedure: str
    modifiers: tuple[str, ...]
    charge: Decimal
    units: Decimal
    place_of_service: str
    control_number: str

    @property
    def sequence(self) -> int:
        """`Claim.item.sequence`, by which a ClaimResponse names the line."""
        return int(get_decimal(self.item, "sequence") or self.place + 1)


def find_lines(mapping: Mapping837) -> list[Line]:
    """The lines of the claim, with what is missing told."""
    items = get_list(mapping.claim, "item")
    own = [get_text(item, "id") for item in items]
    usable = len(set(own)) == len(own) and all(_CONTROL_NUMBER.fullmatch(each) for each in own)
    first = next((get_text(each, "value") for each in get_list(mapping.claim, "identifier")), "")
    lines = []
    for place, item in enumerate(items):
        sequence = get_text(item, "sequence") or str(place + 1)
        number = own[place] if usable else clean(f"{first}L{sequence}", 30)
        lines.append(_item_to_line(mapping, item, place, number))
    if not lines:
        mapping.tell("The claim has no line.", "Claim.item", "2400/LX/1")
    if len(lines) > LINES:
        sentence = f"The claim has {len(lines)} lines; {LINES} are possible. Split it."
        mapping.tell(sentence, "Claim.item", "2400/LX/1")
    return lines


def _item_to_line(mapping: Mapping837, item: Resource, place: int, number: str) -> Line:
    expression = f"Claim.item[{place}]"
    concept = item.get("productOrService")
    procedure = find_code(concept, *codes.PROCEDURES)
    if not procedure:
        sentence = f"`{expression}.productOrService` has no CPT or HCPCS code."
        mapping.tell(sentence, f"{expression}.productOrService", "2400/SV1/1")
    quantity = get_decimal(get_object(item, "quantity"))
    units = Decimal(1) if quantity is None else quantity
    net, price = get_decimal(get_object(item, "net")), get_decimal(get_object(item, "unitPrice"))
    if net is None and price is None:
        mapping.tell(f"`{expression}` has neither `net` nor `unitPrice`.", f"{expression}.net", "2400/SV1/2")
    factor = get_decimal(item, "factor")
    charge = net if net is not None else (price or Decimal(0)) * units * (Decimal(1) if factor is None else factor)
    modifiers = tuple(clean(code, 2) for code in find_codes(get_list(item, "modifier")))
    if len(modifiers) > MODIFIERS:
        sentence = f"`{expression}` has {len(modifiers)} modifiers; {MODIFIERS} are possible."
        mapping.tell(sentence, f"{expression}.modifier", "2400/SV1/1")
    where = clean(find_code(item.get("locationCodeableConcept"), codes.POS), 2)
    return Line(item, place, clean(procedure, 48), modifiers[:MODIFIERS], charge, units, where, number)


def write_procedure(line: Line, description: str = "") -> tuple[str, ...]:
    """The composite procedure identifier of SV101 and SVD03."""
    padding = ("",) * (MODIFIERS - len(line.modifiers))
    return ("HC", line.procedure, *line.modifiers, *padding, description)


def item_to_2400(
    mapping: Mapping837,
    line: Line,
    number: int,
    place_of_service: str,
    team: Sequence[tuple[Decimal, str, Provider]],
) -> Loop:
    """A line; `place_of_service` is the claim's, `team` its care team."""
    item, loop, expression = line.item, Loop("2400"), f"Claim.item[{line.place}]"
    loop.add("LX", str(number))
    _add_sv1(mapping, loop, line, place_of_service)
    period = get_object(item, "servicedPeriod")
    start = get_day(get_text(item, "servicedDate") or get_text(period, "start"))
    end = get_day(get_text(period, "end"))
    if start is None:
        mapping.tell(f"`{expression}` has no date of service.", f"{expression}.servicedDate", "2400/DTP/3")
    elif end and end != start:
        loop.add("DTP", "472", "RD8", f"{write_date(start)}-{write_date(end)}")
    else:
        loop.add("DTP", "472", "D8", write_date(start))
    loop.add("REF", "6R", line.control_number)
    if authorization := find_extension(item, codes.AUTHORIZATION):
        loop.add("REF", "G1", clean(authorization, 50))
    _add_drug(mapping, loop, line)
    _add_line_team(mapping, loop, item, team)
    return loop


def _add_sv1(mapping: Mapping837, loop: Loop, line: Line, place_of_service: str) -> None:
    item, expression = line.item, f"Claim.item[{line.place}]"
    concept = item.get("productOrService")
    description = clean(get_text(concept, "text"), 80) if line.procedure in mapping.partner.described else ""
    if line.procedure in mapping.partner.described and not description:
        sentence = f"`{line.procedure}` needs a description, in `productOrService.text`."
        mapping.tell(sentence, f"{expression}.productOrService.text", "2400/SV1/1")
    quantity = get_object(item, "quantity")
    minutes = get_text(quantity, "code") or get_text(quantity, "unit")
    programs = find_codes(get_list(item, "programCode"))
    own_place = line.place_of_service if line.place_of_service != place_of_service else ""
    loop.add(
        "SV1",
        write_procedure(line, description),
        write_decimal(line.charge),
        "MJ" if minutes.lower() in ("min", "mj", "minute", "minutes") else "UN",
        write_decimal(line.units),
        own_place,
        "",
        _find_pointers(mapping, line),
        "",
        "Y" if find_extension(item, codes.EMERGENCY) is True else "",
        "",
        "Y" if "epsdt" in programs else "",
        "Y" if "as" in programs else "",
    )


def _find_pointers(mapping: Mapping837, line: Line) -> tuple[str, ...]:
    """Places of the line's diagnoses among the claim's, in the line's order."""
    sequences = sorted(get_decimal(each, "sequence") or Decimal(0) for each in get_list(mapping.claim, "diagnosis"))
    expression = f"Claim.item[{line.place}].diagnosisSequence"
    entries = line.item.get("diagnosisSequence")
    entries = entries if isinstance(entries, list | tuple) else ()
    numbers = [number for each in entries if (number := get_decimal({"value": each})) is not None]
    pointers = [str(sequences.index(each) + 1) for each in numbers if each in sequences]
    if len(pointers) < len(numbers) or not pointers:
        sentence = f"`{expression}` must name one to {POINTERS} of the claim's diagnoses."
        mapping.tell(sentence, expression, "2400/SV1/7")
    if len(pointers) > POINTERS:
        sentence = f"`{expression}` names {len(pointers)} diagnoses; the first {POINTERS} are sent."
        mapping.tell(sentence, expression, "2400/SV1/7", warning=True)
    return tuple(pointers[:POINTERS])


def _add_drug(mapping: Mapping837, loop: Loop, line: Line) -> None:
    """2410 from the line's detail with a National Drug Code."""
    for place, detail in enumerate(get_list(line.item, "detail")):
        code = find_code(detail.get("productOrService"), codes.NDC)
        if not code:
            continue
        expression = f"Claim.item[{line.place}].detail[{place}]"
        amount = get_object(detail, "quantity")
        quantity = get_decimal(amount)
        if quantity is None:
            sentence = f"`{expression}.quantity` is required beside a National Drug Code."
            mapping.tell(sentence, f"{expression}.quantity", "2410/CTP/4")
            return
        unit = get_text(amount, "code") or get_text(amount, "unit")
        drug = loop.open("2410")
        drug.add("LIN", "", "N4", clean(code.replace("-", ""), 48))
        x12 = unit if unit in codes.DRUG_UNITS.values() else codes.DRUG_UNITS.get(unit, "UN")
        drug.add("CTP", "", "", "", write_decimal(quantity), (x12,))
        return


def _add_line_team(
    mapping: Mapping837, loop: Loop, item: Resource, team: Sequence[tuple[Decimal, str, Provider]]
) -> None:
    """The providers that the line names and that are not those of the claim; an ordering one has no other place."""
    entries = item.get("careTeamSequence")
    entries = entries if isinstance(entries, list | tuple) else ()
    numbers = {number for each in entries if (number := get_decimal({"value": each})) is not None}
    for entity, loop_id in _LINE_LOOPS.items():
        members = [(sequence, provider) for sequence, role, provider in team if role == entity]
        own = next((provider for sequence, provider in members if sequence in numbers), None)
        if own is None or (entity != "DK" and own == members[0][1]):
            continue
        provider_to_name(mapping, loop.open(loop_id), entity, own)
