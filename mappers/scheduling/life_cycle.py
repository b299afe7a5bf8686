"""Which status of an Appointment may follow which (https://hl7.org/fhir/R4/valueset-appointmentstatus.html)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.fhir.outcome import Issue

# docs/scheduling.md shows this table; a test compares the two.
TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "proposed": ("pending", "booked", "waitlist", "cancelled", "entered-in-error"),
    "waitlist": ("proposed", "pending", "booked", "cancelled", "entered-in-error"),
    "pending": ("proposed", "waitlist", "booked", "cancelled", "entered-in-error"),
    "booked": ("pending", "arrived", "checked-in", "fulfilled", "noshow", "cancelled", "entered-in-error"),
    "arrived": ("booked", "checked-in", "fulfilled", "noshow", "cancelled", "entered-in-error"),
    "checked-in": ("booked", "arrived", "fulfilled", "noshow", "cancelled", "entered-in-error"),
    "fulfilled": ("entered-in-error",),
    "noshow": ("entered-in-error",),
    "cancelled": ("entered-in-error",),
    "entered-in-error": (),
}
# Allowed beside these where a person says why.
WITH_OVERRIDE: Mapping[str, tuple[str, ...]] = {"noshow": ("booked",)}

# Statuses that free the Slots; a noshow does so before its end.
FREEING = frozenset(("cancelled", "entered-in-error", "proposed", "waitlist"))

_ADVICE = {"cancelled": " A cancelled Appointment stays cancelled: book anew."}


def list_next(status: str) -> list[str]:
    """The statuses that may follow, as a refusal names them."""
    return [*(f"{each} (with override)" for each in WITH_OVERRIDE.get(status, ())), *TRANSITIONS.get(status, ())]


def check_transition(old: str, new: str, override: bool = False) -> Issue | None:
    """An issue when the status may not change so; the same status is no change."""
    allowed = TRANSITIONS.get(old, ()) + (WITH_OVERRIDE.get(old, ()) if override else ())
    if new == old or new in allowed:
        return None
    if new not in TRANSITIONS:
        text = f"`{new}` is no status of an Appointment; there are {', '.join(TRANSITIONS)}."
        return Issue("error", "code-invalid", text, ("Appointment.status",))
    following = ", ".join(list_next(old)) or "none"
    text = f"An Appointment that is `{old}` cannot become `{new}`; allowed: {following}.{_ADVICE.get(old, '')}"
    return Issue("error", "business-rule", text, ("Appointment.status",))


def frees_slots(status: str, end: int | None, now: int) -> bool:
    """Whether an Appointment that enters this status gives its Slots back."""
    return status in FREEING or (status == "noshow" and (end is None or now < end))
