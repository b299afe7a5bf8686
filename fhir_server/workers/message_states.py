"""The states of a message in the log, in one table: Task.businessStatus, its Task.status, and where each may go.

https://hl7.org/fhir/R4/task.html#statemachine leaves the business states to the site; these are for messages that come
in and for deliveries alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from fhir_server.fhir.datetimes import find_later, format_instant
from fhir_server.fhir.outcome import Conflict
from fhir_server.workers.message_codes import STATE_SYSTEM, clean_text

MessageState = Literal[
    "waiting", "claimed", "sent-unanswered", "acknowledged", "refused", "parked", "closed", "expired"
]


class StateRow(NamedTuple):
    """One state: its Task.status, what it means, the states it may change to, and whether retention may remove it."""

    status: str
    meaning: str
    next: tuple[MessageState, ...]
    removable: bool = False


STATES: Mapping[MessageState, StateRow] = {
    "waiting": StateRow("requested", "to be sent", ("claimed", "parked", "closed")),
    "claimed": StateRow(
        "accepted", "a worker is about to send it", ("claimed", "waiting", "sent-unanswered", "refused", "parked")
    ),
    "sent-unanswered": StateRow(
        "in-progress",
        "sent, or perhaps sent, and not answered yet",
        ("sent-unanswered", "waiting", "acknowledged", "refused", "parked"),
    ),
    "acknowledged": StateRow(
        "completed",
        "taken by its receiver; of what came in, by us",
        ("acknowledged", "refused", "waiting", "expired"),
        removable=True,
    ),
    "refused": StateRow(
        "rejected", "not taken; the reason is beside it", ("refused", "acknowledged", "waiting", "closed")
    ),
    "parked": StateRow("on-hold", "stopped until a person looks at it", ("waiting", "acknowledged", "closed")),
    "closed": StateRow(
        "cancelled",
        "a person has looked at it, and nothing more is to be done",
        ("waiting", "refused", "acknowledged", "expired"),
        removable=True,
    ),
    "expired": StateRow("completed", "older than its partner's retention, and being removed", (), removable=True),
}
"""Every state. `refused` and `closed` of a message that came in change when it comes again or is replayed."""


STATE_OF_STATUS: Mapping[str, MessageState] = {row.status: state for state, row in STATES.items() if state != "expired"}
"""Task.status → the state that it stands for while a delivery goes out."""


def read_state(task: Mapping[str, Any]) -> MessageState | None:
    """The state of a Task of the message log; None for what is no state of the table."""
    for coding in task.get("businessStatus", {}).get("coding", ()):
        if coding.get("system") == STATE_SYSTEM and coding.get("code") in STATES:
            state: MessageState = coding["code"]
            return state
    return None


def code_state(state: MessageState) -> dict[str, Any]:
    """The Task.businessStatus of a state."""
    return {"coding": [{"system": STATE_SYSTEM, "code": state}]}


def move_task(task: Mapping[str, Any], state: MessageState, now: int, reason: str = "") -> dict[str, Any]:
    """The Task in another state at a time (µs); its reason is replaced. Raises Conflict for a move the table lacks.

    A clock that was set back moves no Task to before it was made.
    """
    before = read_state(task)
    if before is None or state not in STATES[before].next:
        following = ", ".join(f"`{each}`" for each in STATES[before].next) if before else ""
        raise Conflict(
            f"The message `Task/{task.get('id')}` is in the state `{before or 'unknown'}` and cannot become `{state}`; "
            + (f"from there it can become {following}." if following else "from there it cannot change any more.")
        )
    members = {key: value for key, value in task.items() if key != "statusReason"}
    members |= {
        "status": STATES[state].status,
        "businessStatus": code_state(state),
        "lastModified": find_later(format_instant(now), str(task.get("authoredOn", ""))),
    }
    return members | ({"statusReason": {"text": clean_text(reason)}} if reason else {})
