"""What the operations of prescriptions share: the one that is named, its change, who made it, and the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from fhir_server.fhir.json_tree import decode
from fhir_server.fhir.outcome import NotFound
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.writes import read_now
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Outcome
from fhir_server.writes.state import State
from mappers.billing.fields import Resource
from mappers.prescribing.codes import CHECK

TYPE = "MedicationRequest"


async def read_named(state: State, request: Request) -> Resource:
    """The MedicationRequest of the URL. Raises NotFound."""
    stored = await state.read(TYPE, request.path[1])
    if stored is None:
        raise NotFound(f"`{TYPE}/{request.path[1]}` does not exist on this server.")
    return dict(stored.tree)


def change(reference: str, elements: Mapping[str, Any]) -> Action:
    """Sets top-level elements of a stored resource, the others as they are written; its type's rule is not asked."""
    type, _, id = reference.partition("/")

    def patch(tree: Resource) -> Resource:
        return {**tree, **decode(orjson.dumps(elements))}

    return Action("PATCH", type, id, id=id, patch=patch, decided=True)


def make_provenance(
    context: Context, request: Request, targets: Iterable[str], reason: str = "", overrides: Sequence[str] = ()
) -> Action:
    """Who did what and why, written with it (https://hl7.org/fhir/R4/provenance.html).

    `overrides`: the checks that were set aside, each a coding of the reason.
    """
    provenance: Resource = {
        "resourceType": "Provenance",
        "target": [{"reference": each} for each in targets],
        "recorded": read_now(context),
        "activity": {"text": request.path[-1].removeprefix("$")},
        "agent": [{"who": {"display": request.principal.name}}],
    }
    codings = [{"system": CHECK, "code": each} for each in overrides]
    if codings or reason:
        provenance["reason"] = [{**({"coding": codings} if codings else {}), **({"text": reason} if reason else {})}]
    return Action("POST", "Provenance", context.new_id(), text=parse(orjson.dumps(provenance)))


async def respond(context: Context, request: Request, outcome: Outcome[str]) -> Response:
    """The MedicationRequest of a reference as it is now, written by this request or before."""
    done = next((each for each in outcome.results if f"{each.type}/{each.id}" == outcome.answer), None)
    if done is not None:
        location = f"{request.base}/{outcome.answer}/_history/{done.version}"
        return Response(done.status, done.text(), done.version, done.last_updated, location)
    stored = await context.reader(request.caller).read(TYPE, outcome.answer.partition("/")[2])
    if stored is None or stored.raw is None:
        raise NotFound(f"`{outcome.answer}` does not exist on this server.")
    return Response(200, stored.raw, stored.version, stored.last_updated)
