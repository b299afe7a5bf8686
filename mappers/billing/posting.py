"""An 835 posted: ClaimResponses, one PaymentReconciliation, Tasks (https://hl7.org/fhir/R4/paymentreconciliation.html).

All is made as `draft`; the write that turns the PaymentReconciliation `active` is the moment of posting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from mappers.billing import codes
from mappers.billing.adjustment_classes import VERSION, Overrides, classify
from mappers.billing.claim_responses import Account, make_response
from mappers.billing.fields import (
    Resource,
    derive_id,
    find_extension,
    find_identifier,
    find_serviced_days,
    make_concept,
    make_money,
    make_reference,
    make_task,
    to_amount,
)
from mappers.billing.matching import ClaimIndex, ClaimMatch, match_claim
from mappers.billing.remittance import (
    PAYER_SEQUENCES,
    REVERSAL,
    ClaimPayment,
    ProviderAdjustment,
    Remittance,
    check_balance,
    check_claim,
)

NOT_POSTED = {
    "4": "The payer did not know the patient. Check member id and coverage, then bill the right payer.",
    "23": "The payer says that the claim is not its own. Bill the right payer.",
    "25": "This is a predetermination; nothing is posted.",
}


@dataclass(frozen=True, slots=True)
class PostingState:
    """What posting needs to know: claims, and what was posted for each.

    `responses` holds the ClaimResponses of active PaymentReconciliations by the claim they answer, oldest first.
    """

    index: ClaimIndex
    responses: Mapping[str, Sequence[Resource]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PostingSettings:
    """The day of posting (never in a closed month), the payer if stored, who typed it, the payer's rows of classes."""

    created: str
    posting_day: str
    payer: str = ""
    payer_id: str = ""
    posted_by: str = ""
    overrides: Overrides = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Posting:
    """What a remittance becomes. Without `reconciliation` nothing posts, and a Task says why."""

    reconciliation: Resource | None
    responses: tuple[Resource, ...] = ()
    tasks: tuple[Resource, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """What one CLP becomes: its ClaimResponse if it posts, Tasks."""

    response: Resource | None = None
    tasks: tuple[Resource, ...] = ()


def post_remittance(remittance: Remittance, state: PostingState, settings: PostingSettings) -> Posting:
    """All that a remittance makes; the sum of the details is always BPR02."""
    balance = check_balance(remittance)
    key = remittance.make_key()
    if balance.transaction:
        return Posting(None, tasks=(make_task("remittance", key, "", settings.created, " ".join(balance.transaction)),))
    entries = post_claims(remittance, range(len(remittance.claims)), state, settings)
    details = [make_claim_detail(remittance, number, each.response) for number, each in enumerate(entries)]
    details += make_provider_details(remittance)
    warning = (
        () if remittance.payment_day else ("The payment date is missing or wrong; the production date was taken.",)
    )
    return Posting(
        reconciliation=make_reconciliation(remittance, details, settings),
        responses=tuple(each.response for each in entries if each.response is not None),
        tasks=tuple(task for each in entries for task in each.tasks),
        warnings=(*balance.warnings, *warning),
    )


def post_claims(
    remittance: Remittance, numbers: Iterable[int], state: PostingState, settings: PostingSettings
) -> list[ClaimEntry]:
    """What the CLPs of these places, in their order, become; each sees what those before it have posted."""
    answers = {claim: list(responses) for claim, responses in state.responses.items()}
    entries = []
    for number in numbers:
        if faults := check_claim(number, remittance.claims[number]):
            text = " ".join(each.sentence for each in faults)
            entries.append(_leave_unapplied(remittance, number, text, settings))
        else:
            entries.append(_post_claim(remittance, number, state, answers, settings))
    return entries


def _post_claim(
    remittance: Remittance,
    number: int,
    state: PostingState,
    answers: dict[str, list[Resource]],
    settings: PostingSettings,
) -> ClaimEntry:
    """One CLP: matched and posted, or left unapplied with a Task."""
    payment = remittance.claims[number]
    match = match_claim(payment, state.index)
    earlier = answers.setdefault(make_reference(match.claim), []) if match.claim is not None else []
    refusal = _find_refusal(remittance, payment, match, earlier)
    if refusal or match.claim is None:
        return _leave_unapplied(remittance, number, refusal, settings, match.claim)
    original = find_reversed(payment, earlier) if payment.status == REVERSAL else None
    account = Account(match.claim, tuple(earlier), original)
    find_class = partial(classify, payer=settings.payer_id, overrides=settings.overrides)
    response, tasks = make_response(payment, account, _head(remittance, number, settings), find_class)
    earlier.append(response)
    return ClaimEntry(response, tuple(tasks))


def _find_refusal(remittance: Remittance, payment: ClaimPayment, match: ClaimMatch, earlier: Sequence[Resource]) -> str:
    """Why a claim that balances does not post, else an empty text."""
    if payment.status in NOT_POSTED or payment.status not in (*PAYER_SEQUENCES, REVERSAL):
        return NOT_POSTED.get(payment.status, f"Claim status `{payment.status}` is not known. Post it by hand.")
    if match.claim is None:
        others = ", ".join(f"`{make_reference(each)}`" for each in match.candidates)
        advice = f"It may be {others}: choose." if others else "Find it."
        return f"No claim has the number `{payment.control_number}`. {advice}"
    if payment.status == REVERSAL:
        lacks = find_reversed(payment, earlier) is None
        text = f"The reversal of `{payment.payer_number}` names no payment that was posted. Post that first."
        return text if lacks else ""
    days = [day for item in match.claim.get("item", ()) if (day := find_serviced_days(item)[0])]
    paid_on = remittance.find_day()
    if paid_on and days and paid_on < min(days):
        return (
            f"The remittance of {paid_on} is older than the claim's first service. Check the number, then post by hand."
        )
    if payment.paid < 0:
        return "The payer takes money back without a reversal. Ask for the reversal (claim status 22)."
    gone = {find_identifier(each, codes.REVERSED_KEY) for each in earlier}
    standing = (each for each in earlier if find_identifier(each, codes.RESPONSE_KEY) not in gone)
    by_hand = [each for each in standing if find_extension(each, codes.POSTED_BY) and _is_same(each, payment)]
    if by_hand:
        return (
            f"It was already posted by hand, by {find_extension(by_hand[0], codes.POSTED_BY)}. Reverse one of the two."
        )
    return ""


def _is_same(response: Resource, payment: ClaimPayment) -> bool:
    sequence = find_extension(response, codes.PAYER_SEQUENCE)
    same = to_amount(response["payment"]["amount"]) == payment.paid
    return same and sequence == PAYER_SEQUENCES.get(payment.status)


def _head(remittance: Remittance, number: int, settings: PostingSettings) -> Resource:
    """What a ClaimResponse has from the remittance: key, dates, insurer."""
    insurer: Resource = (
        {"reference": settings.payer} if settings.payer else {"display": remittance.payer_name or "unknown payer"}
    )
    return {
        "resourceType": "ClaimResponse",
        "id": name_response(remittance, number),
        "identifier": [{"system": codes.RESPONSE_KEY, "value": f"{remittance.make_key()}:{number}"}],
        "extension": [{"url": codes.POSTING_DATE, "valueDate": settings.posting_day}, *_sign(settings)],
        "status": "draft",
        "created": settings.created,
        "insurer": insurer,
        "payment": {"date": str(remittance.find_day())},
    }


def _sign(settings: PostingSettings) -> list[Resource]:
    """Who typed an EOB; nothing for a payer's own remittance."""
    return [{"url": codes.POSTED_BY, "valueString": settings.posted_by}] if settings.posted_by else []


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


def _point(response: Resource) -> Resource:
    return {"reference": make_reference(response)} if "id" in response else {"identifier": response["identifier"][0]}


def _leave_unapplied(
    remittance: Remittance, number: int, text: str, settings: PostingSettings, claim: Resource | None = None
) -> ClaimEntry:
    """The money of a claim that does not post stays in the reconciliation, unapplied."""
    payment = remittance.claims[number]
    focus = make_reference(claim) if claim is not None else ""
    amount = f"{payment.paid:.2f} stay unapplied. " if payment.paid else ""
    advice = f"{amount}`PaymentReconciliation/$post` with this Task applies it."
    task = make_task(
        "unapplied-payment", f"{remittance.make_key()}:{number}", focus, settings.created, f"{text} {advice}"
    )
    return ClaimEntry(None, (task,))


def make_claim_detail(remittance: Remittance, number: int, response: Resource | None) -> Resource:
    """The detail of a CLP: a payment with its ClaimResponse, a reversal's naming what it reverses; or unapplied."""
    kind = "payment" if response is not None else "unapplied"
    system = codes.PAYMENT_TYPE if response is not None else codes.DETAIL_TYPE
    detail: Resource = {
        "identifier": {"system": codes.DETAIL_KEY, "value": f"{remittance.make_key()}:{number}"},
        "type": make_concept(system, kind),
        "amount": make_money(remittance.claims[number].paid),
    }
    if response is None:
        return detail
    if before := find_identifier(response, codes.REVERSED_KEY):
        detail["predecessor"] = {"system": codes.DETAIL_KEY, "value": before}
    return {**detail, "request": response["request"], "response": _point(response)}


def make_provider_details(remittance: Remittance) -> list[Resource]:
    """The details of the PLB pairs."""
    key = remittance.make_key()
    return [_make_provider_detail(key, n, each) for n, each in enumerate(remittance.provider_adjustments)]


def _make_provider_detail(key: str, number: int, adjustment: ProviderAdjustment) -> Resource:
    """A PLB pair: type `adjustment` with the reason code beside it, the reference of that ledger of its own."""
    reason = adjustment.reason or "unknown"
    kinds = [
        {"system": codes.PAYMENT_TYPE, "code": "adjustment"},
        {"system": codes.PROVIDER_REASON, "code": reason},
    ]
    return {
        "extension": [{"url": codes.PROVIDER_REFERENCE, "valueString": adjustment.reference or reason}],
        "identifier": {"system": codes.DETAIL_KEY, "value": f"{key}:plb:{number}"},
        "type": {"coding": kinds},
        "amount": make_money(-adjustment.amount),
    }


def make_reconciliation(remittance: Remittance, details: list[Resource], settings: PostingSettings) -> Resource:
    """The draft PaymentReconciliation with these details."""
    amount = remittance.amount if remittance.credit else -remittance.amount
    extensions: list[Resource] = [
        {"url": codes.POSTING_DATE, "valueDate": settings.posting_day},
        {"url": codes.CLASSES, "valueString": VERSION},
        *_sign(settings),
    ]
    if remittance.digest:
        extensions.append({"url": codes.DIGEST, "valueString": remittance.digest})
    if remittance.method:
        extensions.append({"url": codes.PAYMENT_METHOD_EXTENSION, "valueCode": remittance.method})
    resource: Resource = {
        "resourceType": "PaymentReconciliation",
        "extension": extensions,
        "id": name_remittance(remittance),
        "identifier": [
            {"system": codes.REMITTANCE_KEY, "value": remittance.make_key()},
            {"system": codes.TRACE_KEY, "value": remittance.make_trace_key()},
        ],
        "status": "draft",
        "created": settings.created,
        "outcome": "complete",
        "paymentDate": str(remittance.find_day()),
        "paymentAmount": make_money(amount),
        "paymentIdentifier": {"value": remittance.trace or "not told"},
        "detail": details,
    }
    issuer = {"reference": settings.payer} if settings.payer else {"display": remittance.payer_name or "unknown payer"}
    return {**resource, "paymentIssuer": issuer}


def name_remittance(remittance: Remittance) -> str:
    """The id of the PaymentReconciliation of a remittance, which its key determines."""
    return derive_id("remittance", remittance.make_key())


def name_response(remittance: Remittance, number: int) -> str:
    """The id of the ClaimResponse of a CLP, by its place from 0."""
    return derive_id("response", f"{remittance.make_key()}:{number}")
