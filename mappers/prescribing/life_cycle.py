"""Which status of a MedicationRequest may follow which (https://hl7.org/fhir/R4/valueset-medicationrequest-status.html)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.fhir.outcome import Issue

# docs/prescribing.md shows this table; a test compares the two.
TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "draft": ("active", "cancelled", "entered-in-error"),
    "active": ("on-hold", "completed", "stopped", "cancelled", "entered-in-error"),
    "on-hold": ("active", "completed", "stopped", "cancelled", "entered-in-error"),
    "completed": ("entered-in-error",),
    "stopped": ("entered-in-error",),
    "cancelled": ("entered-in-error",),
    "entered-in-error": (),
    "unknown": ("draft", "active", "on-hold", "completed", "stopped", "cancelled", "entered-in-error"),
}

RENEWABLE = frozenset(("active", "on-hold", "completed"))
"""What can be renewed: a prescription that was stopped or withdrawn is written anew, by somebody who decides so."""

DISCONTINUED = frozenset(("stopped", "cancelled"))


def check_transition(old: str, new: str) -> Issue | None:
    """An issue when the status may not change so; the same status is no change."""
    allowed = TRANSITIONS.get(old, ())
    if new == old or new in allowed:
        return None
    following = ", ".join(f"`{each}`" for each in allowed) or "none"
    text = f"A MedicationRequest that is `{old}` cannot become `{new}`; allowed: {following}."
    if old in ("stopped", "cancelled", "completed") and new == "active":
        text += " Write a new one" + (", or renew it by `$renew`." if old in RENEWABLE else ".")
    return Issue("error", "business-rule", text, ("MedicationRequest.status",))


def find_end(status: str, chosen: str = "") -> str:
    """The status that discontinuing leads to: `cancelled` before it was active, `stopped` after; or as chosen."""
    return chosen or ("cancelled" if status == "draft" else "stopped")
