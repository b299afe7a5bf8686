"""update, update-as-create and conditional update (https://hl7.org/fhir/R4/http.html#update)."""

from __future__ import annotations

from fhir_server.interactions.provenance import commit_with_provenance
from fhir_server.interactions.write_requests import (
    build_write_response,
    check_write_request,
    parse_body,
    parse_if_none_match_star,
)
from fhir_server.requests.context import Context
from fhir_server.requests.headers import parse_if_match
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import Action
from fhir_server.writes.identity import check_id


async def update(context: Context, request: Request) -> Response:
    """200, or 201 when the resource was not there; an identical body makes no new version."""
    type, id = request.path
    check_id(id)
    check_write_request(request)
    text = await parse_body(context, request, type)
    action = Action(
        "PUT",
        type,
        id,
        id=id,
        text=text,
        if_match=parse_if_match(request),
        absent=parse_if_none_match_star(request),
    )
    return build_write_response(context, request, await commit_with_provenance(context, request, action))


async def conditional_update(context: Context, request: Request) -> Response:
    """No match: created; one: updated; several: 412."""
    (type,) = request.path
    check_write_request(request, criteria=True)
    action = Action(
        "PUT",
        type,
        context.new_id(),
        criteria=request.query,
        text=await parse_body(context, request, type),
        if_match=parse_if_match(request),
        absent=parse_if_none_match_star(request),
    )
    return build_write_response(context, request, await commit_with_provenance(context, request, action))
