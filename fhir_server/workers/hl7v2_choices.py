"""What a partner is sent of a version: a change by a row of its table, an answer to what it asked, or a withdrawal.

docs/mappers/hl7v2-out.md#sending
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.datetimes import DAY
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.store.protocol import Stored
from fhir_server.workers.hl7v2_answers import Answer, find_renewal_answer, find_task_answer, may_answer
from fhir_server.workers.hl7v2_sends import SendRow, choose_row, read_rows
from fhir_server.workers.hl7v2_told import find_told
from fhir_server.workers.message_deliveries import Delivery

BEGINNINGS = "sending/beginnings"
"""The key of the times since when partners have a table."""

ORDER = "MedicationRequest"

WITHDRAWALS = {
    ("Appointment", "SIU"): "SIU^S17",
    ("DiagnosticReport", "ORU"): "ORU^R01",
    ("ChargeItem", "DFT"): "DFT^P03",
    (ORDER, "RDE"): "RDE^O11",
    (ORDER, "OMP"): "OMP^O09",
}
"""The event that takes back what was sent, by the type of the resource and the family of its messages."""

WITHDRAWN = "entered-in-error"

Resource = dict[str, Any]


class Send(NamedTuple):
    """What is sent of a version: the row by which, the event, and the resource that the message is about.

    `earlier`: the status of an order that the partner was told before. `answer`: ORC-1 of an answer. `reason`: why
    there is no message, so that a person has to tell the partner.
    """

    version: Stored
    row: SendRow
    event: str
    focus: Resource
    earlier: str = ""
    answer: str = ""
    reason: str = ""


class Ground(NamedTuple):
    """Where choices are made: the rows of each partner, and since when (µs) it is sent what is written.

    `is_walk`: whether current versions are read, in place of the feed.
    """

    context: Context
    caller: Caller
    rows: dict[str, list[SendRow]]
    beginnings: dict[str, int]
    is_walk: bool = False

    def list_types(self) -> set[str]:
        """The types whose versions may be sent; a renewal may be the answer to a Task."""
        types = {each.row.type for rows in self.rows.values() for each in rows}
        return types | ({ORDER} if "Task" in types else set())


async def read_ground(context: Context, caller: Caller, is_walk: bool = False) -> Ground:
    """The ground of all partners as their files are now."""
    rows: dict[str, list[SendRow]] = {}
    for each in read_rows(context.partners, context.criteria(context.settings.base_url)):
        rows.setdefault(each.partner, []).append(each)
    text = await context.unrestricted.get_value(BEGINNINGS)
    return Ground(context, caller, rows, orjson.loads(text) if text else {}, is_walk)


async def choose_send(ground: Ground, partner: str, version: Stored, pending: Sequence[Delivery]) -> Send | None:
    """What a partner is sent of a version; None for nothing. `pending`: deliveries that are about to be written."""
    context, rows = ground.context, ground.rows.get(partner, [])
    own = [each for each in rows if each.row.type == version.type]
    if version.last_updated < _find_beginning(ground, partner) or (version.type == "Task" and not may_answer(version)):
        return None
    asks = any(each.row.type == "Task" for each in rows) and version.type in ("Task", ORDER)
    if not own and not asks:
        return None
    before = None
    if version.version > 1 and (asks or version.type == ORDER or any(each.row.change != "any" for each in own)):
        before = await context.unrestricted.vread(version.type, version.id, version.version - 1)
    row = choose_row(own, version, before, context.index.make_entries) if version.raw is not None else None
    answer = await _find_answer(ground, partner, version, before) if asks and version.raw is not None else None
    if version.type == "Task":
        return Send(version, row, row.row.event, answer.focus, answer=answer.control) if row and answer else None
    if answer is not None:
        chosen = row or next(each for each in rows if each.row.type == "Task")
        return Send(version, chosen, chosen.row.event, answer.focus, answer=answer.control)
    if row is None:
        return await _find_withdrawal(ground, own, version, pending)
    focus: Resource = orjson.loads(version.raw or b"{}")
    if version.type != ORDER or version.version == 1:
        return Send(version, row, row.row.event, focus)
    earlier = await _find_status(ground, partner, version, pending)
    if not earlier and _read_status(before) == "draft" and focus["status"] in ("cancelled", WITHDRAWN):
        return None  # what nobody was told of needs no withdrawal
    return Send(version, row, row.row.event, focus, earlier)


async def _find_answer(ground: Ground, partner: str, version: Stored, before: Stored | None) -> Answer | None:
    find = find_task_answer if version.type == "Task" else find_renewal_answer
    return await find(ground.context, ground.caller, partner, version, before)


async def _find_status(ground: Ground, partner: str, version: Stored, pending: Sequence[Delivery]) -> str:
    """The status of an order that a partner was told before; "" where it knows of none that is there."""
    told = await find_told(ground.context, ground.caller, partner, version, pending)
    return _read_status(told or await _find_expired(ground, partner, version))


async def _find_expired(ground: Ground, partner: str, version: Stored) -> Stored | None:
    """The version before, where a row says it was sent and retention has since removed what tells that."""
    context, days = ground.context, ground.context.partners[partner].retention_days
    unrestricted = context.unrestricted
    before = await unrestricted.vread(version.type, version.id, version.version - 1) if days else None
    if not days or before is None or before.raw is None or before.last_updated >= context.clock() - days * DAY:
        return None
    own = [each for each in ground.rows[partner] if each.row.type == version.type]
    earlier = await unrestricted.vread(before.type, before.id, before.version - 1) if before.version > 1 else None
    is_sent = before.last_updated >= ground.beginnings.get(partner, 0)
    return before if is_sent and choose_row(own, before, earlier, context.index.make_entries) else None


async def _find_withdrawal(
    ground: Ground, own: Sequence[SendRow], version: Stored, pending: Sequence[Delivery]
) -> Send | None:
    """How what a partner was told is taken back, when it is deleted or entered in error and no row says what then."""
    if not own or (version.raw is not None and _read_status(version) != WITHDRAWN) or version.version == 1:
        return None
    partner, context = own[0].partner, ground.context
    told = await find_told(context, ground.caller, partner, version, pending)
    told = told or await _find_expired(ground, partner, version)
    if told is None or told.raw is None or _read_status(told) == WITHDRAWN:
        return None
    before = await context.unrestricted.vread(version.type, version.id, version.version - 1)
    last = version if version.raw is not None else before
    focus: Resource = orjson.loads(last.raw if last is not None and last.raw is not None else told.raw)
    events = ((each, WITHDRAWALS.get((version.type, each.row.event[:3]), "")) for each in own)
    row, event = next((pair for pair in events if pair[1]), (own[0], ""))
    if event:
        return Send(version, row, event, {**focus, "status": WITHDRAWN}, _read_status(told))
    if before is None or before.raw is None or _read_status(before) == WITHDRAWN:
        return None  # a person was told of it
    was = "deleted" if version.raw is None else "entered in error"
    return Send(version, row, "", focus, reason=(
        f"`{version.reference}` was {was} here, and no event that is written takes back what was sent of a "
        f"{version.type}. Tell `{partner}` of it, and close this delivery."
    ))  # fmt: skip


def _find_beginning(ground: Ground, partner: str) -> int:
    """The time (µs) from which on a partner is sent what is written.

    A walk shows what was sent long ago as well, whose Tasks retention may have removed.
    """
    beginning = ground.beginnings.get(partner, 0)
    days = ground.context.partners[partner].retention_days
    return max(beginning, ground.context.clock() - days * DAY) if ground.is_walk and days else beginning


def _read_status(version: Stored | None) -> str:
    tree: Resource = orjson.loads(version.raw) if version is not None and version.raw is not None else {}
    return str(tree.get("status", ""))
