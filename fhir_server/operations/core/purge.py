"""`$purge`: physical removal of one resource with its history; off unless the setting `purge` is on."""

from __future__ import annotations

import orjson

from fhir_server.fhir.outcome import Issue, NotFound, build_operation_outcome
from fhir_server.interactions.write_requests import check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.store.protocol import SEARCH_PARAMETER
from fhir_server.writes.action import Action
from fhir_server.writes.apply_rules import ask_rule
from fhir_server.writes.commit import commit
from fhir_server.writes.plan import Plan
from fhir_server.writes.resolve_targets import Target


async def purge(context: Context, request: Request) -> Response:
    """200 with an OperationOutcome; 404 when there is nothing, 409 while other resources refer to it."""
    check_write_request(request)  # a precondition that was ignored here could not be made good again
    type, id = request.path[0], request.path[1]
    stored = await context.reader(request.caller).read(type, id)
    if stored is None:
        raise NotFound(f"`{type}/{id}` does not exist on this server, so there is nothing to purge.")
    deletion = Action("DELETE", type, id, id=id, purge=True)
    if stored.raw is not None:
        # the deletion asks the rule of the type and checks, under the store's lock, that nothing refers to the resource
        await commit(context, deletion, request.caller)
    elif type in context.rules:
        await ask_rule(context, Plan(request.caller), Target(deletion, id), stored)
    await context.unrestricted.purge(type, id)
    if type == SEARCH_PARAMETER:
        await context.parameters.reload_and_mark_empty_types()
    sentence = f"`{type}/{id}` and its history were removed."
    return Response(200, orjson.dumps(build_operation_outcome([Issue("information", "informational", sentence)])))
