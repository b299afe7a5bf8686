"""`$check-in`: the patient is here and the visit can begin (status `checked-in`)."""

from __future__ import annotations

from fhir_server.operations.scheduling.asked import Ask
from fhir_server.operations.scheduling.change import change
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from mappers.scheduling.elements import Resource


async def check_in(context: Context, request: Request) -> Response:
    """200 with the Appointment."""
    return await change(context, request, read_parameters(context, request, ("appointment-reference",)), _check_in)


def _check_in(ask: Ask, old: Resource, chosen: Resource) -> Resource:
    return {**old, "status": "checked-in"}
