"""`Claim/id/$split`: what the practice's rules make of a claim, tried or committed; a split claim is split once."""

from __future__ import annotations

from typing import Any

from fhir_server.fhir.outcome import build_operation_outcome
from fhir_server.operations.billing.divide import Parts, check_open, divide, write_parts
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.claim_tasks import ClaimWithTask, move, read_claim
from fhir_server.workers.posting.writes import copy, encode, put
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import Output, list_outputs
from mappers.billing.fields import Resource


async def split(context: Context, request: Request) -> Response:
    """200 with Parameters: the children, what is held, Invoices and a sentence for each line."""
    asked = read_parameters(context, request, ("commit",))
    commits = asked.flag("commit")

    async def decide(state: State) -> Decision[Parts]:
        found = await read_claim(state, f"Claim/{request.path[1]}")
        check_open(found)
        if found.state == "split":
            return Decision(await _read_parts(state, found))
        parts = await divide(Shelf(state), found.claim)
        return Decision(parts, tuple(_write(state, found, parts)) if commits else ())

    outcome = await decide_and_commit(context, request.caller, decide)
    return Response(200, encode(_to_parameters(outcome.answer)))


def _write(state: State, found: ClaimWithTask, parts: Parts) -> list[Action]:
    if parts.changed:
        return list(write_parts(state, found, parts))
    if not parts.held or (found.state == "held" and found.task.get("statusReason", {}).get("text") == parts.reason):
        return []
    return [put(move(state, found.task, "held", parts.reason))]


async def _read_parts(state: State, found: ClaimWithTask) -> Parts:
    """What was made of a claim that is split already, as it is stored now."""

    async def read(kind: Output) -> tuple[Resource, ...]:
        references = (each.split("/") for each in list_outputs(found.task, kind))
        stored = [await state.read(type, id) for type, id in references]
        return tuple(copy(each.tree) for each in stored if each is not None)

    sentences = tuple(list_outputs(found.task, "explanation"))
    return Parts(await read("child"), await read("held"), await read("invoice"), sentences, (), changed=True)


def _to_parameters(parts: Parts) -> Resource:
    found: list[dict[str, Any]] = [{"name": "changed", "valueBoolean": parts.changed}]
    for kind, resources in (("child", parts.children), ("held", parts.held), ("invoice", parts.invoices)):
        found += [{"name": kind, "resource": each} for each in resources]
    found += [{"name": "explain", "valueString": each} for each in parts.explanation]
    if parts.issues:
        found.append({"name": "outcome", "resource": build_operation_outcome(parts.issues)})
    return {"resourceType": "Parameters", "parameter": found}
