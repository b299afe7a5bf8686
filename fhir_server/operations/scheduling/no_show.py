"""`$no-show`: the patient did not come (status `noshow`); before the end of the visit its Slots become free."""

from __future__ import annotations

from fhir_server.operations.scheduling.asked import Ask
from fhir_server.operations.scheduling.change import change
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from mappers.scheduling.elements import Resource


async def no_show(context: Context, request: Request) -> Response:
    """200 with the Appointment."""
    return await change(context, request, read_parameters(context, request, ("appointment-reference",)), _miss)


def _miss(ask: Ask, old: Resource, chosen: Resource) -> Resource:
    return {**old, "status": "noshow"}
