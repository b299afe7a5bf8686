"""The rules of booking, asked about every write of Appointments and of what they depend on, whatever the door.

Plain writes are held to clashes, capacity, buffers and the life cycle of changes (docs/scheduling.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC

from fhir_server.fhir.outcome import Issue
from fhir_server.operations.scheduling.followers import encounter_rule, response_rule
from fhir_server.scheduling.availability import explain_alternatives, list_alternatives
from fhir_server.scheduling.settle import Settled, Visit, plan_release, plan_slots, settle
from fhir_server.scheduling.site import read_site
from fhir_server.scheduling.surroundings import LONGEST, tag
from fhir_server.writes.rules import ALLOWED, Change, RuleForSome, Rules, Ruling
from fhir_server.writes.state import State
from mappers.scheduling.calendars import owner_of
from mappers.scheduling.elements import Resource, code_of, read_times, target_of
from mappers.scheduling.hours import read_hours
from mappers.scheduling.intervals import Interval
from mappers.scheduling.life_cycle import check_transition
from mappers.scheduling.locks import lock_names
from mappers.scheduling.occupied import OCCUPYING
from mappers.scheduling.ownership import is_same_but_for_patients, split_by_owner
from mappers.scheduling.parameters import read_parameters

_ENDS = ("end", "start")


async def appointment_rule(state: State, change: Change) -> Ruling:
    """Refuse what is taken or may not follow; make, move or free the Slots in the same transaction."""
    mode = state.context.settings.booking
    if mode == "off" or (change.new is None and change.current is None):
        return ALLOWED
    old = dict(change.current) if change.current is not None else None
    now = state.context.clock()
    if change.new is None:
        released = await plan_release(state, old or {}, now)
        return Ruling(actions=released.actions)
    new = dict(change.new)
    wrong = [*_check_times(new, old), *_check_status(new, old)]
    if wrong and mode == "enforce":
        return Ruling(tuple(wrong))
    if old is None and code_of(new) not in OCCUPYING:
        return Ruling(_weigh(wrong, mode))
    partner = state.caller.principal.partner
    if partner and is_same_but_for_patients(old, new):
        return ALLOWED  # a message has merged patients: whose it is changes, and nothing is booked
    practice = await read_site(state)
    settled = await settle(state, Visit(new, old, practice, now))
    if not (wrong or settled.refusals):
        return await _write(state, settled, ())
    remaining, aside = split_by_owner(settled.refusals, new, practice, partner)
    issues = _weigh([*wrong, *(refusal.issue for refusal in remaining)], mode)
    issues += _weigh((refusal.issue for refusal in aside), "warn")
    errors = [issue for issue in issues if issue.severity == "error"]
    if errors and all(issue.code == "conflict" for issue in errors):
        times = await list_alternatives(state.context, new, practice)
        return Ruling((*issues, explain_alternatives(times)))
    if errors:
        return Ruling(issues)
    return await _write(state, settled, issues)


async def _write(state: State, settled: Settled, issues: tuple[Issue, ...]) -> Ruling:
    new = settled.visit.new
    appointment, actions = await plan_slots(state, settled, overbooked=bool(settled.refusals))
    return Ruling(issues, actions, elements=_list_differences(new, appointment))


def _list_differences(new: Resource, settled: Resource) -> dict[str, object]:
    return {name: settled.get(name) for name in ("meta", "slot") if settled.get(name) != new.get(name)}


def _weigh(issues: Iterable[Issue], mode: str) -> tuple[Issue, ...]:
    """The issues as they are, or as warnings where the setting says so."""
    return tuple(replace(issue, severity="warning") if mode == "warn" else issue for issue in issues)


def _check_times(new: Resource, old: Resource | None) -> list[Issue]:
    """What takes time needs a start and a later end; an Appointment that was stored without may stay so."""
    if code_of(new) not in OCCUPYING or (old is not None and all(new.get(n) == old.get(n) for n in _ENDS)):
        return []
    times = read_times(new)
    return [times] if isinstance(times, Issue) else []


def _check_status(new: Resource, old: Resource | None) -> list[Issue]:
    issue = check_transition(code_of(old), code_of(new)) if old is not None else None
    return [issue] if issue else []


async def slot_rule(state: State, change: Change) -> Ruling:
    """Lock the actor and days of a Slot, so that it does not come between the check and the write of a booking."""
    if state.context.settings.booking == "off":
        return ALLOWED
    resource = change.new or change.current
    times = read_times(dict(resource)) if resource is not None else None
    if resource is None or not isinstance(times, Interval):
        return ALLOWED
    if times.end - times.start > LONGEST:
        text = "The Slot is longer than 366 days, further than bookings look; write it in parts."
        return Ruling((Issue("error", "too-costly", text, ("Slot.end",)),)) if change.new else ALLOWED
    if times.end > state.context.clock():
        practice = await read_site(state)
        schedule = practice.directory.get(target_of(resource.get("schedule")))
        if schedule is not None:
            state.lock(lock_names(owner_of(schedule, practice.directory), times))
    if change.new is None:
        return ALLOWED
    new = dict(change.new)
    return Ruling(elements=_list_differences(new, tag(new)))


async def calendar_rule(state: State, change: Change) -> Ruling:
    """Refuse scheduling parameters that make no sense; remark on hours that make none or overlap."""
    if change.verb == "purge":
        state.context.snapshots.pop("scheduling", None)  # a history tells of no purge
    if change.new is None:
        return ALLOWED
    new = dict(change.new)
    issues = read_parameters(new)[1] if new.get("extension") else []
    remarks = read_hours(new, UTC)[1] if new["resourceType"] != "Schedule" else []
    issues += [replace(issue, severity="warning") for issue in remarks]
    return Ruling(tuple(issues))


_CALENDARS = ("HealthcareService", "Location", "PractitionerRole", "Schedule")
BOOKING_RULES: Rules = {
    "Appointment": appointment_rule,
    "AppointmentResponse": response_rule,
    "Encounter": RuleForSome(encounter_rule, lambda encounter: bool(encounter.get("appointment"))),
    "Slot": slot_rule,
    **dict.fromkeys(_CALENDARS, calendar_rule),
}
