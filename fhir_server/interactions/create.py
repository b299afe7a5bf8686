"""create, conditional create included (https://hl7.org/fhir/R4/http.html#create)."""

from __future__ import annotations

from fhir_server.interactions.write_requests import answer, body_of, check_write
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import criteria_pairs
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit


async def create(context: Context, request: Request) -> Response:
    """201 and the new resource; with `If-None-Exist` 200 and the one that matches, 412 when several do."""
    (type,) = request.path
    check_write(request)
    criteria = request.headers.get("if-none-exist")
    action = Action(
        "POST",
        type,
        context.new_id(),
        criteria=None if criteria is None else criteria_pairs(criteria, type),
        text=body_of(request, type),
    )
    return answer(context, request, await commit(context, action, request.base))
