"""`PaymentReconciliation/id/$refund` and `$reverse`: what was paid or written off by hand goes back, by a new entry."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from fhir_server.fhir.outcome import Issue, Unprocessable
from fhir_server.operations.payments.asked import (
    Made,
    answer,
    find_occasion,
    need,
    read_amount,
    read_key,
    refuse,
    store_once,
)
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.search.query import Equals
from fhir_server.workers.posting.follow import Pending, follow_claim
from fhir_server.workers.posting.writes import name
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource, find_code, find_extension, find_identifier, find_reference
from mappers.billing.patient_money import Occasion, make_refund, reverse_payment

GiveBack = Callable[[Resource, list[Resource], Occasion], Resource | Issue]


async def refund(context: Context, request: Request) -> Response:
    """201 with a PaymentReconciliation below 0 that names the payment; at most what is left of it."""
    asked = read_parameters(context, request, ("amount", "key"))
    amount = read_amount(asked)
    return await _give_back(context, request, asked, _refund(amount))


async def reverse(context: Context, request: Request) -> Response:
    """201 with a PaymentReconciliation that takes back what is left of a payment or adjustment by hand."""
    asked = read_parameters(context, request, ("key",))
    return await _give_back(context, request, asked, reverse_payment)


def _refund(amount: Decimal) -> GiveBack:
    def make(payment: Resource, others: list[Resource], occasion: Occasion) -> Resource | Issue:
        if find_code(payment["detail"][0]["type"], codes.PAYMENT_TYPE) == "adjustment":
            text = "What was written off cannot be refunded; `$reverse` takes an adjustment back."
            return Issue("error", "business-rule", text, ("PaymentReconciliation.detail.type",))
        return make_refund(payment, others, amount, occasion)

    return make


async def _give_back(context: Context, request: Request, asked: Parameters, make: GiveBack) -> Response:
    reference, operation = f"PaymentReconciliation/{request.path[1]}", request.path[-1]
    read_key(asked)

    async def decide(state: State) -> Decision[Made]:
        payment = dict((await need(state, reference)).tree)
        _check(payment, reference)
        patient = find_reference(find_extension(payment, codes.PAYMENT_PATIENT))
        on = find_reference(payment["detail"][0]["request"])
        state.lock((f"money {on}",))
        found = await state.search("PaymentReconciliation", Equals("detail-request", (on,)))
        occasion = await find_occasion(state, asked, f"{reference}/{operation}", patient)
        others = [dict(each.tree) for each in found if find_identifier(dict(each.tree), codes.REMITTANCE_KEY)]
        own = [each for each in others if find_identifier(each, codes.REMITTANCE_KEY) == occasion.key]
        made = make(payment, [each for each in others if each not in own], occasion)
        if isinstance(made, Issue):
            raise refuse(made)
        made = name(made)
        decision = await store_once(state, made)
        if decision.actions and on.startswith("Claim/"):
            further = await follow_claim(state, on, Pending(payments=(made,)))
            return Decision(decision.answer, (*decision.actions, *further))
        return decision

    return await answer(context, request, decide)


def _check(payment: Resource, reference: str) -> None:
    """Refuse what posting did not make."""
    if payment.get("status") != "active" or not find_identifier(payment, codes.REMITTANCE_KEY):
        text = f"`{reference}` is no active payment that was posted here."
        raise Unprocessable(text, expression=("PaymentReconciliation.status",))
    if "paymentIssuer" not in payment and not find_extension(payment, codes.PAYMENT_PATIENT):
        raise Unprocessable(f"`{reference}` is no payment of a patient.", expression=("PaymentReconciliation",))
