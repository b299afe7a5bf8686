"""create, conditional create included (https://hl7.org/fhir/R4/http.html#create)."""

from __future__ import annotations

from fhir_server.interactions.write_requests import build_write_response, check_write_request, parse_body
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_if_none_exist
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit


async def create(context: Context, request: Request) -> Response:
    """201 and the new resource; with `If-None-Exist` 200 and the one that matches, 412 when several do."""
    (type,) = request.path
    check_write_request(request)
    criteria = request.headers.get("if-none-exist")
    action = Action(
        "POST",
        type,
        context.new_id(),
        criteria=None if criteria is None else parse_if_none_exist(criteria, type),
        text=parse_body(request, type),
    )
    return build_write_response(context, request, await commit(context, action, request.caller))
