"""`Appointment/$book`: a held, proposed or new time is booked (IHE Scheduling, ITI-117)."""

from __future__ import annotations

from fhir_server.operations.scheduling.book_series import NAMES as SERIES_NAMES
from fhir_server.operations.scheduling.book_series import book_series
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.operations.scheduling.take import NAMES, take
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response


async def book(context: Context, request: Request) -> Response:
    """201 with a booked Appointment, 200 where it was stored before; 409 with the next free times."""
    asked = read_parameters(context, request, (*NAMES, *SERIES_NAMES))
    if "series" in asked.values:
        return await book_series(context, request, asked)
    return await take(context, request, asked, "booked")
