"""One delivery that has an outside effect: claim, mark as sent-unanswered, send, write the answer.

It is a Task (https://hl7.org/fhir/R4/task.html). Its status is the state: `requested` waits, `accepted` is claimed,
`in-progress` is sent and unanswered, `completed` acknowledged, `rejected` refused, `on-hold` is parked for a person.
Every change asserts the version before it, so that of two processes one goes on. After a death, what was claimed goes
out; of what was sent and unanswered, the transport says whether it is sent again, under the same control number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import Pairs
from fhir_server.store.protocol import Stored, StoreError
from fhir_server.transports.protocol import DeliveryResult, Endpoint, Transport
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.message_codes import PARTNER_SYSTEM, list_codes, read_identifier
from fhir_server.workers.message_states import STATE_OF_STATUS, move_task, read_state
from fhir_server.workers.worker import Stopping, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.pending_writes import Tree
from fhir_server.writes.state import State

Status = Literal["requested", "accepted", "in-progress", "completed", "rejected", "on-hold"]

End = Literal["ended", "parked", "refused", "unsent", "unanswered", "changed"]
"""How an attempt came out: the Task has an end; a person has to look; it goes again after a while; no octet left this
machine; no answer came; somebody else has written the Task."""


class Outgoing(NamedTuple):
    """What a delivery Task sends, and where."""

    transport: Transport
    endpoint: Endpoint
    control_number: str
    payload: bytes


class Answer(NamedTuple):
    """What came of a delivery: its status and reason, what joins `Task.output`, and what else is written with it.

    `requested`: it is sent again after `seconds`. An output takes the place of one of the same code.
    """

    status: Literal["requested", "completed", "rejected", "on-hold"]
    reason: str = ""
    outputs: Sequence[dict[str, Any]] = ()
    actions: Sequence[Action] = ()
    seconds: float = 0.0


class Group(NamedTuple):
    """Deliveries that go out beside those of other groups: of a partner, or of several (""); their search criteria."""

    partner: str = ""
    criteria: Pairs = ()


def list_one_group(context: Context) -> Sequence[Group]:
    """All deliveries together."""
    return (Group(),)


def hold_nothing(task: Tree) -> bool:
    """Whether a parked delivery holds back those behind it: none does."""
    return False


async def pause_nobody(context: Context) -> frozenset[str]:
    """The partners that are sent nothing for the time being: none."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Outbox:
    """What the deliveries of one kind have of their own.

    `criteria`: the search that finds their Tasks, without status. `prepare`: what a Task sends. `read_answer`: what
    came back, `delivered` or `refused`, as the Task shows it. `holds`: whether a parked one holds back later ones about
    the same patient. `read_paused`: the partners that are sent nothing now.
    """

    criteria: Pairs
    prepare: Callable[[Context, Tree], Awaitable[Outgoing]]
    read_answer: Callable[[Context, Tree, DeliveryResult], Answer]
    list_groups: Callable[[Context], Sequence[Group]] = list_one_group
    holds: Callable[[Tree], bool] = hold_nothing
    read_paused: Callable[[Context], Awaitable[frozenset[str]]] = pause_nobody


class TaskChanged(Exception):
    """Somebody else has written the Task since it was read; it is left to them."""


class Item(NamedTuple):
    """A Task of a delivery in a version."""

    task: Tree
    version: int

    @property
    def id(self) -> str:
        """That of the Task, which is its place in the order of sending."""
        return str(self.task["id"])

    @property
    def partner(self) -> str:
        """Whom it goes to."""
        return read_identifier(self.task, PARTNER_SYSTEM) or str(self.task.get("owner", {}).get("reference", ""))

    @property
    def lane(self) -> str:
        """Deliveries of one lane go one after the other: those about one patient to one partner."""
        return f"{self.partner} {self.task.get('for', {}).get('reference', '')}"


def read_item(stored: Stored) -> Item:
    """The delivery of a stored Task."""
    return Item(orjson.loads(stored.raw or b"{}"), stored.version)


class Attempt(NamedTuple):
    """How an attempt came out, and after how many seconds the next one may come."""

    end: End
    seconds: float = 0.0


async def deliver_or_park(turn: Turn, outbox: Outbox, item: Item) -> Attempt:
    """Send one. An error of its own parks it; errors of the store and a lost lease go on upwards."""
    writer = _Writer(turn, item)
    try:
        return await _deliver(turn, outbox, writer)
    except TaskChanged:
        return Attempt("changed")
    except (StoreError, LeaseLost, Stopping):
        raise
    except Exception as error:
        turn.log("error", "item parked", worker=turn.lease.name, item=f"Task/{item.id}", error=describe_error(error))
        try:
            reason = f"The delivery failed ({type(error).__name__}); the log of the server has more under this Task."
            await writer.put("on-hold", reason)
        except (TaskChanged, FhirError) as refusal:
            turn.log("error", "item cannot be parked", worker=turn.lease.name, item=f"Task/{item.id}")
            return Attempt("ended" if isinstance(refusal, FhirError) else "changed")
        return Attempt("parked")


async def _deliver(turn: Turn, outbox: Outbox, writer: _Writer) -> Attempt:
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
        return await writer.finish(outbox.read_answer(turn.context, task, result))
    # why stands in the Task and not in the log: what came back may hold anything
    turn.log("warning", "not delivered", worker=turn.lease.name, item=f"Task/{task['id']}", outcome=result.outcome)
    if result.outcome == "unsent":
        await writer.put("requested", result.reason)
        return Attempt("unsent")
    await writer.put("in-progress", result.reason)
    return Attempt("unanswered")


async def _settle(turn: Turn, outbox: Outbox, writer: _Writer, outgoing: Outgoing) -> Attempt:
    """What was sent and may not be sent again: delivered if it is found there, else a person has to look."""
    if await outgoing.transport.find_delivered(outgoing.endpoint, outgoing.control_number):
        return await writer.finish(outbox.read_answer(turn.context, writer.item.task, DeliveryResult("delivered")))
    reason = (
        f"It is not known whether `{outgoing.control_number}` was delivered, and this way out sends nothing twice. "
        "Look for it at the partner, then close this Task or request it again."
    )
    return await writer.finish(Answer("on-hold", reason))


class _Writer:
    """Writes the states of one Task, each on the version before it."""

    def __init__(self, turn: Turn, item: Item) -> None:
        self.item = item
        self._turn = turn
        self._version = item.version

    async def put(self, status: Status, reason: str) -> None:
        """A new status and its reason."""
        await self._write(status, reason, (), ())

    async def finish(self, answer: Answer) -> Attempt:
        """The status that the answer gives, with all that it brings."""
        await self._write(answer.status, answer.reason, answer.outputs, answer.actions)
        ends: dict[str, End] = {"requested": "refused", "on-hold": "parked"}
        return Attempt(ends.get(answer.status, "ended"), answer.seconds)

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
                codes = {code for each in outputs for code in list_codes(each)}
                kept = (each for each in tree.get("output", ()) if codes.isdisjoint(list_codes(each)))
                tree["output"] = [*kept, *outputs]
            return tree

        async def decide(state: State) -> Decision[None]:
            task = await state.read("Task", id)
            if task is None or task.version != self._version:
                raise TaskChanged
            action = Action("PATCH", "Task", id, id=id, patch=patch, full_url=f"urn:uuid:{id}")
            return Decision(None, (action, *actions))

        outcome = await decide_and_commit(self._turn.context, self._turn.caller, decide)
        self._version = outcome.results[0].version
