"""create, conditional create included (https://hl7.org/fhir/R4/http.html#create)."""

from __future__ import annotations

from fhir_server.interactions.provenance import commit_with_provenance
from fhir_server.interactions.summary import FORMAT_PARAMETERS
from fhir_server.interactions.write_requests import build_write_response, check_write_request, parse_body
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_if_none_exist
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import Action


def _has_criteria(context: Context, request: Request, type: str) -> bool:
    """Whether all that the URL says is search parameters of the type: `POST Type?criteria` is a conditional create.

    R4 writes it with `If-None-Exist` alone; clients that know conditional updates write it so as well.
    """
    names = [name for name, _ in request.query if name not in FORMAT_PARAMETERS]
    known = context.registry.parameters(type)
    return bool(names) and all(name.partition(":")[0].partition(".")[0] in known for name in names)


async def create(context: Context, request: Request) -> Response:
    """201 and the new resource; with `If-None-Exist` 200 and the one that matches, 412 when several do."""
    (type,) = request.path
    header = request.headers.get("if-none-exist")
    criteria = None if header is None else parse_if_none_exist(header, type)
    if criteria is None and _has_criteria(context, request, type):
        criteria = request.query
    check_write_request(request, criteria=criteria is request.query)
    action = Action(
        "POST",
        type,
        context.new_id(),
        criteria=criteria,
        text=await parse_body(context, request, type),
    )
    return build_write_response(context, request, await commit_with_provenance(context, request, action))
