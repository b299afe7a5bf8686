"""What follows when a claim's adjudication is posted: denial Tasks, a claim to the next payer, or an Invoice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment, read_adjustments, sum_adjustments
from mappers.billing.adjustment_classes import ANY_STEP, DENIAL, NEXT_STEPS
from mappers.billing.claim_responses import list_adjudications
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_extension,
    find_identifier,
    make_concept,
    make_control_number,
    make_money,
    make_reference,
    make_task,
    sum_amounts,
    to_amount,
)


@dataclass(frozen=True, slots=True)
class Posted:
    """A claim, its active ClaimResponses (oldest first), issued Invoices, what the patient paid for it directly."""

    claim: Resource
    responses: Sequence[Resource]
    invoices: Sequence[Resource] = ()
    patient_paid: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What is to be stored; `credit` is what the patient has paid above what is owed, left unapplied."""

    tasks: tuple[Resource, ...] = ()
    claim: Resource | None = None
    invoice: Resource | None = None
    credit: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class FollowUpSettings:
    """The clock, the day of posting, how long to wait for a forwarded claim."""

    created: str
    posting_day: str
    crossover_days: int = 45


def find_effective(responses: Sequence[Resource]) -> list[Resource]:
    """The adjudications that stand: no reversals, and none that a reversal took back."""
    gone = {find_identifier(each, codes.REVERSED_KEY) for each in responses}
    return [
        each
        for each in responses
        if not find_identifier(each, codes.REVERSED_KEY) and find_identifier(each, codes.RESPONSE_KEY) not in gone
    ]


def follow_posting(account: Posted, settings: FollowUpSettings) -> FollowUp:
    """What follows from the adjudications of a claim as they stand now; the same state gives the same identifiers."""
    effective = find_effective(account.responses)
    if not effective:
        invoice, credit = make_invoice(account, [], settings)
        return FollowUp(_warn_later_payers(account, settings), invoice=invoice, credit=credit)
    last = effective[-1]
    tasks = find_denials(last, account.claim, settings)
    shares = find_shares(last)
    owed_amount = sum_amounts(amount for _, amount in shares)
    if find_extension(last, codes.FORWARDED):
        return FollowUp((*tasks, _make_wait_task(last, account.claim, settings)))
    draft = draft_next(account.claim, last, settings.created) if owed_amount > 0 else None
    if draft is not None:
        return FollowUp(tasks, claim=draft)
    invoice, credit = make_invoice(account, shares, settings)
    return FollowUp(tuple(tasks), invoice=invoice, credit=credit)


def _warn_later_payers(account: Posted, settings: FollowUpSettings) -> tuple[Resource, ...]:
    """A Task where a reversal leaves claims to later payers without the adjudication that they rest on."""
    if not account.responses or len(account.claim.get("insurance", ())) < 2:
        return ()
    text = "The payer took its adjudication back. Hold the claims to later payers until the correction is posted."
    key = find_identifier(account.responses[-1], codes.RESPONSE_KEY)
    return (make_task("reversal", key, make_reference(account.claim), settings.created, text),)


def find_denials(response: Resource, claim: Resource, settings: FollowUpSettings) -> tuple[Resource, ...]:
    """A Task with the next step where a denial-class adjustment stands; being paid 0 alone is no denial."""
    denials = [each for each in read_denied(response) if each.amount > 0]
    if not denials:
        return ()
    reasons = dict.fromkeys(f"{each.group}-{each.reason}" for each in denials)
    steps = dict.fromkeys(NEXT_STEPS.get(each.reason, ANY_STEP) for each in denials)
    text = f"{sum_adjustments(denials):.2f} denied ({', '.join(reasons)}). {' '.join(steps)}"
    key = find_identifier(response, codes.RESPONSE_KEY)
    return (make_task("denial", key, make_reference(claim), settings.created, text),)


def read_denied(response: Resource) -> list[Adjustment]:
    """The adjustments of the denial class, as it was when they were posted."""
    return read_adjustments(e for e in list_adjudications(response) if find_extension(e, codes.CLASS) == DENIAL)


def find_shares(response: Resource) -> list[tuple[int | None, Decimal]]:
    """(line, patient responsibility) of each line, and of the claim itself as line None."""
    shares: list[tuple[int | None, Decimal]] = []
    for line in response.get("item", ()):
        shares.append((line.get("itemSequence"), sum_adjustments(read_adjustments(line["adjudication"]), "PR")))
    others = [entry for line in response.get("addItem", ()) for entry in line["adjudication"]]
    whole = read_adjustments([*response.get("adjudication", ()), *others])
    return [(line, amount) for line, amount in (*shares, (None, sum_adjustments(whole, "PR"))) if amount]


def _make_wait_task(response: Resource, claim: Resource, settings: FollowUpSettings) -> Resource:
    text = (
        f"The payer forwarded the claim. Wait {settings.crossover_days} days for the next payer's remittance, then ask."
    )
    key = find_identifier(response, codes.RESPONSE_KEY)
    return make_task("crossover", key, make_reference(claim), settings.created, text)


def draft_next(claim: Resource, response: Resource, created: str) -> Resource | None:
    """The claim to the next payer with the adjudications before it, None where there is no further coverage."""
    insurance = claim.get("insurance", ())
    focal = next((each.get("sequence", 0) for each in insurance if each.get("focal")), 0)
    adjudicated = find_extension(response, codes.PAYER_SEQUENCE)
    current = max(focal, int(adjudicated or focal))
    later = sorted(each["sequence"] for each in insurance if each.get("sequence", 0) > current)
    if not later:
        return None
    answer = {"claimResponse": {"reference": make_reference(response)}}
    entries = [
        {**each, **(answer if each.get("sequence") == current else {}), "focal": each.get("sequence") == later[0]}
        for each in insurance
    ]
    number = make_control_number(find_identifier(claim, codes.PATIENT_CONTROL_NUMBER), "payer", str(later[0]))
    draft = {key: value for key, value in claim.items() if key not in ("id", "meta", "text", "related", "insurer")}
    draft |= {
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
        "status": "draft",
        "created": created,
        "insurance": entries,
        "related": [
            {"claim": {"reference": make_reference(claim)}, "relationship": make_concept(codes.RELATED, "prior")}
        ],
    }
    return draft


def make_invoice(
    account: Posted, shares: Sequence[tuple[int | None, Decimal]], settings: FollowUpSettings
) -> tuple[Resource | None, Decimal]:
    """(Invoice of what the patient owes beyond earlier ones, unapplied credit); what was paid at the desk comes off.

    An Invoice below 0 takes back earlier ones after a reversal; all Invoices of a claim together are never below 0.
    """
    owed_amount = sum_amounts(amount for _, amount in shares)
    total_share = max(owed_amount - account.patient_paid, ZERO)
    credit = max(account.patient_paid - owed_amount, ZERO)
    earlier = sum_amounts(to_amount(each.get("totalNet")) for each in account.invoices)
    total = total_share - earlier
    if not total:
        return None, credit
    lines = _spread(total, shares)
    by_sequence = {item.get("sequence"): item for item in account.claim.get("item", ())}
    key = ":".join(find_identifier(each, codes.RESPONSE_KEY) for each in account.responses)
    number = make_control_number(make_reference(account.claim), key, str(len(account.invoices)))
    return {
        "resourceType": "Invoice",
        "identifier": [{"system": codes.INVOICE_KEY, "value": number}],
        "extension": [
            {"url": codes.POSTING_DATE, "valueDate": settings.posting_day},
            {"url": codes.CLAIM_REFERENCE, "valueReference": {"reference": make_reference(account.claim)}},
        ],
        "status": "issued",
        "subject": account.claim["patient"],
        "date": settings.created,
        "lineItem": [_make_line(n, by_sequence.get(line), amount) for n, (line, amount) in enumerate(lines, 1)],
        "totalNet": make_money(total),
        "totalGross": make_money(total),
    }, credit


def _spread(total: Decimal, shares: Sequence[tuple[int | None, Decimal]]) -> list[tuple[int | None, Decimal]]:
    """The total over the lines in their order, each no more than its share; what no line takes stands alone."""
    rest, lines = total, []
    for line, share in shares:
        amount = min(share, rest) if rest > 0 else ZERO
        if amount > 0:
            lines.append((line, amount))
            rest -= amount
    return [*lines, (None, rest)] if rest else lines


def _make_line(number: int, item: Resource | None, amount: Decimal) -> Resource:
    line: Resource = {"sequence": number, "priceComponent": [{"type": "base", "amount": make_money(amount)}]}
    charge = find_extension(item, codes.CHARGE_ITEM)
    if charge:
        return {**line, "chargeItemReference": charge}
    return {
        **line,
        "chargeItemCodeableConcept": (item or {}).get("productOrService") or {"text": "Patient responsibility"},
    }
