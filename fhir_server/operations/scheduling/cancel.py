"""`$cancel`: an Appointment, or part of its series, is cancelled and its Slots are free in the same transaction."""

from __future__ import annotations

from fhir_server.operations.scheduling.asked import Ask
from fhir_server.operations.scheduling.change import NAMES, change
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from mappers.scheduling.elements import Resource, code_of


async def cancel(context: Context, request: Request) -> Response:
    """200 with the cancelled Appointment; a reason becomes its cancelation reason."""
    names = [name for name in NAMES if name != "override"]
    return await change(context, request, read_parameters(context, request, names), _cancel)


def _cancel(ask: Ask, old: Resource, chosen: Resource) -> Resource:
    if code_of(old) == "cancelled":
        return old
    new, reason, comment = {**old, "status": "cancelled"}, ask.asked.text("reason"), ask.asked.text("comment")
    if reason:
        new["cancelationReason"] = {"text": reason}
    return {**new, "comment": comment} if comment else new
