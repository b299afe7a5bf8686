"""`Claim/$transmit`: claims split, scrubbed and written into an 837P for each partner, with one delivery each.

All of it is one decision: whoever calls it twice, or twice at once, sends once. Clean claims go, the others are told of
one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from fhir_server.fhir.outcome import Invalid, TooCostly, Unprocessable
from fhir_server.operations.billing.outgoing import Asked, Batch, Case, Outgoing, prepare
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.partners import Partner
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.claim_tasks import move
from fhir_server.workers.message_deliveries import Delivery, make_delivery
from fhir_server.workers.posting.writes import encode, find_zone, put
from fhir_server.workers.x12_intake import EDI_X12
from fhir_server.workers.x12_partners import allot_number, to_mapper_partner
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import make_output
from mappers.billing.fields import Resource, find_reference
from mappers.x12.claim_to_837p import Written837, write_837p
from mappers.x12.fault import fault_to_issue, find_errors
from mappers.x12.writer import ControlNumbers

MOST_CLAIMS = 100
"""Claims of one request."""

_FREQUENCIES = ("1", "7", "8")


async def transmit(context: Context, request: Request) -> Response:
    """200 with Parameters: a part for each claim, with its state, its transmission and its findings."""
    asked = read_parameters(context, request, ("claim", "partner", "resubmit", "frequency"))
    claims, how = _read_claims(asked, request), _read_asked(context, asked)

    async def decide(state: State) -> Decision[list[Case]]:
        batch = Batch(state, how, Shelf(state))
        for reference in claims:
            await prepare(batch, reference)
        partners = {each.partner.name: each.partner for each in batch.outgoing}
        for name, partner in partners.items():
            await _send(batch, partner, [each for each in batch.outgoing if each.partner.name == name])
        return Decision(batch.cases, tuple(batch.writes.values()))

    outcome = await decide_and_commit(context, request.caller, decide)
    return Response(200, encode(_to_parameters(outcome.answer)))


def _read_claims(asked: Parameters, request: Request) -> list[str]:
    own = [f"Claim/{request.path[1]}"] if len(request.path) == 3 else []
    claims = list(dict.fromkeys([*own, *asked.references("claim")]))
    if own and len(claims) > 1:
        text = "`Claim/id/$transmit` sends that claim; name several in `claim` of `Claim/$transmit`."
        raise Invalid(text, code="value", expression=("claim",))
    if not claims or not all(each.startswith("Claim/") for each in claims):
        text = "`$transmit` needs `claim`: a reference such as `Claim/1`, once for each claim."
        raise Invalid(text, code="required" if not claims else "value", expression=("claim",))
    if len(claims) > MOST_CLAIMS:
        text = f"`$transmit` takes at most {MOST_CLAIMS} claims at a time, not {len(claims)}; send the rest after them."
        raise TooCostly(text)
    return claims


def _read_asked(context: Context, asked: Parameters) -> Asked:
    partner, resubmit, frequency = asked.text("partner"), asked.flag("resubmit"), asked.text("frequency")
    if partner and partner not in context.partners:
        names = ", ".join(f"`{each}`" for each in context.partners) or "none"
        raise Invalid(f"There is no partner `{partner}`; partners are {names}.", code="value", expression=("partner",))
    if frequency and frequency not in _FREQUENCIES:
        text = f"`frequency` is 1 (original), 7 (replacement) or 8 (void), not `{frequency}`."
        raise Invalid(text, code="value", expression=("frequency",))
    if resubmit and not frequency:
        text = "`resubmit` needs a `frequency`: 1 (the payer never took it), 7 (it replaces) or 8 (it voids)."
        raise Invalid(text, code="required", expression=("frequency",))
    return Asked(partner, resubmit, frequency or "1")


async def _send(batch: Batch, partner: Partner, items: Sequence[Outgoing]) -> None:
    """One interchange of the claims of a partner with its delivery; the claims become sent, or held where faulty."""
    endpoint = partner.transports.find_endpoint("folder") or {}
    if "out" not in endpoint:
        _refuse(batch, items, f"The file of partner `{partner.name}` has no folder `out`; add it (docs/partners.md).")
        return
    context = batch.state.context
    number = await allot_number(context, partner.name)
    written = _write(context, partner, items, number)
    sent = [each for each, faults in zip(items, written.faults, strict=True) if not find_errors(faults)]
    for item, faults in zip(items, written.faults, strict=True):
        item.case.issues += [fault_to_issue(each).to_json() for each in faults]
        if item not in sent:
            batch.hold(item.case, item.task, f"The 837P cannot be written: {faults[0].sentence}")
    if not sent:
        return
    if find_errors(written.check):
        raise Unprocessable(issues=[fault_to_issue(each) for each in find_errors(written.check)])
    patients = {find_reference(each.claim.get("patient")) for each in sent}
    delivery = Delivery(
        partner.name,
        "x12",
        "folder",
        "",
        0,
        f"{number:09}",
        written.text.encode("ascii"),
        EDI_X12,
        patient=patients.pop() if len(patients) == 1 else "",
        occasion=f"interchange {number}",
        about=tuple(each.case.claim for each in sent),
    )
    actions = await make_delivery(batch.state, delivery)
    batch.write(actions)
    _mark_sent(batch, sent, f"Task/{actions[-1].id}")


def _write(context: Context, partner: Partner, items: Sequence[Outgoing], number: int) -> Written837:
    moment = datetime.fromtimestamp(context.clock() / 1_000_000, find_zone(context))
    numbers = ControlNumbers(number, number, moment)
    sources = [each.source for each in items]
    return write_837p(sources, to_mapper_partner(partner), numbers, lambda place: f"{place + 1:04}")


def _mark_sent(batch: Batch, sent: Iterable[Outgoing], delivery: str) -> None:
    for item in sent:
        output = make_output("transmission", valueReference={"reference": delivery})
        item.case.state, item.case.transmission = "sent", delivery
        batch.write([put(item.claim), put(move(batch.state, item.task, "sent", outputs=[output]))])
        batch.write(put(each) for each in item.charges)


def _refuse(batch: Batch, items: Iterable[Outgoing], text: str) -> None:
    for item in items:
        item.case.issues.append(
            {"severity": "error", "code": "business-rule", "diagnostics": text, "expression": ["Claim.insurance"]}
        )
        batch.hold(item.case, item.task, text)


def _to_parameters(cases: Sequence[Case]) -> Resource:
    return {"resourceType": "Parameters", "parameter": [{"name": "claim", "part": _to_parts(each)} for each in cases]}


def _to_parts(case: Case) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"name": "reference", "valueReference": {"reference": case.claim}}]
    if case.state:
        parts.append({"name": "state", "valueCode": case.state})
    for name, reference in (("source", case.source), ("transmission", case.transmission)):
        if reference:
            parts.append({"name": name, "valueReference": {"reference": reference}})
    if case.issues:
        parts.append({"name": "outcome", "resource": {"resourceType": "OperationOutcome", "issue": case.issues}})
    return parts
