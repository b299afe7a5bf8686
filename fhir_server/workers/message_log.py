"""The message log as a person reads and changes it: searched by what a message is known by, replayed, closed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.fhir.outcome import Conflict, FhirError, NotFound, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.parse_search import parse_search
from fhir_server.requests.request import Caller, Pairs
from fhir_server.search.escapes import escape
from fhir_server.search.result_parameters import Options
from fhir_server.workers.hl7v2_intake import ER7
from fhir_server.workers.hl7v2_sending import write_again
from fhir_server.workers.interpreters import Interpretation, Interpreter, Refusal
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    INTAKE,
    MESSAGE_SYSTEM,
    PARTNER_SYSTEM,
    STATE_SYSTEM,
    TASK_SYSTEM,
    find_parts,
    list_codes,
    make_part,
    read_identifier,
)
from fhir_server.workers.message_deliveries import is_change
from fhir_server.workers.message_states import MessageState, move_task, read_state
from fhir_server.workers.message_tasks import IncomingMessage, make_binary, put
from fhir_server.workers.messages import ACCEPTED, Received, receive
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State

Task = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filters:
    """What messages are looked for; empty: any. `since` and `until` are FHIR dates or times of the first arrival."""

    partner: str = ""
    state: str = ""
    since: str = ""
    until: str = ""
    number: str = ""
    patient: str = ""


def filters_to_search(filters: Filters) -> Pairs:
    """The search of the Tasks that the filters ask for, newest first."""
    rows = (
        ("group-identifier", f"{PARTNER_SYSTEM}|{escape(filters.partner)}", filters.partner),
        ("business-status", f"{STATE_SYSTEM}|{escape(filters.state)}", filters.state),
        ("authored-on", f"ge{filters.since}", filters.since),
        ("authored-on", f"le{filters.until}", filters.until),
        ("identifier", f"{CONTROL_SYSTEM}|{escape(filters.number)}", filters.number),
        ("patient", filters.patient, filters.patient),
    )
    chosen = tuple((name, value) for name, value, asked in rows if asked)
    return (("code", f"{TASK_SYSTEM}|"), *chosen, ("_sort", "-authored-on"))


async def find_messages(context: Context, caller: Caller, filters: Filters, count: int) -> tuple[list[Task], bool]:
    """At most `count` Tasks, newest first, and whether there are more."""
    options = Options(lenient=False, default_count=count, max_count=count)
    search = await parse_search(context, ("Task",), filters_to_search(filters), caller, options)
    page = await context.reader(caller).search(search.query)
    return [orjson.loads(match.raw or b"{}") for match in page.matches], page.next is not None


async def read_message(context: Context, caller: Caller, id: str) -> Task:
    """The Task of a message. Raises NotFound for what is none."""
    stored = await context.reader(caller).read("Task", id)
    task: Task = orjson.loads(stored.raw) if stored is not None and stored.raw is not None else {}
    if not any(coding.get("system") == TASK_SYSTEM for coding in task.get("code", {}).get("coding", ())):
        raise NotFound(f"`Task/{id}` is no message; `fhir-server messages list` shows the ids.")
    return task


async def read_text(context: Context, caller: Caller, task: Task) -> tuple[bytes, str]:
    """The raw text of a message, and its content type. Raises NotFound where it is not kept."""
    for part in find_parts(task, "text"):
        type, _, id = part["valueReference"]["reference"].partition("/")
        stored = await context.reader(caller).read(type, id)
        if stored is not None and stored.raw is not None:
            binary = orjson.loads(stored.raw)
            return base64.b64decode(binary.get("data", "")), binary["contentType"]
    raise NotFound(f"The text of `Task/{task['id']}` is not kept; ask the partner to send it again.")


def is_intake(task: Task) -> bool:
    """Whether the message came in."""
    return any(coding.get("code") == INTAKE for coding in task["code"]["coding"])


async def read_incoming(context: Context, caller: Caller, task: Task) -> IncomingMessage:
    """The message that came in, as it came."""
    raw, content_type = await read_text(context, caller, task)
    partner, number = read_identifier(task, PARTNER_SYSTEM), read_identifier(task, CONTROL_SYSTEM)
    name = find_parts(task, "format")[0]["valueCode"]
    digest = read_identifier(task, MESSAGE_SYSTEM).rpartition("/")[2]
    return IncomingMessage(partner, name, number, raw, content_type, received=context.clock(), hash=digest)


async def replay(
    context: Context, caller: Caller, task: Task, interpreters: Mapping[str, Interpreter], again: bool = False
) -> Received | Task:
    """What came in is interpreted again; a delivery waits again to be sent, in its place and with its control number.

    Raises Conflict for what was accepted, unless `again` says that it is meant.
    """
    if not is_intake(task):
        return await _send_again(context, caller, task, again)
    if read_state(task) in ACCEPTED and not again:
        raise Conflict(
            f"The message `Task/{task['id']}` was accepted. Interpreted again, it creates once more what its entries "
            "create without a condition; look at it with --dry-run, and say --again if that is meant."
        )
    message = await read_incoming(context, caller, task)
    interpreter = find_interpreter(interpreters, message.format)
    return await receive(context, caller, message, interpreter, again=True)


async def _send_again(context: Context, caller: Caller, task: Task, again: bool) -> Task:
    """The delivery as it waits; its message is written where it could not be before. Raises Unprocessable."""
    if read_state(task) == "acknowledged" and not again:
        raise Conflict(f"The message `Task/{task['id']}` was acknowledged; say --again to send it once more.")
    if find_parts(task, "text") or not is_change(task):
        return await _change(context, caller, task["id"], "waiting", "")
    payload = await write_again(context, caller, task, lambda *_, **__: None)
    if payload.reason:
        raise Unprocessable(payload.reason)
    return await _change(context, caller, task["id"], "waiting", "", payload.payload)


def is_replayable(task: Task, again: bool) -> bool:
    """Whether a replay of many takes a message: what was not accepted, and with `again` what was."""
    state = read_state(task)
    return (
        state in ("refused", "closed")
        or (state == "parked" and not is_intake(task))
        or (again and state == "acknowledged")
    )


async def preview(
    context: Context, caller: Caller, task: Task, interpreters: Mapping[str, Interpreter]
) -> Interpretation | Refusal:
    """What a replay would store; nothing is written."""
    if not is_intake(task):
        raise Unprocessable(f"`Task/{task['id']}` is a delivery, and a replay sends it again as it is.")
    message = await read_incoming(context, caller, task)
    interpreter = find_interpreter(interpreters, message.format)
    try:
        return await interpreter.interpret(State(context, caller, context.reader(caller)), message)
    except FhirError as error:
        return Refusal(str(error), b"", error.issues)


def find_interpreter(interpreters: Mapping[str, Interpreter], name: str) -> Interpreter:
    """The interpreter of a format. Raises Unprocessable where the table has none."""
    if name not in interpreters:
        known = ", ".join(f"`{each}`" for each in interpreters) or "none"
        raise Unprocessable(f"There is no interpreter for the format `{name}`; formats of this server: {known}.")
    return interpreters[name]


async def close(context: Context, caller: Caller, id: str, reason: str) -> Task:
    """The message closed by a person, with the reason. Raises Conflict for a state that cannot be closed."""
    if not reason.strip():
        raise Conflict("A message is closed with a reason; say why nothing more is to be done.")
    return await _change(context, caller, id, "closed", reason)


async def _change(
    context: Context, caller: Caller, id: str, state: MessageState, reason: str, text: bytes = b""
) -> Task:
    """The message in another state; `text`: what it sends from now on."""

    async def decide(reads: State) -> Decision[Task]:
        current = await reads.read("Task", id)
        if current is None:
            raise NotFound(f"`Task/{id}` does not exist any more.")
        members = {key: value for key, value in current.tree.items() if key != "meta"}
        moved = move_task(members, state, context.clock(), reason)
        if state == "waiting" and "output" in moved:  # its tries are counted anew
            moved["output"] = [each for each in moved["output"] if "tries" not in list_codes(each)]
            moved = {key: value for key, value in moved.items() if value != []}
        if not text:
            return Decision(moved, (put(moved),))
        moved["input"] = [make_part("text", valueReference={"reference": f"Binary/{id}"}), *moved["input"]]
        return Decision(moved, (make_binary(id, ER7, text), put(moved)))

    return (await decide_and_commit(context, caller, decide)).answer
