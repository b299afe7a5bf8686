"""When claims were sent for the first time, and whether they were refused: from their Tasks and those of deliveries."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.query import Ids
from fhir_server.workers.posting.reading import cut, find_each
from fhir_server.workers.posting.writes import find_zone
from mappers.billing.claim_states import list_outputs, make_task_id, read_state
from mappers.billing.fields import find_reference, to_local_day
from mappers.billing.reports import Sending


async def read_sendings(context: Context, caller: Caller, claims: Iterable[str]) -> dict[str, Sending]:
    """By `Claim/id`, of those that were sent and whose Tasks the caller may see.

    A claim that was sent more than once, or is rejected now, was refused before it was adjudicated.
    """
    reader, zone = context.reader(caller), find_zone(context)
    first: dict[str, tuple[str, bool]] = {}
    for part in cut(sorted(make_task_id(each) for each in claims)):
        async for task in find_each(reader, "Task", Ids(part)):
            if sent := list_outputs(task, "transmission"):
                refused = len(set(sent)) > 1 or read_state(task) == "rejected"
                first[find_reference(task.get("focus"))] = (sent[0].partition("/")[2], refused)
    days = {}
    for part in cut(sorted({delivery for delivery, _ in first.values()})):
        async for task in find_each(reader, "Task", Ids(part)):
            days[task["id"]] = to_local_day(str(task.get("authoredOn", "")), zone)
    found = {claim: (days.get(delivery), refused) for claim, (delivery, refused) in first.items()}
    return {claim: Sending(day, refused) for claim, (day, refused) in found.items() if day is not None}
