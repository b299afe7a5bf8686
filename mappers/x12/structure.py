"""Our own check of every file we write: levels, counts, pointers and balances (005010X222A1 §1.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from mappers.x12.envelope import InterchangeAcknowledgement, TransactionSet, Unreadable, read_interchanges
from mappers.x12.fault import Fault, Place, place_segment
from mappers.x12.loop import Loop, to_amount
from mappers.x12.reader import Loops, explain_unread, read_set
from mappers.x12.segment import Segment

_CLAIM_LOOPS = ("2300",)


def check_interchange(text: str | bytes) -> tuple[Fault, ...]:
    """Every fault of a file: envelope, tables, levels, pointers, balances. A file that is right has none."""
    faults: list[Fault] = []
    for event in read_interchanges(text):
        if isinstance(event, TransactionSet):
            loops = read_set(event)
            if loops is None:
                faults += [*event.faults, explain_unread(event)]
            else:
                faults += [*loops.faults, *check_set(loops)]
        elif isinstance(event, Unreadable):
            faults.append(event.fault)
        elif not isinstance(event, InterchangeAcknowledgement):
            faults += event.faults
    return tuple(faults)


def check_set(loops: Loops) -> tuple[Fault, ...]:
    """What the tables cannot say of a set: levels, and for an 837 pointers, numbers and balances of its claims."""
    faults = list(check_levels(segment for segment, _ in loops.root.walk()))
    if loops.table.code == "837":
        faults += _check_claims(loops.root)
    return tuple(faults)


def check_levels(segments: Iterable[Segment]) -> Iterator[Fault]:
    """HL01 counts from 1, HL02 is an earlier HL01, HL04 says whether a level is below."""
    levels = [segment for segment in segments if segment.id == "HL"]
    parents = {level.at(2) for level in levels}
    numbers: set[str] = set()
    for count, level in enumerate(levels, 1):
        number, parent, children = level.at(1), level.at(2), level.at(4)
        if number != str(count):
            yield _fault(f"HL01 is `{number}` where {count} is due; levels are numbered from 1.", level, "", 1)
        if parent and parent not in numbers:
            yield _fault(f"HL02 `{parent}` is the number of no level before this one.", level, "", 2)
        numbers.add(number)
        if children and (children == "1") != (number in parents):
            says = "has levels below it" if number in parents else "has no level below it"
            yield _fault(f"HL04 is `{children}` but level {number} {says}.", level, "", 4)


def _fault(sentence: str, segment: Segment, loop: str, element: int, component: int = 0) -> Fault:
    return Fault(sentence, place_segment(segment, loop, element, component), "element", "7")


def _check_claims(root: Loop) -> Iterator[Fault]:
    control_numbers: set[str] = set()
    for claim in root.find_loops(*_CLAIM_LOOPS):
        clm = claim.segment("CLM")
        if clm.at(1) in control_numbers:
            yield _fault(f"CLM01 `{clm.at(1)}` stands twice in this set; it must be unique.", clm, "2300", 1)
        control_numbers.add(clm.at(1))
        lines = claim.loops("2400")
        yield from _check_total(clm, lines)
        yield from _check_lines(claim, lines)
        for other in claim.loops("2320"):
            yield from _check_other_payer(clm, other, lines)


def _check_total(clm: Segment, lines: list[Loop]) -> Iterator[Fault]:
    charges = sum((to_amount(line.segment("SV1").at(2)) for line in lines), Decimal(0))
    if charges != to_amount(clm.at(2)):
        yield _fault(f"CLM02 is {clm.at(2)} but its lines charge {charges}.", clm, "2300", 2)


def _check_lines(claim: Loop, lines: list[Loop]) -> Iterator[Fault]:
    first = next((hi for hi in claim.segments("HI") if hi.at(1, 1) in ("ABK", "BK")), Segment(("HI",)))
    diagnoses = len([element for element in first.elements[1:] if element])
    numbers: set[str] = set()
    for count, line in enumerate(lines, 1):
        lx, sv1 = line.segment("LX"), line.segment("SV1")
        if lx.at(1) != str(count):
            yield _fault(f"LX01 is `{lx.at(1)}` where {count} is due.", lx, "2400", 1)
        for component, pointer in enumerate(sv1.parts(7), 1):
            place = to_amount(pointer)
            if not 1 <= place <= diagnoses:
                sentence = f"Pointer `{pointer}` of line {count} names none of the claim's {diagnoses} diagnoses."
                yield _fault(sentence, sv1, "2400", 7, component)
        number = line.value("REF", "6R")
        if number and number in numbers:
            sentence = f"REF*6R `{number}` stands on two lines; a line control number is unique in its claim."
            yield _fault(sentence, line.segment("REF", "6R"), "2400", 2)
        numbers.add(number)


def sum_adjustments(loop: Loop, *groups: str) -> Decimal:
    """The amounts of all CAS of a loop, or of those with one of the group codes."""
    amounts = (to_amount(cas.at(n)) for cas in loop.segments("CAS", *groups) for n in range(3, len(cas.elements), 3))
    return sum(amounts, Decimal(0))


def _check_other_payer(clm: Segment, other: Loop, lines: list[Loop]) -> Iterator[Fault]:
    """What another payer has adjudicated: charge = paid + adjustments, for each line and for the claim."""
    payer = other.loop("2330B")
    payer_id = payer.segment("NM1").at(9)
    total, adjudicated = sum_adjustments(other), False
    for line in lines:
        decisions = [loop for loop in line.loops("2430") if loop.segment("SVD").at(1) == payer_id]
        total += sum((sum_adjustments(loop) for loop in decisions), Decimal(0))
        yield from _check_line_balance(line, decisions)
        dates = [loop.segment("DTP", "573") for loop in decisions if loop.segment("DTP", "573").id]
        if dates and payer.segment("DTP", "573").id:
            sentence = f"DTP*573 of payer `{payer_id}` stands at the claim and at a line; one level alone has it."
            yield _fault(sentence, dates[0], "2430", 1)
        adjudicated = adjudicated or bool(decisions)
    amount = other.segment("AMT", "D")
    if not amount.id:
        if adjudicated or total:
            sentence = f"AMT*D of payer `{payer_id}` is missing; it is required after adjudication, also when 0."
            yield Fault(sentence, Place(segment="AMT", loop="2320"), "segment", "3")
        return
    missing = to_amount(clm.at(2)) - to_amount(amount.at(2)) - total
    if missing:
        sentence = (
            f"Payer `{payer_id}` paid {amount.at(2)} and adjusted {total} of a claim of {clm.at(2)}: {missing} missing."
        )
        yield _fault(sentence, amount, "2320", 2)


def _check_line_balance(line: Loop, decisions: list[Loop]) -> Iterator[Fault]:
    """All decisions of one payer on a line together make up its charge; there are several where it was unbundled."""
    if not decisions:
        return
    segments = [loop.segment("SVD") for loop in decisions]
    for svd in segments:
        if to_amount(svd.at(2)) < 0:
            yield _fault(f"SVD02 is {svd.at(2)}; a payer's amount for a line is not negative.", svd, "2430", 2)
    charge = to_amount(line.segment("SV1").at(2))
    paid = sum((to_amount(svd.at(2)) for svd in segments), Decimal(0))
    adjusted = sum((sum_adjustments(loop) for loop in decisions), Decimal(0))
    missing = charge - paid - adjusted
    if missing:
        sentence = f"The line charges {charge}, was paid {paid} and adjusted by {adjusted}: {missing} missing."
        yield _fault(sentence, segments[0], "2430", 2)
