"""Claims whose balance is zero are closed, and opened again when there is one: their Tasks move with what is posted.

A claim and those that bill the same charges to other payers have one balance: what was charged less what all payers and
the patient have paid, and less what was written off (docs/billing.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from fhir_server.search.query import Equals
from fhir_server.workers.claim_tasks import move_tasks
from fhir_server.workers.posting.follow import (
    NOTHING_PENDING,
    Pending,
    find_first_claims,
    read_answers,
    read_desk_payments,
    read_invoices,
    share_charges,
)
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_responses import list_adjudications, read_posted
from mappers.billing.claim_states import ClaimState
from mappers.billing.fields import (
    Resource,
    find_code,
    find_extension,
    find_reference,
    make_reference,
    sum_amounts,
    to_amount,
)

_ENDED = ("cancelled", "entered-in-error")


async def settle_payment(state: State, payment: Resource) -> list[Action]:
    """The moves that follow from a payment or adjustment by hand that the same transaction stores."""
    on = find_reference(payment["detail"][0].get("request"))
    type, _, id = on.partition("/")
    if type == "Invoice":
        invoice = await state.read("Invoice", id)
        on = find_reference(find_extension(dict(invoice.tree), codes.CLAIM_REFERENCE)) if invoice is not None else ""
    elif type in ("Appointment", "Encounter"):
        claims = list((await find_first_claims(state, [on])).values())
        return await settle_claims(state, claims, Pending(payments=(payment,)))
    found = await state.read("Claim", on.partition("/")[2]) if on.startswith("Claim/") else None
    return [] if found is None else await settle_claims(state, [dict(found.tree)], Pending(payments=(payment,)))


async def settle_claims(state: State, claims: Sequence[Resource], pending: Pending = NOTHING_PENDING) -> list[Action]:
    """The moves of the Tasks of these claims that a payer has answered: to `closed` at a balance of zero."""
    families = await _find_families(state, claims)
    members = list({make_reference(each): each for family in families for each in family}.values())
    answers = await read_answers(state, members, pending) if members else {}
    answered = [each for each in families if any(make_reference(claim) in answers for claim in each)]
    if not answered:
        return []
    paid = await _read_paid(state, members, pending)
    targets: dict[str, tuple[Resource, ClaimState]] = {}
    for family in answered:
        names = [make_reference(each) for each in family]
        taken = [_take_off(response) for name in names for response in answers.get(name, ())]
        left = to_amount(family[0].get("total")) - sum_amounts(taken) - sum_amounts(paid[name] for name in names)
        to: ClaimState = "adjudicated" if left else "closed"
        targets |= {name: (claim, to) for name, claim in zip(names, family, strict=True) if name in answers}
    return await move_tasks(state, targets)


def _take_off(response: Resource) -> Decimal:
    """What an adjudication takes off the balance: what was paid and written off, below zero for a reversal."""
    off = sum_amounts(read_posted(each) for each in list_adjudications(response))
    return to_amount(response["payment"]["amount"]) + off


async def _find_families(state: State, claims: Sequence[Resource]) -> list[list[Resource]]:
    """The claims with those that bill the same charges, the first made first; most have one payer and stand alone."""
    several = [each for each in claims if len(each.get("insurance", ())) > 1 or each.get("related")]
    patients = tuple(sorted({find_reference(each.get("patient")) for each in several}))
    others = [dict(each.tree) for each in await state.search("Claim", Equals("patient", patients))] if patients else []
    others = [each for each in others if each.get("status") not in _ENDED]
    families: dict[str, list[Resource]] = {}
    for claim in claims:
        own = {make_reference(claim): claim}
        if claim in several:
            own |= {make_reference(each): each for each in others if share_charges(claim, each)}
        family = sorted(own.values(), key=lambda each: (bool(each.get("related")), str(each.get("created", ""))))
        families[make_reference(family[0])] = family
    return list(families.values())


async def _read_paid(state: State, claims: Sequence[Resource], pending: Pending) -> dict[str, Decimal]:
    """By claim, what the patient has paid for it, its visit and its Invoices, and what was written off by hand."""
    paid = await read_desk_payments(state, claims, pending.payments)
    invoices = await read_invoices(state, claims)
    claim_of = {make_reference(each): claim for claim, found in invoices.items() for each in found}
    patients = tuple(sorted({find_reference(each.get("patient")) for each in claims}))
    stored = await state.search("PaymentReconciliation", Equals("patient", patients))
    for payment in (*(dict(each.tree) for each in stored), *pending.payments):
        for detail in payment.get("detail", ()) if payment.get("status") == "active" else ():
            on, kind = find_reference(detail.get("request")), find_code(detail.get("type"), codes.PAYMENT_TYPE)
            claim = claim_of.get(on, on if kind == "adjustment" else "")
            if claim in paid:
                paid[claim] += to_amount(detail.get("amount"))
    return paid
