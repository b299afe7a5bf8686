"""`$transmit`: a resource given to a partner as an X12 transaction (docs/operations/transmit.md)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.operations.billing.transmit import transmit as transmit_claims
from fhir_server.operations.operation import Handler, Level
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.x12_inquiries import TYPE, send_inquiry


async def transmit(context: Context, request: Request) -> Response:
    """By the type of the resource, what its row does."""
    return await BY_TYPE[request.path[0]](context, request)


async def _transmit_inquiry(context: Context, request: Request) -> Response:
    """201 with the delivery of a 270, 200 with that of this version of the request where it has one."""
    asked = read_parameters(context, request, ("partner",))
    sent = await send_inquiry(context, request.caller, request.path[1], asked.text("partner"))
    stored = await context.reader(request.caller).read("Task", sent.task.partition("/")[2])
    raw, version = (stored.raw or b"{}", stored.version) if stored is not None else (b"", 1)
    location = f"{request.base}/{sent.task}/_history/{version}"
    return Response(201 if sent.made else 200, raw, version, location=location if sent.made else None)


BY_TYPE: Mapping[str, Handler] = {TYPE: _transmit_inquiry, "Claim": transmit_claims}
"""Resource type → its handler."""

LEVELS: Mapping[str, tuple[Level, ...]] = {TYPE: ("instance",), "Claim": ("type", "instance")}
"""Resource type → where it is called."""
