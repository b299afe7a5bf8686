"""`Claim/id/$adjust`: what is open of a claim is written off by hand, for a reason; `$reverse` takes it back."""

from __future__ import annotations

from decimal import Decimal

from fhir_server.fhir.outcome import Invalid, Issue, Unprocessable
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
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.reading import find_in, read_patient
from fhir_server.workers.posting.writes import read_today
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.balances import share_balances
from mappers.billing.fields import ZERO, find_identifier, find_reference
from mappers.billing.ledger import find_root, make_books
from mappers.billing.patient_money import REASONS, make_adjustment


async def adjust(context: Context, request: Request) -> Response:
    """201 with a PaymentReconciliation of amount 0 and a detail of type `adjustment`."""
    asked = read_parameters(context, request, ("amount", "reason", "key"))
    claim, amount, reason = f"Claim/{request.path[1]}", read_amount(asked), asked.text("reason")
    read_key(asked)
    if reason not in REASONS:
        text = f"`reason` says why it is written off, one of {', '.join(f'`{each}`' for each in REASONS)}."
        raise Invalid(text, code="required" if not reason else "value", expression=("reason",))

    async def decide(state: State) -> Decision[Made]:
        found = dict((await need(state, claim)).tree)
        if found.get("status") in ("cancelled", "entered-in-error", "draft"):
            text = f"`{claim}` is `{found.get('status')}`; only what was billed can be written off."
            raise Unprocessable(text, expression=("Claim.status",))
        patient = find_reference(found.get("patient"))
        occasion = await find_occasion(state, asked, f"{claim}/$adjust", patient)
        state.lock((f"money {claim}",))
        open_amount = await find_open(state, claim, patient, occasion.key)
        made = make_adjustment(claim, amount, reason, open_amount, occasion)
        if isinstance(made, Issue):
            raise refuse(made)
        return await store_once(state, made)

    return await answer(context, request, decide)


async def find_open(state: State, claim: str, patient: str, key: str) -> Decimal:
    """What is open of the claim and those to later payers, this adjustment aside."""
    resources = await read_patient(find_in(state), patient)
    own = [name for name, each in resources.items() if find_identifier(each, codes.REMITTANCE_KEY) == key]
    books = make_books({name: each for name, each in resources.items() if name not in own})
    share = share_balances(books, read_today(state.context)).get(find_root(books, claim))
    return share.total if share is not None else ZERO
