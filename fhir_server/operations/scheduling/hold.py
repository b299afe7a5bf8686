"""`Appointment/$hold`: a time is kept for some minutes (IHE Scheduling, ITI-116)."""

from __future__ import annotations

from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.operations.scheduling.take import NAMES, take
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response


async def hold(context: Context, request: Request) -> Response:
    """201 with a pending Appointment that says when it expires; 409 with the next free times."""
    return await take(context, request, read_parameters(context, request, NAMES), "pending")
