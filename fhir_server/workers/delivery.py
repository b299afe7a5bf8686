"""Deliveries that have an outside effect: claim, mark as sent-unanswered, send, write the answer.

Each is a Task (https://hl7.org/fhir/R4/task.html). Its status is the state: `requested` waits, `accepted` is claimed,
`in-progress` is sent and unanswered, `completed` acknowledged, `rejected` refused, `on-hold` is parked for a person.
Every change asserts the version before it, so that of two processes one goes on. After a death, what was claimed goes
out; of what was sent and unanswered, the transport says whether it is sent again, under the same control number.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import Pairs
from fhir_server.search.query import Query, Scope
from fhir_server.store.protocol import Stored, StoreError
from fhir_server.transports.protocol import DeliveryResult, Endpoint, Transport
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.message_codes import PARTNER_SYSTEM, read_identifier
from fhir_server.workers.message_states import STATE_OF_STATUS, move_task, read_state
from fhir_server.workers.worker import Step, StepResult, Stopping, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.pending_writes import Tree
from fhir_server.writes.state import State

OPEN = "requested,accepted,in-progress"
PAGE = 100

Status = Literal["requested", "accepted", "in-progress", "completed", "rejected", "on-hold"]


class Outgoing(NamedTuple):
    """What a delivery Task sends, and where."""

    transport: Transport
    endpoint: Endpoint
    control_number: str
    payload: bytes


class Answer(NamedTuple):
    """How a delivery ended: its status and reason, what joins `Task.output`, and what else is written with it."""

    status: Literal["completed", "rejected", "on-hold"]
    reason: str = ""
    outputs: Sequence[dict[str, Any]] = ()
    actions: Sequence[Action] = ()


@dataclass(frozen=True, slots=True)
class Outbox:
    """What the deliveries of one kind have of their own.

    `criteria`: the search that finds their Tasks, without status. `prepare`: what a Task sends. `read_answer`: what
    came back, `delivered` or `refused`, as the Task shows it.
    """

    criteria: Pairs
    prepare: Callable[[Context, Tree], Awaitable[Outgoing]]
    read_answer: Callable[[Context, Tree, DeliveryResult], Answer]


class TaskChanged(Exception):
    """Somebody else has written the Task since it was read; it is left to them."""


class _Item(NamedTuple):
    task: Tree
    version: int

    @property
    def id(self) -> str:
        return str(self.task["id"])

    @property
    def partner(self) -> str:
        return read_identifier(self.task, PARTNER_SYSTEM) or str(self.task.get("owner", {}).get("reference", ""))

    @property
    def lane(self) -> str:
        """Deliveries of one lane go one after the other: those about one patient to one partner."""
        return f"{self.partner} {self.task.get('for', {}).get('reference', '')}"


def run_deliveries(outbox: Outbox) -> Step:
    """The step of a worker that delivers all that is open, by the id of the Task, partners beside each other."""

    async def step(turn: Turn) -> StepResult:
        pairs = (*outbox.criteria, ("status", OPEN))
        where = await parse_criteria(turn.context, "Task", pairs, turn.caller)
        reader, blocked = turn.context.reader(turn.caller), set[str]()
        query = Query((Scope("Task", reader.restrict_clause("Task", where)),), count=PAGE)
        ended = waiting = 0
        while True:
            page = await reader.search(query)
            partners = defaultdict(list)
            for item in map(_to_item, page.matches):
                partners[item.partner].append(item)
            count = await _deliver_beside(turn, outbox, partners.values(), blocked)
            ended += count
            waiting += len(page.matches) - count
            if page.next is None:
                # at once again only for what came meanwhile: what is blocked waits for the pause
                return StepResult(ended if not waiting else 0, f"{ended} delivered, {waiting} open", waiting)
            query = Query(query.scopes, count=PAGE, after=page.next)

    return step


async def _deliver_beside(turn: Turn, outbox: Outbox, partners: Iterable[Sequence[_Item]], blocked: set[str]) -> int:
    """Deliver to several partners at a time; how many ended. What stops one is raised when all have come to an end."""
    tasks = [_deliver_all(turn, outbox, items, blocked) for items in partners]
    counts = await asyncio.gather(*tasks, return_exceptions=True)
    for count in counts:
        if isinstance(count, BaseException):
            raise count
    return sum(count for count in counts if isinstance(count, int))


def _to_item(stored: Stored) -> _Item:
    return _Item(orjson.loads(stored.raw or b"{}"), stored.version)


async def _deliver_all(turn: Turn, outbox: Outbox, items: Sequence[_Item], blocked: set[str]) -> int:
    """Deliver in order; one that stays open blocks its lane. How many ended."""
    ended = 0
    for item in items:
        if item.lane in blocked:
            continue
        await turn.check()
        if await _deliver_or_park(turn, outbox, item):
            ended += 1
        else:
            blocked.add(item.lane)
    return ended


async def _deliver_or_park(turn: Turn, outbox: Outbox, item: _Item) -> bool:
    """Whether the item ended. An error of its own parks it; errors of the store and a lost lease go on upwards."""
    writer = _Writer(turn, item)
    try:
        return await _deliver(turn, outbox, writer)
    except TaskChanged:
        return False
    except (StoreError, LeaseLost, Stopping):
        raise
    except Exception as error:
        turn.log("error", "item parked", worker=turn.lease.name, item=f"Task/{item.id}", error=describe_error(error))
        try:
            reason = f"The delivery failed ({type(error).__name__}); the log of the server has more under this Task."
            await writer.put("on-hold", reason)
        except (TaskChanged, FhirError) as refusal:
            turn.log("error", "item cannot be parked", worker=turn.lease.name, item=f"Task/{item.id}")
            return isinstance(refusal, FhirError)
        return True


async def _deliver(turn: Turn, outbox: Outbox, writer: _Writer) -> bool:
    task = writer.item.task
    outgoing = await outbox.prepare(turn.context, task)
    transport, endpoint, number, payload = outgoing
    if task["status"] != "in-progress":
        await writer.put("accepted", f"Claimed by {turn.claim}.")
    elif not transport.repeats:
        return await _settle(turn, outbox, writer, outgoing)
    else:
        turn.log("warning", "sent again", worker=turn.lease.name, item=f"Task/{task['id']}")
    await turn.check()
    # its moment makes each sending a version of its own, so that the history counts them
    await writer.put("in-progress", f"Sent at {turn.context.clock()} by {turn.claim}; no answer yet.")
    result = await transport.deliver(endpoint, number, payload)
    if result.outcome in ("delivered", "refused"):
        await writer.finish(outbox.read_answer(turn.context, task, result))
        return True
    if result.outcome == "unsent":
        await writer.put("requested", result.reason)
    turn.log("warning", "not delivered", worker=turn.lease.name, item=f"Task/{task['id']}", outcome=result.outcome)
    return False


async def _settle(turn: Turn, outbox: Outbox, writer: _Writer, outgoing: Outgoing) -> bool:
    """What was sent and may not be sent again: delivered if it is found there, else a person has to look."""
    if await outgoing.transport.find_delivered(outgoing.endpoint, outgoing.control_number):
        await writer.finish(outbox.read_answer(turn.context, writer.item.task, DeliveryResult("delivered")))
    else:
        reason = (
            f"It is not known whether `{outgoing.control_number}` was delivered, and this way out sends nothing twice. "
            "Look for it at the partner, then close this Task or request it again."
        )
        await writer.finish(Answer("on-hold", reason))
    return True


class _Writer:
    """Writes the states of one Task, each on the version before it."""

    def __init__(self, turn: Turn, item: _Item) -> None:
        self.item = item
        self._turn = turn
        self._version = item.version

    async def put(self, status: Status, reason: str) -> None:
        """A new status and its reason."""
        await self._write(status, reason, (), ())

    async def finish(self, answer: Answer) -> None:
        """The status that ends the delivery, with all that its answer brings."""
        await self._write(answer.status, answer.reason, answer.outputs, answer.actions)

    async def _write(
        self, status: Status, reason: str, outputs: Sequence[dict[str, Any]], actions: Sequence[Action]
    ) -> None:
        """Raises TaskChanged when the version is not the one that this writer knows."""
        id = self.item.id

        def patch(tree: Any) -> Any:
            if read_state(tree) is None:
                tree["status"] = status
                tree.pop("statusReason", None)
                if reason:
                    tree["statusReason"] = {"text": reason}
            else:
                tree = move_task(tree, STATE_OF_STATUS[status], self._turn.context.clock(), reason)
            if outputs:
                tree["output"] = [*tree.get("output", ()), *outputs]
            return tree

        async def decide(state: State) -> Decision[None]:
            task = await state.read("Task", id)
            if task is None or task.version != self._version:
                raise TaskChanged
            action = Action("PATCH", "Task", id, id=id, patch=patch, full_url=f"urn:uuid:{id}")
            return Decision(None, (action, *actions))

        outcome = await decide_and_commit(self._turn.context, self._turn.caller, decide)
        self._version = outcome.results[0].version
