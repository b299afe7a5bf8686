"""`MedicationRequest/id/$new-rx`: an active prescription as a document shaped like NewRx, for whoever sends it on."""

from __future__ import annotations

import orjson

from fhir_server.fhir.outcome import Issue, Unprocessable
from fhir_server.operations.parameters import refuse_parameters
from fhir_server.operations.prescribing.changes import TYPE, read_named
from fhir_server.operations.prescribing.surroundings import find_local, read, read_drugs, read_people, read_prescription
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.writes.state import State
from mappers.billing.fields import resolve
from mappers.prescribing.checks import Prescription, check_completeness
from mappers.prescribing.new_rx import Order, find_missing, order_to_new_rx
from mappers.scheduling.elements import code_of

JSON = "application/json"


async def new_rx(context: Context, request: Request) -> Response:
    """200 with the document; 422 with what a pharmacy would miss."""
    refuse_parameters(request)
    state = State(context, request.caller, context.reader(request.caller))
    prescription = await read_named(state, request)
    if code_of(prescription) != "active" or prescription.get("doNotPerform") is True:
        text = (
            f"`{TYPE}/{prescription['id']}` is `{code_of(prescription)}`; a pharmacy is told of what is active alone."
        )
        if prescription.get("doNotPerform") is True:
            text = f"`{TYPE}/{prescription['id']}` says that a drug is not to be given; no pharmacy is told."
        raise Unprocessable(text, expression=(f"{TYPE}.status",))
    around = await read_prescription(State(context, request.caller), prescription)
    order = await _read_order(state, around)
    issues = [each.issue for each in check_completeness(around)]
    issues += [each for each in find_missing(order) if not _is_told(each, issues)]
    if issues:
        raise Unprocessable(issues=issues)
    return Response(200, orjson.dumps(order_to_new_rx(order)), content_type=JSON)


async def _read_order(state: State, around: Prescription) -> Order:
    """The prescription with what the caller may see of it."""
    prescription = around.request
    drug = resolve(prescription.get("medicationReference"), await read_drugs(state, [prescription]), prescription) or {}
    concept = prescription.get("medicationCodeableConcept") or drug.get("code") or {}
    performer = (prescription.get("dispenseRequest") or {}).get("performer")
    return Order(
        prescription,
        concept,
        around.medicine,
        await read(state, find_local(state, prescription.get("subject"))) or {},
        await read_people(state, prescription),
        await read(state, find_local(state, performer)),
    )


def _is_told(issue: Issue, issues: list[Issue]) -> bool:
    """Whether something is wrong already where it is."""
    return any(issue.expression == each.expression for each in issues)
