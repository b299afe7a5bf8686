"""An 835 posted: ClaimResponses, one PaymentReconciliation, Tasks (https://hl7.org/fhir/R4/paymentreconciliation.html).

All is made as `draft`; the write that turns the PaymentReconciliation `active` is the moment of posting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from mappers.billing import codes
from mappers.billing.adjustment_classes import VERSION, Overrides, classify
from mappers.billing.claim_responses import Account, make_response
from mappers.billing.fields import Resource, find_identifier, make_concept, make_money, make_reference, make_task
from mappers.billing.matching import ClaimIndex, match_claim
from mappers.billing.remittance import (
    PAYER_SEQUENCES,
    REVERSAL,
    ClaimPayment,
    ProviderAdjustment,
    Remittance,
    check_balance,
)

NOT_POSTED = {
    "4": "The payer did not know the patient. Check member id and coverage, then bill the right payer.",
    "23": "The payer says that the claim is not its own. Bill the right payer.",
    "25": "This is a predetermination; nothing is posted.",
}


@dataclass(frozen=True, slots=True)
class PostingState:
    """What posting needs to know: claims, what was posted for each (by claim reference), and the reversible details.

    `responses` holds the ClaimResponses of active PaymentReconciliations by the claim they answer, oldest first;
    `details` the PaymentReconciliation details by ClaimResponse reference.
    """

    index: ClaimIndex
    responses: Mapping[str, Sequence[Resource]] = field(default_factory=dict)
    details: Mapping[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PostingSettings:
    """The day of posting (clock, never in a closed month), the payer's reference if stored, its rows of classes."""

    created: str
    posting_day: str
    payer: str = ""
    payer_id: str = ""
    overrides: Overrides = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Posting:
    """What a remittance becomes. Without `reconciliation` nothing posts, and a Task says why."""

    reconciliation: Resource | None
    responses: tuple[Resource, ...] = ()
    tasks: tuple[Resource, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one CLP becomes: its detail, its ClaimResponse if it posts, Tasks."""

    detail: Resource
    response: Resource | None = None
    tasks: tuple[Resource, ...] = ()


def post_remittance(remittance: Remittance, state: PostingState, settings: PostingSettings) -> Posting:
    """All that a remittance makes; the sum of the details is always BPR02."""
    balance = check_balance(remittance)
    key = remittance.key()
    if balance.transaction:
        return Posting(None, tasks=(make_task("remittance", key, "", settings.created, " ".join(balance.transaction)),))
    posted = {claim: list(responses) for claim, responses in state.responses.items()}
    entries = []
    for number in range(len(remittance.claims)):
        faults = balance.claims.get(number)
        if faults:
            entry = _leave_unapplied(remittance, number, " ".join(each.sentence for each in faults), settings)
        else:
            entry = _post_claim(remittance, number, state, posted, settings)
        entries.append(entry)
    details = [each.detail for each in entries]
    details += [_make_provider_detail(key, n, each) for n, each in enumerate(remittance.provider_adjustments)]
    dated = () if remittance.payment_day else ("The payment date is missing or wrong; the production date was taken.",)
    return Posting(
        reconciliation=_make_reconciliation(remittance, details, settings),
        responses=tuple(each.response for each in entries if each.response is not None),
        tasks=tuple(task for each in entries for task in each.tasks),
        warnings=(*balance.warnings, *dated),
    )


def _post_claim(
    remittance: Remittance,
    number: int,
    state: PostingState,
    posted: dict[str, list[Resource]],
    settings: PostingSettings,
) -> _Entry:
    """One CLP: matched and posted, or left unapplied with a Task."""
    payment = remittance.claims[number]
    match = match_claim(payment, state.index)
    if payment.status in NOT_POSTED or payment.status not in (*PAYER_SEQUENCES, REVERSAL):
        text = NOT_POSTED.get(payment.status, f"Claim status `{payment.status}` is not known. Post it by hand.")
        return _leave_unapplied(remittance, number, text, settings, match.claim)
    if match.claim is None:
        others = ", ".join(f"`{make_reference(each)}`" for each in match.candidates)
        text = f"No claim has the number `{payment.control_number}`. " + (
            f"It may be {others}: choose, then post by hand." if others else "Find it, then post by hand."
        )
        return _leave_unapplied(remittance, number, text, settings)
    earlier = posted.setdefault(make_reference(match.claim), [])
    reversed_ = find_reversed(payment, earlier) if payment.status == REVERSAL else None
    if payment.status == REVERSAL and reversed_ is None:
        text = f"The reversal of `{payment.payer_number}` names no payment that was posted. Post that first."
        return _leave_unapplied(remittance, number, text, settings, match.claim)
    account = Account(match.claim, tuple(earlier), reversed_)
    find_class = partial(classify, payer=settings.payer_id, overrides=settings.overrides)
    response, tasks = make_response(payment, account, _head(remittance, number, settings), find_class)
    earlier.append(response)
    detail = _make_detail(remittance, number, "payment")
    detail |= {"request": {"reference": make_reference(match.claim)}, "response": _point(response)}
    if reversed_ is not None and (before := _find_detail(reversed_, state)):
        detail["predecessor"] = before["identifier"]
    return _Entry(detail, response, tuple(tasks))


def _head(remittance: Remittance, number: int, settings: PostingSettings) -> Resource:
    """What a ClaimResponse has from the remittance: key, dates, insurer."""
    insurer: Resource = (
        {"reference": settings.payer} if settings.payer else {"display": remittance.payer_name or "unknown payer"}
    )
    return {
        "resourceType": "ClaimResponse",
        "identifier": [{"system": codes.RESPONSE_KEY, "value": f"{remittance.key()}:{number}"}],
        "extension": [{"url": codes.POSTING_DATE, "valueDate": settings.posting_day}],
        "status": "draft",
        "created": settings.created,
        "insurer": insurer,
        "payment": {"date": str(remittance.day())},
    }


def find_reversed(payment: ClaimPayment, earlier: Sequence[Resource]) -> Resource | None:
    """The latest posting that a reversal takes back: same payer's number if told, opposite payment, not reversed."""
    gone = {find_identifier(each, codes.REVERSED_KEY) for each in earlier}
    for response in reversed(earlier):
        number = find_identifier(response, codes.PAYER_CONTROL_NUMBER)
        amount = Decimal(response["payment"]["amount"]["value"])
        same = not payment.payer_number or not number or number == payment.payer_number
        own = find_identifier(response, codes.RESPONSE_KEY)
        if same and amount == -payment.paid and own not in gone and not find_identifier(response, codes.REVERSED_KEY):
            return response
    return None


def _find_detail(response: Resource, state: PostingState) -> Resource | None:
    """The detail that a ClaimResponse was posted by: a stored one, or one of this remittance by its key."""
    stored = state.details.get(make_reference(response))
    if stored is not None:
        return stored
    value = find_identifier(response, codes.RESPONSE_KEY)
    return {"identifier": {"system": codes.DETAIL_KEY, "value": value}} if value else None


def _point(response: Resource) -> Resource:
    return {"reference": make_reference(response)} if "id" in response else {"identifier": response["identifier"][0]}


def _leave_unapplied(
    remittance: Remittance, number: int, text: str, settings: PostingSettings, claim: Resource | None = None
) -> _Entry:
    """The money of a claim that does not post stays in the reconciliation, unapplied."""
    payment = remittance.claims[number]
    focus = make_reference(claim) if claim is not None else ""
    amount = f" {payment.paid:.2f} stay unapplied." if payment.paid else ""
    task = make_task("unapplied-payment", f"{remittance.key()}:{number}", focus, settings.created, f"{text}{amount}")
    return _Entry(_make_detail(remittance, number, "unapplied"), None, (task,))


def _make_detail(remittance: Remittance, number: int, kind: str) -> Resource:
    system = codes.PAYMENT_TYPE if kind == "payment" else codes.DETAIL_TYPE
    return {
        "identifier": {"system": codes.DETAIL_KEY, "value": f"{remittance.key()}:{number}"},
        "type": make_concept(system, kind),
        "amount": make_money(remittance.claims[number].paid),
    }


def _make_provider_detail(key: str, number: int, adjustment: ProviderAdjustment) -> Resource:
    """A PLB pair: type `adjustment` with the reason code beside it, the reference of that ledger of its own."""
    kinds = [
        {"system": codes.PAYMENT_TYPE, "code": "adjustment"},
        {"system": codes.PROVIDER_REASON, "code": adjustment.reason},
    ]
    return {
        "extension": [{"url": codes.PROVIDER_REFERENCE, "valueString": adjustment.reference}],
        "identifier": {"system": codes.DETAIL_KEY, "value": f"{key}:plb:{number}"},
        "type": {"coding": kinds},
        "amount": make_money(-adjustment.amount),
    }


def _make_reconciliation(remittance: Remittance, details: list[Resource], settings: PostingSettings) -> Resource:
    amount = remittance.amount if remittance.credit else -remittance.amount
    extensions: list[Resource] = [
        {"url": codes.POSTING_DATE, "valueDate": settings.posting_day},
        {"url": codes.DIGEST, "valueString": remittance.digest},
        {"url": codes.CLASSES, "valueString": VERSION},
    ]
    if remittance.method:
        extensions.append({"url": codes.PAYMENT_METHOD_EXTENSION, "valueCode": remittance.method})
    made: Resource = {
        "resourceType": "PaymentReconciliation",
        "extension": extensions,
        "identifier": [{"system": codes.REMITTANCE_KEY, "value": remittance.key()}],
        "status": "draft",
        "created": settings.created,
        "outcome": "complete",
        "paymentDate": str(remittance.day()),
        "paymentAmount": make_money(amount),
        "paymentIdentifier": {"value": remittance.trace},
        "detail": details,
    }
    if settings.payer:
        made["paymentIssuer"] = {"reference": settings.payer}
    return made
