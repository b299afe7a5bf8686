"""The Slots of an Appointment: which become busy, which are freed, which are deleted (https://hl7.org/fhir/R4/slot.html)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice
from mappers.scheduling.elements import (
    Resource,
    code_of,
    extension_value,
    hold_expired,
    members,
    read_times,
    reference_of,
    slot_origin,
    target_of,
)
from mappers.scheduling.extensions import HOLD_EXPIRES, SLOT_ORIGIN
from mappers.scheduling.intervals import Interval, subtract, unite
from mappers.scheduling.life_cycle import FREEING, frees_slots
from mappers.scheduling.occupied import OCCUPYING, Taking, list_takings
from mappers.scheduling.parameters import SchedulingParameters


class SlotChanges(NamedTuple):
    """What is written and deleted beside an Appointment, and the Appointment with its `slot` references."""

    appointment: Resource
    writes: tuple[Resource, ...] = ()
    deletes: tuple[str, ...] = ()


class SlotContext(NamedTuple):
    """The stored Slots of the Schedules around the time, those that other occupying Appointments name, and new ids."""

    slots: tuple[Resource, ...]
    named_by_others: frozenset[str]
    new_id: Callable[[], str]
    now: int
    overbooked: bool = False


def derive_slots(
    appointment: Resource, practice: Practice, context: SlotContext, old: Resource | None = None
) -> SlotChanges:
    """The Slots that an Appointment as it is now needs, and what becomes of those it had.

    Site Slots that are free and overlap become busy and are named, where the capacity is 1; where they do not cover
    the time, the booking makes a Slot. One that is not needed any more goes back to `free` when the site published it,
    and is deleted when a booking made it. An actor without Schedule gets one; patients have none.
    """
    status = code_of(appointment)
    if status not in OCCUPYING:
        time = read_times(appointment)
        if not frees_slots(status, None if isinstance(time, Issue) else time.end, context.now):
            return SlotChanges(appointment)  # a noshow after its end keeps its Slots busy
    before = [target_of(slot) for each in (old, appointment) for slot in members(each, "slot")]
    named = list(dict.fromkeys(before))
    writes: list[Resource] = []
    used: list[str] = []
    if status in OCCUPYING:
        for taking in list_takings(appointment, practice):
            if not taking.actor.startswith("Patient/"):
                changed, own = _take_slots(appointment, taking, named, context)
                writes += changed
                used += own
    if not before:
        return SlotChanges(_with_slots(appointment, used), tuple(writes))
    stored = {reference_of(slot): slot for slot in context.slots}
    # what the Appointment only names was not taken by it, and is not its to free
    taken = [target_of(slot) for slot in members(old, "slot")] if code_of(old) not in ("", *FREEING) else []
    left = [each for each in taken if each not in used and each not in context.named_by_others]
    gone = tuple(each for each in left if each in stored and slot_origin(stored[each]) == "booking")
    freed = [_set_status(stored[each], "free", None, False) for each in left if each in stored and each not in gone]
    writes += [slot for slot in freed if slot != stored[reference_of(slot)]]
    # what an Appointment names beside its own Slots is the client's, and stays
    remaining = [each for each in named if each not in gone and (each in used or each not in taken or each in left)]
    order = [*remaining, *(each for each in used if each not in remaining)]
    return SlotChanges(_with_slots(appointment, order), tuple(writes), gone)


def _take_slots(
    appointment: Resource, taking: Taking, named: list[str], context: SlotContext
) -> tuple[list[Resource], list[str]]:
    """(Slots and Schedule to write, references of all Slots) of one actor."""
    schedule = taking.schedule or make_schedule(taking.actor)
    writes = [] if taking.schedule else [schedule]
    owner = reference_of(schedule)
    status = "busy-tentative" if code_of(appointment) == "pending" else "busy"
    expires = extension_value(appointment, HOLD_EXPIRES) if status == "busy-tentative" else None
    own = [slot for slot in context.slots if target_of(slot.get("schedule")) == owner]
    used, covered = [], []
    for slot in own if taking.parameters.capacity == 1 else []:
        times, name = read_times(slot), reference_of(slot)
        if isinstance(times, Issue) or slot_origin(slot) == "booking" or not times.overlaps(taking.time):
            continue
        if code_of(slot) == "free" or name in named:
            writes.append(_set_status(slot, status, expires, context.overbooked))
            used.append(name)
            covered.append(times)
    if not covered or subtract([taking.time], unite(covered)):
        mine = next((s for s in own if slot_origin(s) == "booking" and reference_of(s) in named), None)
        made = _move_slot(mine, taking.time) if mine else _make_slot(context.new_id(), owner, taking.time)
        writes.append(_set_status(made, status, expires, context.overbooked))
        used.append(reference_of(made))
    unchanged = {reference_of(slot): slot for slot in own}
    return [each for each in writes if unchanged.get(reference_of(each)) != each], used


def _make_slot(id: str, owner: str, time: Interval) -> Resource:
    """A new Slot of the booking, without a status."""
    return {
        "resourceType": "Slot",
        "id": id,
        "extension": [{"url": SLOT_ORIGIN, "valueCode": "booking"}],
        "schedule": {"reference": owner},
        "start": format_instant(time.start),
        "end": format_instant(time.end),
    }


def _move_slot(slot: Resource, time: Interval) -> Resource:
    """A Slot of the booking at the time."""
    if read_times(slot) == time:
        return slot
    return {**slot, "start": format_instant(time.start), "end": format_instant(time.end)}


def _set_status(slot: Resource, status: str, expires: Any, overbooked: bool) -> Resource:
    """The Slot with this status; only a hold says when it expires, and only a double booking that it is overbooked."""
    extensions = [each for each in members(slot, "extension") if each.get("url") != HOLD_EXPIRES]
    if expires:
        extensions.append({"url": HOLD_EXPIRES, "valueInstant": expires})
    changed = {**slot, "status": status, "extension": extensions, "overbooked": True}
    for name, stays in (("extension", extensions), ("overbooked", overbooked)):
        if not stays:
            del changed[name]
    return changed


def _with_slots(appointment: Resource, references: Iterable[str]) -> Resource:
    """The Appointment naming these Slots; as it was when it names them already."""
    wanted = list(references)
    if wanted == [target_of(slot) for slot in members(appointment, "slot")]:
        return appointment
    rest = {name: value for name, value in appointment.items() if name != "slot"}
    return {**rest, "slot": [{"reference": each} for each in wanted]} if wanted else rest


def make_schedule(actor: str) -> Resource:
    """A Schedule for an actor that has none; its id follows from the actor, so that two writers make the same one."""
    id = sha256(actor.encode()).hexdigest()[:32]
    return {"resourceType": "Schedule", "id": id, "active": True, "actor": [{"reference": actor}]}


def release_slots(appointment: Resource, context: SlotContext) -> SlotChanges:
    """What becomes of the Slots of an Appointment that is deleted."""
    nothing = Practice({}, {}, {}, SchedulingParameters())
    return derive_slots({**appointment, "status": "cancelled"}, nothing, context, appointment)


def check_hold(appointment: Resource, patient: str, now: int) -> Issue | None:
    """An issue when an Appointment is no hold that this patient (a reference; empty: not said) can book now."""
    if code_of(appointment) != "pending":
        text = f"The Appointment is `{code_of(appointment)}`, not a hold (`pending`)."
        return Issue("error", "business-rule", text, ("Appointment.status",))
    if hold_expired(appointment, now):
        return Issue(
            "error", "expired", "The hold has expired; ask `$find` for a time again.", ("Appointment.extension",)
        )
    actors = [target_of(person.get("actor")) for person in members(appointment, "participant")]
    patients = [actor for actor in actors if actor.startswith("Patient/")]
    if patient and patients and patient not in patients:
        text = f"This time is held for another patient than `{patient}`."
        return Issue("error", "forbidden", text, ("Appointment.participant",))
    return None


def mark_hold(appointment: Resource, until: int) -> Resource:
    """A pending Appointment that holds its time until an instant."""
    others = [each for each in members(appointment, "extension") if each.get("url") != HOLD_EXPIRES]
    expires = {"url": HOLD_EXPIRES, "valueInstant": format_instant(until)}
    return {**appointment, "status": "pending", "extension": [*others, expires]}
