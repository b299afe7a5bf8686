"""`Patient/id/$pay`: money of a patient on an Appointment, Encounter, Claim or Invoice; its key makes it exist once."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid, Issue, Unprocessable
from fhir_server.operations.payments.asked import (
    Made,
    answer,
    find_occasion,
    find_patient,
    need,
    read_amount,
    read_key,
    refuse,
    store_once,
)
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.search.query import Equals
from fhir_server.workers.posting.writes import copy, put
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference, sum_amounts, to_amount
from mappers.billing.patient_money import make_payment

_NAMES = ("amount", "request", "key", "method")


async def pay(context: Context, request: Request) -> Response:
    """201 with an active PaymentReconciliation, 200 with the one that the same key made before."""
    asked = read_parameters(context, request, _NAMES)
    patient, amount, on = f"Patient/{request.path[1]}", read_amount(asked), asked.reference("request")
    read_key(asked)
    if not on:
        text = "`$pay` needs `request`: the Appointment, Encounter, Claim or Invoice that is paid."
        raise Invalid(text, code="required", expression=("request",))

    async def decide(state: State) -> Decision[Made]:
        occasion = await find_occasion(state, asked, f"{patient}/$pay", patient)
        payment = make_payment(amount, on, occasion, asked.text("method"))
        if isinstance(payment, Issue):
            raise refuse(payment)
        await need(state, patient)
        target = dict((await need(state, on)).tree)
        if find_patient(target) != patient:
            text = f"`{on}` is of `{find_patient(target) or 'nobody'}`, not of `{patient}`."
            raise Unprocessable(text, expression=("request",))
        state.lock((f"money {on}",))
        further = await balance_invoice(state, target, payment) if target["resourceType"] == "Invoice" else ()
        return await store_once(state, payment, further)

    return await answer(context, request, decide)


async def balance_invoice(state: State, invoice: Resource, payment: Resource) -> tuple[Action, ...]:
    """The Invoice as `balanced` where this payment pays the rest of it."""
    on = find_reference(payment["detail"][0]["request"])
    before = await state.search("PaymentReconciliation", Equals("detail-request", (on,)))
    details = [
        each
        for found in before
        for each in found.tree.get("detail", ())
        if find_reference(each.get("request")) == on and found.tree.get("status") == "active"
    ]
    paid = sum_amounts(to_amount(each["amount"]) for each in (*details, payment["detail"][0]))
    if invoice.get("status") == "issued" and paid >= to_amount(invoice.get("totalNet")):
        return (put({**copy(invoice), "status": "balanced"}),)
    return ()
