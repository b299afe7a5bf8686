"""ORC-1 (HL70119) and ORC-5 (HL70038): what is asked of, or answered to, a partner (HL7 2.5.1, 4.5.1.1)."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.outbound.codes import read_first_code

FIRST = {
    "active": ("NW", ""),
    "unknown": ("NW", ""),
    "on-hold": ("HD", "HD"),
    "cancelled": ("CA", "CA"),
    "stopped": ("DC", "DC"),
    "completed": ("SC", "CM"),
    "entered-in-error": ("CA", "ER"),
}
"""ORC-1 and ORC-5 by the status of an order of which the receiver was not told before; a draft is not sent."""

IN_FORCE = frozenset({"active", "unknown", "on-hold"})

NOW = {
    "active": "IP",
    "on-hold": "HD",
    "cancelled": "CA",
    "stopped": "DC",
    "completed": "CM",
    "entered-in-error": "ER",
}
"""ORC-5 by the status of an order about which something was asked."""

ANSWERS = {
    ("refill-request", "completed"): "AF",
    ("refill-request", "rejected"): "DF",
    ("cancel-request", "completed"): "CR",
    ("cancel-request", "rejected"): "UC",
    ("hold-request", "completed"): "HR",
    ("hold-request", "rejected"): "UH",
}
"""ORC-1 that answers what was asked for, by the code of the Task and its status."""

REFILL_ANSWERS = {"active": "AF", "on-hold": "AF", "completed": "AF", "cancelled": "DF", "entered-in-error": "DF"}
"""ORC-1 by what has become of the draft that answers a request for a refill."""

ASKED = frozenset(code for code, _ in ANSWERS)


def choose_control(status: str, earlier: str) -> tuple[str, str]:
    """ORC-1 and ORC-5 of an order in a status; `earlier` is the status that the receiver was told, "" for none.

    An order that ended is not asked to end again: SC tells its status once more. One that is in force again after its
    end is a new order.
    """
    control, told = FIRST[status]
    if status in ("active", "unknown") and earlier in IN_FORCE:
        return "RL" if earlier == "on-hold" else "XO", ""
    if status == earlier == "on-hold":
        return "XO", told
    return ("SC", told) if status == earlier and status not in IN_FORCE else (control, told)


def read_answer(task: Resource) -> str:
    """ORC-1 by which a Task answers what was asked for an order; "" for one that asks nothing, or is open."""
    return ANSWERS.get((read_first_code(task.get("code")), str(task.get("status", ""))), "")
