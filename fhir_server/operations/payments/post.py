"""`PaymentReconciliation/$post`: a remittance that a person typed; the same Parameters and laws as those of an 835."""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.fhir.outcome import Conflict, FhirError, Invalid, Issue, Unprocessable
from fhir_server.fhir.resource import parse
from fhir_server.operations.parameters import refuse_parameters
from fhir_server.operations.payments.apply import apply_task
from fhir_server.operations.payments.post_task import post_task
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.remittances import Taken, post_at_once
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.remittance import Remittance, check_balance
from mappers.billing.remittance_parameters import parameters_to_remittance
from mappers.billing.unapplied import find_detail_key


async def post(context: Context, request: Request) -> Response:
    """201 with the active PaymentReconciliation, 200 with the one that the same Parameters made before."""
    refuse_parameters(request)
    if _names_task(request):
        waits = await _is_unapplied(context, request)
        return await (apply_task if waits else post_task)(context, request)
    remittance, by = _read(context, request)

    async def decide(state: State) -> Decision[Taken]:
        faults = check_balance(remittance).transaction
        if faults:
            raise Unprocessable(issues=[Issue("error", "business-rule", each, ("amount",)) for each in faults])
        taken = await post_at_once(state, remittance, by)
        if taken.answer.task is not None:
            raise Conflict(str(taken.answer.task["description"]), code="duplicate", expression=("trace",))
        return taken

    outcome = await decide_and_commit(context, request.caller, decide)
    made = outcome.answer.draft
    posted = made or outcome.answer.posted or {}
    stored = await context.reader(request.caller).read("PaymentReconciliation", posted["id"])
    assert stored is not None
    location = f"{request.base}/{stored.reference}/_history/{stored.version}"
    status = 200 if made is None else 201
    return Response(status, stored.raw or b"", stored.version, stored.last_updated, location)


def _names_task(request: Request) -> bool:
    parts = parse(request.body).tree.get("parameter")
    return any(isinstance(each, dict) and each.get("name") == "task" for each in parts or ())


async def _is_unapplied(context: Context, request: Request) -> bool:
    """Whether the Task that is named is about a detail of a remittance, and not about money that came by HL7 v2."""
    names = ("task", "request", "reason", "method", "claim", "posted-by")
    reference = read_parameters(context, request, names).reference("task")
    found = (await context.reader(request.caller).read_many([reference])).get(reference)
    return found is not None and found.raw is not None and bool(find_detail_key(orjson.loads(found.raw)))


def _read(context: Context, request: Request) -> tuple[Remittance, str]:
    """The remittance of the body, and who typed it: the part `posted-by`, else who asks. Raises Invalid."""
    tree = parse(request.body).tree
    if tree.get("resourceType") != "Parameters":
        raise Invalid("The body of `$post` has to be a Parameters resource.", code="structure")
    issues = context.validator.find_issues(tree)
    if issues:
        raise Invalid(issues=issues)
    parts: list[dict[str, Any]] = tree.get("parameter", [])
    names = [each for each in parts if each["name"] == "posted-by"]
    by = str(next(iter(names), {}).get("valueString", "")).strip() or request.principal.name
    found = parameters_to_remittance(each for each in parts if each["name"] != "posted-by")
    if isinstance(found, Issue):
        raise _refuse(found)
    return found, by


def _refuse(issue: Issue) -> FhirError:
    return (Unprocessable if issue.code == "too-costly" else Invalid)(issues=(issue,))
