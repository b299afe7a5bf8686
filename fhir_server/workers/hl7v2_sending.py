"""The queue of what is sent by HL7 v2: each change that a partner's table names becomes a delivery, in commit order.

A delivery is known by partner, resource and version, so that a version that the feed gives again makes nothing. Its id
is a number that rises from delivery to delivery, kept with the store: deliveries go out in its order, whatever the
clock does. MSH-10 is that number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.outcome import Conflict, Issue
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import Caller
from fhir_server.store.protocol import Clock, Store, Stored, WriteConflict
from fhir_server.workers.feed import read_feed
from fhir_server.workers.hl7v2_choices import BEGINNINGS, Send, choose_send, read_ground
from fhir_server.workers.hl7v2_intake import ER7
from fhir_server.workers.hl7v2_origins import find_origins
from fhir_server.workers.hl7v2_partners import FORMAT, find_mapper_partner
from fhir_server.workers.hl7v2_sends import check_sends, find_out_section
from fhir_server.workers.hl7v2_surroundings import find_patient, read_surroundings
from fhir_server.workers.message_codes import CONTROL_SYSTEM, PARTNER_SYSTEM, read_identifier
from fhir_server.workers.message_deliveries import Delivery, make_deliveries, write_id
from fhir_server.workers.message_tasks import LARGEST_MESSAGE
from fhir_server.workers.worker import Log, StepResult, Turn
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.hl7v2.outbound.message import write_event
from mappers.hl7v2.outbound.receiver import Envelope, Receiver

FEED = "sending"
NUMBER = "sending/number"

CHUNK = 25
"""Deliveries that are written at once."""

MOST_ISSUES = 50
"""Issues of a message that its Task keeps."""

_USUAL_SIZE = 2000
"""Bytes that a resource is taken to have, where a thread is asked for."""

Resource = dict[str, Any]


class Payload(NamedTuple):
    """The text of a message, or why there is none, and what it does not say."""

    payload: bytes
    reason: str = ""
    issues: tuple[Issue, ...] = ()


async def begin_sends(context: Context) -> None:
    """Check the tables of the partners' files, and note since when each has one: what was written before is not sent.

    Raises ValueError for a wrong table.
    """
    check_sends(context)
    names = [partner.name for partner in context.partners.values() if find_out_section(partner)]
    while names:
        text = await context.unrestricted.get_value(BEGINNINGS)
        known: dict[str, int] = orjson.loads(text) if text else {}
        now = context.clock() // 1000 * 1000
        new = {name: now for name in names if name not in known}
        if not new or await context.unrestricted.put_value_if(BEGINNINGS, orjson.dumps({**known, **new}), text):
            return


async def step_sending(turn: Turn) -> StepResult:
    """A batch of the feed; nothing is read while no partner is sent anything."""
    if not any(find_out_section(partner) for partner in turn.context.partners.values()):
        return StepResult()
    return await _READ(turn)


async def _take(turn: Turn, versions: Sequence[Stored]) -> None:
    await _queue(turn, versions, is_walk=False)


async def _take_current(turn: Turn, versions: Sequence[Stored]) -> None:
    await _queue(turn, versions, is_walk=True)


_READ = read_feed(FEED, _take, _take_current)


async def _queue(turn: Turn, versions: Sequence[Stored], is_walk: bool) -> None:
    """Make the deliveries of a batch, in its order; what was sent before is looked for among those not yet written."""
    context, caller = turn.context, turn.caller
    ground = await read_ground(context, caller, is_walk)
    types = ground.list_types()
    wanted = [each for each in versions if each.type in types]
    if not wanted:
        return
    origins = await find_origins(context, caller, versions, wanted, is_walk)
    numbers: list[int] = []
    pending: list[Delivery] = []
    for version in wanted:
        came_from = origins.get((version.reference, version.version), set())
        for partner in ground.rows:
            send = None if partner in came_from else await choose_send(ground, partner, version, pending)
            if send is None:
                continue
            if not numbers:
                await turn.check()
                first = await take_numbers(context.unrestricted, CHUNK, context.clock)
                numbers = list(range(first, first + CHUNK))
            pending.append(await _write_delivery(turn, send, numbers.pop(0)))
            await asyncio.sleep(0)
            if not numbers:
                await _store_deliveries(turn, pending)
                pending = []
    if pending:
        await _store_deliveries(turn, pending)


async def _store_deliveries(turn: Turn, deliveries: Sequence[Delivery]) -> None:
    """Write some deliveries in one transaction, without those that are there."""

    async def decide(state: State) -> Decision[None]:
        return Decision(None, await make_deliveries(state, deliveries))

    await turn.check()
    try:
        await decide_and_commit(turn.context, turn.caller, decide)
    except Conflict as error:  # as with any error of the store, the batch comes again
        raise WriteConflict(str(error)) from None


async def take_numbers(store: Store, count: int, clock: Clock) -> int:
    """The first of so many numbers that are higher than all before; near the time in µs, so that ids tell it."""
    while True:
        text = await store.get_value(NUMBER)
        first = max(int(text or b"0") + 1, clock())
        if await store.put_value_if(NUMBER, b"%d" % (first + count - 1), text):
            return first


async def _write_delivery(turn: Turn, send: Send, number: int) -> Delivery:
    """The delivery of a change; one whose message cannot be written waits for a person, with the reason."""
    version, partner, context = send.version, send.row.partner, turn.context
    out = find_out_section(context.partners[partner])
    assert out is not None
    written = await write_text(context, turn.caller, send, number, turn.log)
    if written.reason:
        item = f"{version.reference}/{version.version}"
        turn.log("warning", "message cannot be written", worker=turn.lease.name, partner=partner, item=item)
    return Delivery(
        partner=partner,
        format=FORMAT,
        transport=out.transport,
        resource=version.reference,
        version=version.version,
        control_number=str(number),
        payload=written.payload,
        content_type=ER7,
        patient=find_patient(context, turn.caller, send.focus),
        id=write_id(number),
        reason=written.reason,
        issues=written.issues,
    )


async def write_text(context: Context, caller: Caller, send: Send, number: int, log: Log) -> Payload:
    """The message of what is sent, with what surrounds its resource now."""
    if send.reason:
        return Payload(b"", send.reason)
    focus, configured = send.focus, context.partners[send.row.partner]
    partner, out = find_mapper_partner(context, send.row.partner), find_out_section(configured)
    assert partner is not None and out is not None
    family, _, code = send.event.partition("^")
    sending, receiving = ((each.application, each.facility) for each in (out.sending, out.receiving))
    receiver = Receiver(partner, sending, receiving, out.version, out.processing)
    name = f"{focus['resourceType']}/{focus['id']}"
    resources = [focus, *await read_surroundings(context, caller, focus, (family, code))]
    clock = datetime.fromtimestamp(context.clock() / 1_000_000, UTC)
    envelope = Envelope(str(number), clock, send.earlier, send.answer)
    try:
        size = len(resources) * _USUAL_SIZE
        written = await context.long_work.run(size, write_event, (family, code), name, resources, receiver, envelope)
    except Exception as error:
        log("error", "message cannot be written", item=name, error=describe_error(error))
        return Payload(b"", f"The message could not be written, by a fault of this server (`{type(error).__name__}`).")
    wrong = " ".join(each.text for each in written.issues if each.severity in ("error", "fatal"))
    if not written.text:
        return Payload(b"", f"No message could be written: {wrong}")
    text = leave_segments_out(written.text, send.row.row.leave_out).encode()
    if len(text) > LARGEST_MESSAGE:
        return Payload(b"", f"The message has {len(text)} bytes, more than the {LARGEST_MESSAGE} that are kept.")
    return Payload(text, "", tuple(Issue(each.severity, each.code, each.text) for each in written.issues[:MOST_ISSUES]))


def leave_segments_out(text: str, names: Sequence[str]) -> str:
    """A message without the segments of these names."""
    return "\r".join(each for each in text.split("\r") if each[:3] not in names) if names else text


async def write_again(context: Context, caller: Caller, task: Mapping[str, Any], log: Log) -> Payload:
    """The message of a delivery that could not be written before, by the rows that the partner has now."""
    partner, reference = read_identifier(task, PARTNER_SYSTEM), str(task["focus"]["reference"])
    type, id, _, version = reference.split("/")
    stored = await context.unrestricted.vread(type, id, int(version))
    ground = await read_ground(context, caller)
    send = None if stored is None else await choose_send(ground, partner, stored, ())
    if send is None:
        return Payload(b"", f"`{reference}` is not there, or nothing says any more that `{partner}` is sent it.")
    return await write_text(context, caller, send, int(read_identifier(task, CONTROL_SYSTEM)), log)
