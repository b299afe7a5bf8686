"""835 loops to a remittance in plain terms: payment, claims, lines, adjustments (005010X221A1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.x12.elements import is_date
from mappers.x12.fault import Fault, place_segment
from mappers.x12.loop import Loop, to_amount, to_decimal
from mappers.x12.reader import Loops
from mappers.x12.segment import STANDARD, Segment, render_segment
from mappers.x12.writer import write_decimal

REVERSAL = "22"
CROSSOVER = frozenset({"19", "20", "21"})
_FORWARDED = frozenset({"MA18", "N89"})


class Adjustment(NamedTuple):
    """A CAS triplet: group code, reason (CARC), amount (positive lowers the payment), quantity."""

    group: str
    reason: str
    amount: Decimal
    quantity: Decimal | None = None


class Entity(NamedTuple):
    """NM1 or N1: name, given name, the kind of the id (NM108, N103) and the id."""

    name: str = ""
    given: str = ""
    qualifier: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class RemittanceLine:
    """Loop 2110. `procedure` is SVC01 (kind, code, modifiers), `original` SVC06; amounts, references by qualifier."""

    procedure: tuple[str, ...]
    original: tuple[str, ...]
    charge: Decimal
    paid: Decimal
    units_paid: Decimal
    units: Decimal | None
    start: date | None
    end: date | None
    control_number: str
    adjustments: tuple[Adjustment, ...]
    remarks: tuple[str, ...]
    amounts: Mapping[str, Decimal]
    references: Mapping[str, str]
    segment: Segment

    @property
    def allowed(self) -> Decimal | None:
        return self.amounts.get("B6")


@dataclass(frozen=True, slots=True)
class RemittanceClaim:
    """Loop 2100; `ordinal` counts the claims of the set from 1, `people` are the NM1 by NM101."""

    ordinal: int
    control_number: str
    status: str
    charge: Decimal
    paid: Decimal
    patient_responsibility: Decimal | None
    filing_code: str
    payer_number: str
    facility_code: str
    frequency: str
    adjustments: tuple[Adjustment, ...]
    remarks: tuple[str, ...]
    people: Mapping[str, Entity]
    dates: Mapping[str, date]
    amounts: Mapping[str, Decimal]
    references: Mapping[str, str]
    lines: tuple[RemittanceLine, ...]
    segment: Segment

    @property
    def is_reversal(self) -> bool:
        return self.status == REVERSAL

    @property
    def is_crossover(self) -> bool:
        """Whether the payer forwarded the claim: by status, crossover carrier or remark (traps.md B11)."""
        remarks = {*self.remarks, *(remark for line in self.lines for remark in line.remarks)}
        return self.status in CROSSOVER or "TT" in self.people or bool(remarks & _FORWARDED)

    def iterate_adjustments(self) -> Iterator[Adjustment]:
        """Those of the claim, then those of its lines."""
        yield from self.adjustments
        for line in self.lines:
            yield from line.adjustments


@dataclass(frozen=True, slots=True)
class ProviderAdjustment:
    """One pair of a PLB: provider, fiscal period's end, reason, reference, amount (positive lowers the check)."""

    provider: str
    fiscal_date: date | None
    reason: str
    reference: str
    amount: Decimal
    segment: Segment


@dataclass(frozen=True, slots=True)
class Remittance:
    """An 835. `amount` is BPR02, negative for a debit; `payment_date` None: nothing may be posted.

    `key` and `digest` do not depend on envelope numbers, delimiters or line breaks: the same key with another digest is
    another remittance under a known number (x12.md, idempotency).
    """

    amount: Decimal
    handling: str
    method: str
    payment_date: date | None
    produced: date | None
    currency: str
    trace: str
    payer_id: str
    payer: Entity
    payer_references: Mapping[str, str]
    payee: Entity
    payee_references: Mapping[str, str]
    claims: tuple[RemittanceClaim, ...]
    provider_adjustments: tuple[ProviderAdjustment, ...]
    faults: tuple[Fault, ...]
    key: str
    digest: str
    bpr: Segment


def read_remittance(loops: Loops) -> Remittance:
    """The remittance that an 835 says; `faults` are those of the dates and currency beside those of the loops."""
    root, faults = loops.root, list(loops.faults)
    bpr, trn = root.segment("BPR"), root.segment("TRN")
    payer, payee = root.loop("1000A"), root.loop("1000B")
    amount = to_amount(bpr.at(2))
    currency = root.segment("CUR").at(2) or "USD"
    produced = to_date(root.value("DTM", "405"))
    key = "|".join((trn.at(3), trn.at(2), bpr.at(16), write_decimal(amount), payee.segment("N1").at(4)))
    claims = [loop for header in root.loops("2000") for loop in header.loops("2100")]
    return Remittance(
        -amount if bpr.at(3) == "D" else amount,
        bpr.at(1),
        bpr.at(4),
        _find_payment_date(bpr, produced, faults),
        produced,
        _check_currency(root, currency, faults),
        trn.at(2),
        trn.at(3),
        _read_entity(payer.segment("N1"), 2, 3),
        _read_references(payer),
        _read_entity(payee.segment("N1"), 2, 3),
        _read_references(payee),
        tuple(_read_claim(loop, ordinal) for ordinal, loop in enumerate(claims, 1)),
        tuple(entry for loop in root.loops("PLB") for entry in _read_plb(loop.segment("PLB"))),
        tuple(faults),
        key,
        _digest(root),
        bpr,
    )


def to_date(text: str) -> date | None:
    """CCYYMMDD; None where it is no day."""
    if len(text) != 8 or not is_date(text) or text[:4] == "0000":
        return None
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def to_period(kind: str, text: str) -> tuple[date | None, date | None]:
    """DTP02 and DTP03 as first and last day."""
    first, _, last = text.partition("-")
    return to_date(first), to_date(last) if kind == "RD8" else to_date(first)


def _find_payment_date(bpr: Segment, produced: date | None, faults: list[Fault]) -> date | None:
    day = to_date(bpr.at(16))
    if day is None:
        place = place_segment(bpr, "ST", 16)
        if produced is not None:
            sentence = f"BPR16 `{bpr.at(16)}` is no date; the production date {produced} (DTM*405) is used."
            faults.append(Fault(sentence, place, "element", "8", "warning"))
            return produced
        faults.append(Fault("Neither BPR16 nor DTM*405 is a date; nothing can be posted.", place, "element", "8"))
    return day


def _check_currency(root: Loop, currency: str, faults: list[Fault]) -> str:
    if currency != "USD":
        place = place_segment(root.segment("CUR"), "ST", 2)
        faults.append(Fault(f"The remittance is in `{currency}`; only USD can be posted.", place, "element", "7"))
    return currency


def _digest(root: Loop) -> str:
    text = "".join(render_segment(segment, STANDARD) for segment, _ in root.walk() if segment.id not in ("ST", "SE"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_entity(segment: Segment, name: int, qualifier: int) -> Entity:
    given = segment.at(4) if segment.id == "NM1" else ""
    return Entity(segment.at(name), given, segment.at(qualifier), segment.at(qualifier + 1))


def _read_references(loop: Loop) -> dict[str, str]:
    return {ref.at(1): ref.at(2) for ref in loop.segments("REF")}


def _read_amounts(loop: Loop) -> dict[str, Decimal]:
    return {amt.at(1): number for amt in loop.segments("AMT") if (number := to_decimal(amt.at(2))) is not None}


def _read_adjustments(loop: Loop) -> tuple[Adjustment, ...]:
    """The triplets of all CAS; one without reason and amount is none."""
    return tuple(
        Adjustment(cas.at(1), cas.at(n), to_amount(cas.at(n + 1)), to_decimal(cas.at(n + 2)))
        for cas in loop.segments("CAS")
        for n in range(2, len(cas.elements), 3)
        if cas.at(n) or cas.at(n + 1)
    )


def _read_claim(loop: Loop, ordinal: int) -> RemittanceClaim:
    clp, moa, mia = loop.segment("CLP"), loop.segment("MOA"), loop.segment("MIA")
    remarks = [moa.at(n) for n in range(3, 8)] + [mia.at(n) for n in (5, 20, 21, 22, 23)]
    dates = {dtm.at(1): day for dtm in loop.segments("DTM") if (day := to_date(dtm.at(2)))}
    return RemittanceClaim(
        ordinal,
        clp.at(1),
        clp.at(2),
        to_amount(clp.at(3)),
        to_amount(clp.at(4)),
        to_decimal(clp.at(5)),
        clp.at(6),
        clp.at(7),
        clp.at(8),
        clp.at(9),
        _read_adjustments(loop),
        tuple(filter(None, remarks)),
        {nm1.at(1): _read_entity(nm1, 3, 8) for nm1 in loop.segments("NM1")},
        dates,
        _read_amounts(loop),
        _read_references(loop),
        tuple(_read_line(inner) for inner in loop.loops("2110")),
        clp,
    )


def _read_line(loop: Loop) -> RemittanceLine:
    svc = loop.segment("SVC")
    dates = {dtm.at(1): to_date(dtm.at(2)) for dtm in loop.segments("DTM")}
    start = dates.get("472") or dates.get("150")
    units = to_decimal(svc.at(5))
    return RemittanceLine(
        svc.parts(1),
        svc.parts(6),
        to_amount(svc.at(2)),
        to_amount(svc.at(3)),
        Decimal(1) if units is None else units,
        to_decimal(svc.at(7)),
        start,
        dates.get("151") or start,
        loop.value("REF", "6R"),
        _read_adjustments(loop),
        tuple(lq.at(2) for lq in loop.segments("LQ", "HE")),
        _read_amounts(loop),
        _read_references(loop),
        svc,
    )


def _read_plb(plb: Segment) -> Iterator[ProviderAdjustment]:
    for n in range(3, min(len(plb.elements), 15), 2):
        if plb.at(n) or plb.at(n + 1):
            amount = to_amount(plb.at(n + 1))
            yield ProviderAdjustment(plb.at(1), to_date(plb.at(2)), plb.at(n, 1), plb.at(n, 2), amount, plb)
