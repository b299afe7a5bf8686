"""`$purge`: physical removal of one resource with its history; off unless the setting `purge` is on."""

from __future__ import annotations

import orjson

from fhir_server.fhir.outcome import Issue, NotFound, build_operation_outcome
from fhir_server.interactions.write_requests import check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.store.operations import VersionIs
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State


async def purge(context: Context, request: Request) -> Response:
    """200 with an OperationOutcome; 404 when there is nothing, 409 while other resources refer to it."""
    check_write_request(request)  # a precondition that was ignored here could not be made good again
    type, id = request.path[0], request.path[1]

    async def decide(state: State) -> Decision[None]:
        stored = await context.reader(request.caller).read(type, id)
        if stored is None:
            raise NotFound(f"`{type}/{id}` does not exist on this server, so there is nothing to purge.")
        deletion = Action("DELETE", type, id, id=id, purge=True)
        return Decision(None, (deletion,), (VersionIs(type, id, stored.version),), bundle=False)

    await decide_and_commit(context, request.caller, decide)
    sentence = f"`{type}/{id}` and its history were removed."
    return Response(200, orjson.dumps(build_operation_outcome([Issue("information", "informational", sentence)])))
