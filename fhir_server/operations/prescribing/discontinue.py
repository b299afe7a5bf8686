"""`MedicationRequest/id/$discontinue`: a prescription is stopped, or withdrawn before it was used, with the reason."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid, Unprocessable
from fhir_server.operations.prescribing.changes import TYPE, change, make_provenance, read_named, respond
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, make_reference
from mappers.prescribing.life_cycle import DISCONTINUED, check_transition, find_end
from mappers.scheduling.elements import code_of


async def discontinue(context: Context, request: Request) -> Response:
    """200 with the MedicationRequest; unchanged where it was discontinued before."""
    asked = read_parameters(context, request, ("reason", "status"))
    reason, chosen = _read_reason(asked), asked.text("status")
    if chosen and chosen not in DISCONTINUED:
        text = f"`status` is `stopped` or `cancelled`, not `{chosen}`."
        raise Invalid(text, code="value", expression=("status",))

    async def decide(state: State) -> Decision[str]:
        prescription = await read_named(state, request)
        reference, status = make_reference(prescription), code_of(prescription)
        end = chosen or (status if status in DISCONTINUED else find_end(status))
        issue = check_transition(status, end)
        if issue:
            raise Unprocessable(issues=[issue])
        if status == end:
            return Decision(reference)
        actions = (
            change(reference, {"status": end, "statusReason": reason}),
            make_provenance(context, request, [reference], str(reason.get("text", ""))),
        )
        return Decision(reference, actions)

    return await respond(context, request, await decide_and_commit(context, request.caller, decide))


def _read_reason(asked: Parameters) -> Resource:
    """The reason as a CodeableConcept, which a text becomes. Raises Invalid without one."""
    value = asked.find("reason")
    if isinstance(value, dict) and ("coding" in value or "text" in value):
        return value
    if isinstance(value, str) and value.strip():
        return {"text": value}
    text = f"Say why `{TYPE}` is discontinued: `reason` as a text or as a CodeableConcept."
    raise Invalid(text, code="required", expression=("reason",))
