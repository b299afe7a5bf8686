"""`$purge`: physical removal of one resource with its history; off unless the setting `purge` is on."""

from __future__ import annotations

import orjson

from fhir_server.fhir.outcome import Conflict, Issue, NotFound, operation_outcome
from fhir_server.interactions.write_requests import check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.protocol import SEARCH_PARAMETER, StillReferenced
from fhir_server.writes.plan import REFERENCE_EXEMPT


async def purge(context: Context, request: Request) -> Response:
    """200 with an OperationOutcome; 404 when there is nothing, 409 while other resources refer to it."""
    check_write_request(request)  # a precondition that was ignored here could not be made good again
    type, id = request.path[0], request.path[1]
    stored = await context.store.read(type, id)
    if stored is None:
        raise NotFound(f"`{type}/{id}` does not exist on this server, so there is nothing to purge.")
    if stored.raw is not None and context.settings.references == "enforce":
        # the deletion checks, under the store's lock, that nothing refers to the resource any more
        await _delete_unreferenced(context, type, id)
    await context.store.purge(type, id)
    if type == SEARCH_PARAMETER:
        await context.parameters.reload_and_mark_empty_types()
    sentence = f"`{type}/{id}` and its history were removed."
    return Response(200, orjson.dumps(operation_outcome([Issue("information", "informational", sentence)])))


async def _delete_unreferenced(context: Context, type: str, id: str) -> None:
    reference = f"{type}/{id}"
    deletion = Transaction((Write("DELETE", type, id),), released=(reference,), exempt=REFERENCE_EXEMPT)
    try:
        await context.store.transact(deletion)
    except StillReferenced as error:
        sources = ", ".join(f"`{source}`" for source in error.sources[reference])
        raise Conflict(f"`{reference}` cannot be purged: {sources} still refers to it.") from None
