"""One intake for every message: what it says, its raw text and its Task are stored together, or its refusal is.

A message is known by its partner, its control number and the hash of its text. What was accepted before gets the
stored acknowledgement and writes nothing; what was refused is tried again (docs/messages.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import FhirError, Issue, TooLarge
from fhir_server.interactions.entries import Posted, read_entry
from fhir_server.interactions.transaction import EntryGroups, entry_to_action
from fhir_server.requests.authorisation import audit
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller, Request
from fhir_server.requests.store_errors import store_error_to_fhir_error
from fhir_server.search.escapes import escape
from fhir_server.search.query import And, Ids, Not, Query, Scope, StartsWith
from fhir_server.store.operations import Matches
from fhir_server.store.protocol import StoreError, TooLargeForStore
from fhir_server.workers.interpreters import Entry, Interpretation, Interpreter, Refusal
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    INTAKE,
    PARTNER_SYSTEM,
    STATE_SYSTEM,
    TASK_SYSTEM,
    clean_text,
    read_acknowledgement,
)
from fhir_server.workers.message_states import MessageState, read_state
from fhir_server.workers.message_tasks import (
    LARGEST_MESSAGE,
    IncomingMessage,
    Outcome,
    make_binary,
    make_intake_task,
    make_provenance,
    name_message,
)
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.resolve_targets import SLICE
from fhir_server.writes.state import State

ACCEPTED = ("acknowledged", "expired")
"""The states of a message that is not taken a second time."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Received(NamedTuple):
    """What came of a message. `repeated`: it had been accepted before, and nothing was written.

    `made`: the references of what it has made now.
    """

    id: str
    state: MessageState
    acknowledgement: bytes
    reason: str = ""
    issues: tuple[Issue, ...] = ()
    repeated: bool = False
    made: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """One message on its way into the store. `again`: what was accepted before is interpreted once more."""

    context: Context
    caller: Caller
    message: IncomingMessage
    interpreter: Interpreter
    again: bool = False


async def receive(
    context: Context, caller: Caller, message: IncomingMessage, interpreter: Interpreter, again: bool = False
) -> Received:
    """Store what a message says, its text and its Task in one transaction; where that fails, its text and its refusal.

    `again`: what was accepted before is interpreted once more; if it is refused now, its Task stays as it is.
    Raises StoreError where the store can write nothing at all: the sender must then get no acknowledgement.
    """
    # Who may hand in messages is decided; what they say is looked up and stored as the server's own work.
    principal = replace(caller.principal, partner=message.partner, grant=None)
    intake = Intake(context, caller._replace(principal=principal), message, interpreter, again)
    if len(message.raw) > LARGEST_MESSAGE:
        return await _refuse(intake, TooLarge(_describe_size()), keeps_text=False)
    groups = EntryGroups()
    try:
        received = await _accept(intake, groups)
    except (FhirError, TooLargeForStore) as error:
        refusal = error if isinstance(error, FhirError) else store_error_to_fhir_error(error)
        _audit(intake, groups, refusal.status)
        try:
            return await _refuse(intake, refusal, keeps_text=True)
        except TooLargeForStore:
            return await _refuse(intake, refusal, keeps_text=False)
    _audit(intake, groups, 200)
    return received


async def _accept(intake: Intake, groups: EntryGroups) -> Received:
    """The first transaction: the entries of the message with its log, or the refusal of its interpreter."""
    context, message = intake.context, intake.message
    attempts = 0

    async def decide(state: State) -> Decision[Received]:
        nonlocal attempts
        attempts += 1
        groups.authorised.clear()
        log = State(context, intake.caller)
        is_new = attempts == 1 and not intake.again and await _is_new(log, message)
        task = None if is_new else await read_task(log, message.id)
        accepted = task is not None and read_state(task) in ACCEPTED
        if task is not None and accepted and not intake.again:
            return Decision(_recall(task))
        reused = None if is_new else await _find_reuse(log, message, intake.caller)
        actions: list[Action] = []
        if reused is not None and message.refuse_reused:
            said: Interpretation | Refusal = await _write_refusal(intake, reused.diagnostics, reused=True)
        else:
            said, actions = await _interpret(intake, state, groups)
        outcome = _conclude(said, actions, () if reused is None else (reused,))
        if accepted and outcome.state == "refused":
            return Decision(_answer(message, outcome))
        actions += _log(intake, outcome, task, keeps_text=True, is_new=is_new)
        return Decision(_answer(message, outcome), actions, log.assertions, tuple(log.locks))

    return (await decide_and_commit(context, intake.caller, decide)).answer


async def _refuse(intake: Intake, error: FhirError, keeps_text: bool) -> Received:
    """The second transaction: text and refusal alone, unless another process has accepted the message meanwhile."""
    message = intake.message
    refusal = await _write_refusal(intake, _describe(error))
    outcome = Outcome("refused", refusal.acknowledgement, refusal.reason, error.issues)

    async def decide(state: State) -> Decision[Received]:
        log = State(intake.context, intake.caller)
        task = await read_task(log, message.id)
        if task is not None and read_state(task) in ACCEPTED:
            return Decision(_answer(message, outcome) if intake.again else _recall(task))
        actions = _log(intake, outcome, task, keeps_text)
        return Decision(_answer(message, outcome), actions, log.assertions)

    return (await decide_and_commit(intake.context, intake.caller, decide)).answer


async def _write_refusal(intake: Intake, reason: str, reused: bool = False) -> Refusal:
    """The refusal with the acknowledgement of its format; without one where even that cannot be written."""
    try:
        refuse = (intake.interpreter.refuse_reused if reused else None) or intake.interpreter.refuse
        run = intake.context.long_work.run
        return Refusal(reason, await run(len(intake.message.raw), refuse, intake.message, reason))
    except Exception as error:
        return Refusal(f"{reason} No acknowledgement could be written (`{type(error).__name__}: {error}`).", b"")


async def read_task(log: State, id: str) -> Mapping[str, Any] | None:
    """A Task of the log; None where there is none."""
    found = await log.read("Task", id)
    return None if found is None else found.tree


def _recall(task: Mapping[str, Any]) -> Received:
    state = read_state(task)
    assert state is not None
    return Received(task["id"], state, read_acknowledgement(task), repeated=True)


def _answer(message: IncomingMessage, outcome: Outcome) -> Received:
    issues, made = tuple(outcome.issues), tuple(outcome.made)
    return Received(message.id, outcome.state, outcome.acknowledgement, outcome.reason, issues, made=made)


async def _is_new(log: State, message: IncomingMessage) -> bool:
    """Whether no message with the control number has come, as hardly ever one has; then this is asserted."""
    if not message.number:
        return False
    where = StartsWith("identifier", name_message(message.partner, message.number, ""))
    page = await log.context.unrestricted.search(Query((Scope("Task", where),), count=1, brief=True))
    if page.matches:
        return False
    _lock_number(log, message)
    log.assert_none("Task", where, page.seen)
    return True


def _lock_number(log: State, message: IncomingMessage) -> None:
    """Keep two messages with one control number from passing at once."""
    log.lock((f"message {message.partner} {message.number}",))


async def _find_reuse(log: State, message: IncomingMessage, caller: Caller) -> Issue | None:
    """What is to be said of another message with the same control number."""
    if not message.number:
        return None
    _lock_number(log, message)
    pairs = [
        ("code", f"{TASK_SYSTEM}|{INTAKE}"),
        ("group-identifier", f"{PARTNER_SYSTEM}|{escape(message.partner)}"),
        ("identifier", f"{CONTROL_SYSTEM}|{escape(message.number)}"),
    ]
    if message.refuse_reused:
        pairs.append(("business-status", f"{STATE_SYSTEM}|acknowledged"))
    where = await parse_criteria(log.context, "Task", tuple(pairs), caller)
    query = Query((Scope("Task", And((where, Not(Ids((message.id,)))))),), count=1)
    matches = (await log.context.unrestricted.search(query)).matches
    if not matches:
        log.assertions.append(Matches(query, ()))
        return None
    sentence = (
        f"The partner `{message.partner}` has sent the control number `{message.number}` before with another text: "
        f"see `Task/{matches[0].id}`."
    )
    return Issue("warning", "duplicate", sentence)


async def _interpret(
    intake: Intake, state: State, groups: EntryGroups
) -> tuple[Interpretation | Refusal, list[Action]]:
    """What the message says, and its entries as actions. A fault of the interpreter is a refusal, and loses nothing."""
    try:
        said = await intake.interpreter.interpret(state, intake.message)
        if isinstance(said, Refusal):
            return said, []
        entries = [_name_entry(intake.context, each) for each in said.entries]
        return said, await _build_actions(intake, entries, groups)
    except (FhirError, StoreError):
        raise
    except Exception as error:
        reason = (
            f"This server could not read the message, by a fault of its own (`{type(error).__name__}: {error}`); the "
            "text is kept, and is read again when it comes again or is replayed."
        )
        return await _write_refusal(intake, reason), []


def _name_entry(context: Context, entry: Entry) -> dict[str, Any]:
    """The entry with a full URL, by which the Task and the Provenance refer to what it makes."""
    url = entry["request"]["url"]
    named = entry.get("fullUrl") or ("/" in url and "?" not in url)
    return dict(entry) if named else {**entry, "fullUrl": f"urn:uuid:{context.new_id()}"}


async def _build_actions(intake: Intake, entries: list[dict[str, Any]], groups: EntryGroups) -> list[Action]:
    """The entries as a client's transaction would carry them out: checked, authorised, noted for the audit."""
    envelope = [{key: value for key, value in entry.items() if key != "resource"} for entry in entries]
    resources = [_encode(entry["resource"]) if "resource" in entry else None for entry in entries]
    posted = Posted("transaction", envelope, resources)
    request = Request("POST", (), base=intake.caller.base, principal=intake.caller.principal, id=intake.message.id)
    actions = []
    for position in range(len(entries)):
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        try:
            actions.append(entry_to_action(intake.context, groups, read_entry(request, posted, position)))
        except FhirError as error:
            raise error.relocate(f"Bundle.entry[{position}]") from None
    return actions


def _conclude(said: Interpretation | Refusal, actions: list[Action], remarks: tuple[Issue, ...]) -> Outcome:
    """How the message fares if all of its actions are stored."""
    issues = (*said.issues, *remarks)
    if isinstance(said, Refusal):
        return Outcome("refused", said.acknowledgement, said.reason, issues)
    writes = [each for each in actions if each.method != "DELETE"]
    made = [each.full_url or f"{each.type}/{each.id}" for each in writes]
    deletions = [_describe_deletion(each) for each in actions if each.method == "DELETE"]
    patients = [name for name, each in zip(made, writes, strict=True) if each.type == "Patient"]
    patient = said.patient or (patients[0] if patients else "")
    return Outcome("acknowledged", said.acknowledgement, "", issues, made, deletions, patient)


def _describe_deletion(action: Action) -> str:
    criteria = "&".join(f"{name}={value}" for name, value in action.criteria or ())
    return f"DELETE {action.type}?{criteria}" if criteria else f"DELETE {action.type}/{action.id}"


def _log(
    intake: Intake, outcome: Outcome, task: Mapping[str, Any] | None, keeps_text: bool, is_new: bool = False
) -> list[Action]:
    """The Binary, the Task and, of what was accepted, the Provenance. `is_new`: none of them is there."""
    message, now = intake.message, intake.context.clock()
    received = task["authoredOn"] if task is not None else format_instant(now)
    actions = [make_intake_task(message, outcome, received, now, keeps_text)]
    if keeps_text:
        actions.insert(0, make_binary(message.id, message.content_type, message.raw))
    if outcome.state == "acknowledged":
        actions.append(make_provenance(message, outcome, now))
    return [each._replace(is_new=True) for each in actions] if is_new else actions


def _audit(intake: Intake, groups: EntryGroups, status: int) -> None:
    for request, interaction in groups.authorised:
        audit(intake.context, request, interaction, status)


def _describe(error: FhirError) -> str:
    """The sentences of an error, each with the paths that it speaks of."""
    sentences = (
        f"{', '.join(issue.expression)}: {issue.diagnostics}" if issue.expression else issue.diagnostics
        for issue in error.issues
    )
    return clean_text(" ".join(sentences))


def _describe_size() -> str:
    return (
        f"The message is longer than {LARGEST_MESSAGE} bytes, the most that can be kept; send it in parts. The hash of "
        "what came and its first bytes are kept."
    )
