"""Which claim and which line a payment is for: by numbers, never by name (835 CLP01, CLP07, REF*6R, SVC)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.billing import codes
from mappers.billing.fields import (
    Resource,
    Resources,
    find_identifier,
    find_modifiers,
    find_procedure,
    find_reference,
    find_serviced_days,
    make_reference,
    resolve,
    to_amount,
)
from mappers.billing.remittance import ClaimPayment, PaymentLine

_PREFIX = 6


@dataclass(frozen=True, slots=True)
class ClaimIndex:
    """Claims by what payments name them with; `numbers` is sorted for prefixes."""

    by_number: dict[str, Resource]
    by_payer_number: dict[str, Resource]
    by_service: dict[tuple[str, date | None, Decimal], list[Resource]]
    numbers: list[str]


class ClaimMatch(NamedTuple):
    """`claim` where it is certain, else the candidates that a person chooses from."""

    claim: Resource | None
    candidates: tuple[Resource, ...] = ()


class LineMatch(NamedTuple):
    """The line of the claim that a payment line is for, None where no single one fits; `doubt` says what differed."""

    item: Resource | None
    doubt: str = ""


def index_claims(claims: Iterable[Resource], responses: Iterable[Resource], resources: Resources) -> ClaimIndex:
    """Claims and their earlier ClaimResponses, indexed; `resources` holds the Coverages."""
    by_reference = {make_reference(claim): claim for claim in claims}
    by_number = {find_identifier(claim, codes.PATIENT_CONTROL_NUMBER): claim for claim in by_reference.values()}
    by_number.pop("", None)
    by_payer_number: dict[str, Resource] = {}
    for response in responses:
        claim, number = (
            by_reference.get(find_reference(response.get("request"))),
            find_identifier(response, codes.PAYER_CONTROL_NUMBER),
        )
        if claim is not None and number:
            by_payer_number.setdefault(number, claim)
    by_service: dict[tuple[str, date | None, Decimal], list[Resource]] = {}
    for claim in by_reference.values():
        for key in _find_visits(claim, resources):
            by_service.setdefault(key, []).append(claim)
    return ClaimIndex(by_number, by_payer_number, by_service, sorted(by_number))


def _find_visits(claim: Resource, resources: Resources) -> Iterable[tuple[str, date | None, Decimal]]:
    days = [day for item in claim.get("item", ()) if (day := find_serviced_days(item)[0])]
    for insurance in claim.get("insurance", ()):
        member = str((resolve(insurance.get("coverage"), resources) or {}).get("subscriberId", ""))
        if member and days:
            yield member, min(days), to_amount(claim.get("total"))


def match_claim(payment: ClaimPayment, index: ClaimIndex) -> ClaimMatch:
    """By our control number, then the payer's; a prefix, or member with day and charge, gives candidates only."""
    number = payment.control_number.strip().upper()
    claim = index.by_number.get(number) or index.by_payer_number.get(payment.payer_number)
    if claim is not None:
        return ClaimMatch(claim)
    claims: list[Resource] = []
    if len(number) >= _PREFIX:
        place = bisect_left(index.numbers, number)
        while place < len(index.numbers) and index.numbers[place].startswith(number) and len(claims) < 10:
            claims.append(index.by_number[index.numbers[place]])
            place += 1
    claims += index.by_service.get((payment.member_id, payment.first_day, payment.charge), [])[:10]
    return ClaimMatch(None, tuple({make_reference(each): each for each in claims}.values()))


def match_lines(lines: Sequence[PaymentLine], claim: Resource) -> list[LineMatch]:
    """For each payment line the claim's line: by control number, then code, modifiers, day and charge, then less."""
    by_id = {str(item.get("id", "")): item for item in claim.get("item", ())}
    by_service: dict[tuple[object, ...], list[Resource]] = {}
    for item in claim.get("item", ()):
        by_service.setdefault(_item_key(item), []).append(item)
    matched_ids: set[int] = set()
    return [_match_line(line, by_id, by_service, matched_ids) for line in lines]


def _item_key(item: Resource) -> tuple[object, ...]:
    return find_procedure(item), find_serviced_days(item)[0], to_amount(item.get("net"))


def _match_line(
    line: PaymentLine,
    by_id: dict[str, Resource],
    by_service: dict[tuple[object, ...], list[Resource]],
    matched_ids: set[int],
) -> LineMatch:
    if line.control_number and line.control_number in by_id:
        item = by_id[line.control_number]
        matched_ids.add(id(item))
        return LineMatch(item)
    key = (line.original_code or line.code, line.day, line.charge)
    free = [item for item in by_service.get(key, ()) if id(item) not in matched_ids]
    exact = [item for item in free if find_modifiers(item) == line.modifiers]
    if exact or len(free) == 1:
        item = (exact or free)[0]
        matched_ids.add(id(item))
        return LineMatch(
            item, "" if exact else f"Its modifiers were sent as {', '.join(find_modifiers(item)) or 'none'}."
        )
    return LineMatch(None)
