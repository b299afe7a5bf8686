"""`$post` of a payment or adjustment that came by HL7 v2 (FT1-6 PY, AJ) and waits as a Task `payment-not-posted`."""

from __future__ import annotations

from typing import Any

from fhir_server.fhir.outcome import Invalid, Issue, Unprocessable
from fhir_server.operations.payments.adjust import find_open
from fhir_server.operations.payments.asked import (
    Made,
    answer,
    complete_task,
    find_patient,
    need,
    refuse,
    store_once,
)
from fhir_server.operations.payments.pay import balance_invoice
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.writes import copy, name, read_now
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_code, find_reference, make_reference, to_amount
from mappers.billing.patient_money import REASONS, Occasion, make_adjustment, make_payment

_CODE = "payment-not-posted"


async def post_task(context: Context, request: Request) -> Response:
    """201 with the PaymentReconciliation of the Task, which is completed; 200 with the one that was made before."""
    asked = read_parameters(context, request, ("task", "request", "reason", "method"))
    reference, on = asked.reference("task"), asked.reference("request")
    if not reference.startswith("Task/") or not on:
        text = "To post a Task, `$post` needs `task` and `request`: the Claim, Invoice, Encounter or Appointment."
        raise Invalid(text, code="required", expression=("request" if reference.startswith("Task/") else "task",))

    async def decide(state: State) -> Decision[Made]:
        task = copy((await need(state, reference)).tree)
        values = _read_inputs(task, reference)
        target = dict((await need(state, on)).tree)
        patient = find_reference(task.get("for"))
        if not patient or find_patient(target) != patient:
            text = f"`{on}` is of `{find_patient(target) or 'nobody'}`, and `{reference}` of `{patient or 'nobody'}`."
            raise Unprocessable(text, expression=("request",))
        state.lock((f"money {on}",))
        day = str(await read_posting_day(state))
        occasion = Occasion(f"{reference}/$post", read_now(state.context), day, patient)
        payment = await _make(state, values, target, asked, occasion)
        further = await balance_invoice(state, target, payment) if target["resourceType"] == "Invoice" else ()
        return await store_once(state, payment, (complete_task(task, payment), *further))

    return await answer(context, request, decide)


def _read_inputs(task: Resource, reference: str) -> dict[str, Any]:
    """What the message told, by name. Raises Unprocessable for another Task."""
    values = {
        str((each.get("type") or {}).get("text")): value
        for each in task.get("input", ())
        for key, value in each.items()
        if key.startswith("value")
    }
    if find_code(task.get("code")) != _CODE or "amount" not in values:
        text = f"`{reference}` is no Task `{_CODE}` with an amount."
        raise Unprocessable(text, expression=("task",))
    if task.get("status") not in ("requested", "completed"):
        text = f"`{reference}` is `{task.get('status')}`; only a Task that is `requested` is posted."
        raise Unprocessable(text, expression=("task",))
    return values


async def _make(
    state: State, values: dict[str, Any], target: Resource, asked: Parameters, occasion: Occasion
) -> Resource:
    """PY is the patient's money, AJ is written off by hand for the reason that a person tells."""
    on, amount, reason = make_reference(target), to_amount(values["amount"]), asked.text("reason")
    made: Resource | Issue
    if values.get("transaction type") == "AJ":
        if target["resourceType"] != "Claim":
            text = "An adjustment is written off on a Claim; name it as `request`."
            raise Unprocessable(text, expression=("request",))
        if reason not in REASONS:
            text = f"`reason` says why it is written off, one of {', '.join(f'`{each}`' for each in REASONS)}."
            raise Invalid(text, code="required" if not reason else "value", expression=("reason",))
        open_amount = await find_open(state, on, occasion.patient, occasion.key)
        made = make_adjustment(on, amount, reason, open_amount, occasion)
    else:
        made = make_payment(amount, on, occasion, asked.text("method"))
    if isinstance(made, Issue):
        raise refuse(made)
    return name(made)
