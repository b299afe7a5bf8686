"""`$post` of a Task `unapplied-payment`: money that waits in a posted remittance is applied to the claims it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fhir_server.fhir.outcome import Conflict, FhirError, Invalid, Issue, Unprocessable
from fhir_server.operations.payments.asked import Made, answer, complete_task, need, refuse
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.remittances import PostedAtOnce, make_draft, post_draft
from fhir_server.workers.posting.writes import copy, put, read_now
from fhir_server.workers.postings import read_source
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_states import find_number
from mappers.billing.fields import Resource, derive_id, find_extension, find_reference, make_reference, sum_amounts
from mappers.billing.posting import PostingSettings, name_remittance
from mappers.billing.remittance import ClaimPayment, Remittance, check_claim
from mappers.billing.remittance_parameters import parameters_to_claims
from mappers.billing.unapplied import close_detail, find_detail, find_detail_key, find_reason, make_application


@dataclass(frozen=True, slots=True)
class _Asked:
    """The Task, the Claim to which it is applied as the payer told it, else the claims as typed; who does it."""

    task: str
    request: str
    claims: tuple[ClaimPayment, ...]
    by: str


async def apply_task(context: Context, request: Request) -> Response:
    """201 with the PaymentReconciliation that applies the detail, 200 with the one that was made before."""
    asked = _read(request, read_parameters(context, request, ("task", "request", "claim", "posted-by")))
    texts: dict[str, Remittance | None] = {}

    async def decide(state: State) -> Decision[Made]:
        task = copy((await need(state, asked.task)).tree)
        key = find_detail_key(task)
        id = derive_id("remittance", key.rpartition(":")[0])
        payment = dict((await need(state, f"PaymentReconciliation/{id}")).tree)
        detail = find_detail(payment, key)
        if isinstance(detail, Issue):
            raise refuse(detail)
        claims = asked.claims or (await _read_told(state, asked.request, payment, key, texts),)
        remittance = make_application(payment, detail, claims)
        before = await state.read("PaymentReconciliation", name_remittance(remittance))
        if before is not None:
            _refuse_other(dict(before.tree), remittance)
            return Decision(Made(make_reference(dict(before.tree)), before))
        if task.get("status") != "requested":
            text = f"`{asked.task}` is `{task.get('status')}`; only a Task that is `requested` is posted."
            raise Unprocessable(text, expression=("task",))
        posted = await _post(state, remittance, payment, asked)
        active = close_detail(posted.active, payment, detail, asked.task)
        return Decision(Made(make_reference(active)), (put(active), *posted.further, complete_task(task, active)))

    return await answer(context, request, decide)


def _read(request: Request, asked: Parameters) -> _Asked:
    """What is asked. Raises Invalid, TooCostly."""
    claims = parameters_to_claims({"name": "claim", "part": each} for each in asked.values.get("claim", ()))
    if isinstance(claims, Issue):
        raise refuse(claims)
    on = asked.reference("request")
    if bool(on) == bool(claims) or (on and not on.startswith("Claim/")):
        text = (
            "To apply what is unapplied, `$post` needs `request`, the Claim that it is for as the payer told it, or "
            "`claim`, the parts of one claim or several as they should have been told; not both."
        )
        raise Invalid(text, code="required", expression=("request",))
    return _Asked(asked.reference("task"), on, claims, asked.text("posted-by").strip() or request.principal.name)


async def _read_told(
    state: State, on: str, payment: Resource, key: str, texts: dict[str, Remittance | None]
) -> ClaimPayment:
    """The CLP of a detail under the number of the Claim that a person has chosen.

    `texts` keeps what was read: to read a large 835 takes seconds, and a decision may be made again.
    """
    number = find_number(dict((await need(state, on)).tree))
    if not number:
        text = f"`{on}` has no patient control number, so that nothing was billed by it."
        raise Unprocessable(text, expression=("request",))
    reference = make_reference(payment)
    if reference not in texts and not find_extension(payment, codes.POSTED_BY):
        texts[reference] = await read_source(state.context, payment)
    source = texts.get(reference)
    if source is None:
        text = f"`{reference}` has no text of a payer any more; name `claim` with its parts."
        raise Unprocessable(text, expression=("claim",))
    return replace(source.claims[int(key.rpartition(":")[2])], control_number=number)


def _refuse_other(before: Resource, remittance: Remittance) -> None:
    """Raises Conflict where it was applied otherwise."""
    if find_extension(before, codes.DIGEST) != remittance.digest:
        claims = ", ".join(f"`{find_reference(each['request'])}`" for each in before["detail"] if "request" in each)
        text = f"It was applied to {claims} before, by `{make_reference(before)}`; it can be applied once."
        raise Conflict(text, code="duplicate", expression=("task",))


async def _post(state: State, remittance: Remittance, payment: Resource, asked: _Asked) -> PostedAtOnce:
    """The claims as they post. Raises Unprocessable where one of them does not."""
    told = sum_amounts(each.paid for each in remittance.claims)
    amount = remittance.amount if remittance.credit else -remittance.amount
    if told != amount:
        raise _refuse_all([f"The claims are paid {told:.2f}, and {amount:.2f} are unapplied in it."])
    if faults := [each.sentence for n, claim in enumerate(remittance.claims) for each in check_claim(n, claim)]:
        raise _refuse_all(faults)
    issuer = find_reference(payment.get("paymentIssuer"))
    settings = PostingSettings(read_now(state.context), str(await read_posting_day(state)), issuer, posted_by=asked.by)
    posted = await post_draft(state, remittance, make_draft(remittance, settings))
    if posted.responses < len(remittance.claims):
        raise _refuse_all([find_reason(each) for each in posted.tasks if find_detail_key(each)])
    return posted


def _refuse_all(sentences: Sequence[str]) -> FhirError:
    return Unprocessable(
        issues=[Issue("error", "business-rule", f"{each} Nothing was applied.", ("claim",)) for each in sentences]
    )
