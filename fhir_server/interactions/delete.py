"""delete and conditional delete (https://hl7.org/fhir/R4/http.html#delete)."""

from __future__ import annotations

from fhir_server.interactions.provenance import commit_with_provenance
from fhir_server.interactions.write_requests import build_write_response, check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.headers import parse_if_match
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import Action
from fhir_server.writes.identity import check_id


async def delete(context: Context, request: Request) -> Response:
    """204, also when nothing was there; 409 while other resources refer to it."""
    type, id = request.path
    check_write_request(request)
    action = Action("DELETE", type, id, id=check_id(id), if_match=parse_if_match(request))
    return build_write_response(context, request, await commit_with_provenance(context, request, action))


async def conditional_delete(context: Context, request: Request) -> Response:
    """204; several matches are 412 unless the setting `conditional_delete` is `multiple`."""
    (type,) = request.path
    check_write_request(request, criteria=True)
    action = Action("DELETE", type, "", criteria=request.query, if_match=parse_if_match(request))
    return build_write_response(context, request, await commit_with_provenance(context, request, action))
