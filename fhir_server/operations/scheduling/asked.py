"""Which Appointments a request to hold or book is about: a stored one, a proposed one, or a new one; any of several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from fhir_server.fhir.outcome import Conflict, FhirError, Forbidden, Invalid, Issue, NotFound, Unprocessable
from fhir_server.fhir.urls import BASE
from fhir_server.operations.scheduling.find import check_known, describe_types
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.operations.scheduling.patients import NOBODY, Patient
from fhir_server.operations.scheduling.pools import select_providers
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.scheduling.availability import (
    add_rooms,
    know_proposals,
    list_bare_rooms,
    list_calendars,
    read_unseen,
)
from fhir_server.scheduling.surroundings import read_surroundings
from fhir_server.writes.state import State
from mappers.scheduling.calendars import Practice, list_actors
from mappers.scheduling.clashes import check_actors
from mappers.scheduling.elements import Resource, list_types, members, read_times, reference_of, target_of
from mappers.scheduling.free_times import count_visits
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.life_cycle import FREEING
from mappers.scheduling.occupied import occupies
from mappers.scheduling.proposals import proposal_to_appointment, read_proposal_id

_MOST_REPEATS = 100
SERIES = f"{BASE}/appointment-series"
"""The system of the identifier by which the members of a series are found."""

_PEOPLE = ("Practitioner/", "PractitionerRole/")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request while it is decided: what it says, and the practice and time at which it is answered."""

    context: Context
    request: Request
    asked: Parameters
    practice: Practice
    now: int
    patient: Patient = NOBODY


@dataclass(frozen=True, slots=True)
class Candidate:
    """An Appointment that would do, and its stored version (None: it is new)."""

    new: Resource
    old: Resource | None = None


async def list_candidates(state: State, ask: Ask) -> list[Candidate]:
    """The Appointments that a request names, in the order in which they are tried. Raises what is wrong with it."""
    resource = ask.asked.resource("appointment-resource", "Appointment")
    reference = ask.asked.text("appointment-reference") if "appointment-reference" in ask.asked.values else ""
    if (resource is None) == (not reference):
        text = f"`{ask.asked.operation}` needs either `appointment-reference` or `appointment-resource`."
        raise Invalid(text, code="required", expression=("appointment-reference",))
    named = dict.fromkeys(ask.asked.references("practitioner"), "practitioner")
    if ask.patient.reference and ask.patient.newcomer is None:
        named[ask.patient.reference] = "patient-reference"
    await check_known(ask.context, ask.request, named, ask.practice)
    found = await _read_reference(state, ask, reference) if reference else await _read_resource(state, ask, resource)
    if found.old is not None or "practitioner" not in ask.asked.values:
        return [found]
    return [Candidate(each) for each in await _list_any_of(ask, found.new)]


async def _read_reference(state: State, ask: Ask, reference: str) -> Candidate:
    """The stored Appointment, or the proposed one, with the one that was made of it before."""
    id = target_of({"reference": reference}).removeprefix("Appointment/")
    patient = ask.patient.reference
    stored = await state.read("Appointment", id)
    if stored is not None:
        return _read_stored(dict(stored.tree), patient)
    practice = ask.practice
    proposal = read_proposal_id(id, know_proposals(ask.context, practice, patient), ask.now)
    if isinstance(proposal, Issue):
        raise error_of(proposal)
    rooms = [room for room in list_bare_rooms(practice) if _needs_room(room, proposal.schedules)]
    new = proposal_to_appointment(proposal, add_rooms(ask.context, rooms, practice), describe_types(proposal.types))
    new = _add_patient(new, patient)
    for repeat in range(_MOST_REPEATS):
        # the id follows from the proposal, so that the same request finds what it made
        own = sha256(f"{id} {repeat}".encode()).hexdigest()[:32]
        stored = await state.read("Appointment", own)
        if stored is None:
            return Candidate({"resourceType": "Appointment", "id": own, **new})
        if occupies(dict(stored.tree), ask.now):
            return _read_stored(dict(stored.tree), patient)
    raise Conflict("This proposal was taken and given back too often; ask `$find` again.")


def _read_stored(old: Resource, patient: str) -> Candidate:
    """A stored Appointment; one that is nobody's yet becomes the patient's."""
    actors = [target_of(person.get("actor")) for person in members(old, "participant")]
    free = not any(actor.startswith("Patient/") for actor in actors)
    return Candidate(_add_patient(old, patient) if free else old, old)


def _needs_room(room: str, schedules: tuple[str, ...]) -> bool:
    return f"Schedule/{sha256(room.encode()).hexdigest()[:32]}" in schedules


async def _read_resource(state: State, ask: Ask, resource: Resource | None) -> Candidate:
    """The Appointment that was sent, checked for what a booking needs."""
    new = _add_patient(dict(resource or {}), ask.patient.reference)
    issues = []
    times = read_times(new)
    if isinstance(times, Issue):
        issues.append(times)
    if new.get("status") in FREEING - {"proposed", "waitlist"}:
        text = f"An Appointment that is `{new['status']}` cannot be taken; `$cancel` cancels one."
        issues.append(Issue("error", "business-rule", text, ("Appointment.status",)))
    if not members(new, "participant") and "practitioner" not in ask.asked.values:
        text = "The Appointment has no participant whose time it could take."
        issues.append(Issue("error", "required", text, ("Appointment.participant",)))
    if not isinstance(times, Issue):
        references = [target_of(person.get("actor")) for person in members(new, "participant")]
        known = await ask.context.reader(ask.request.caller).read_many([each for each in references if each])
        issues += check_actors(new, ask.practice, {*known, ask.patient.reference})
    if issues:
        raise Invalid(issues=issues)
    id = new.get("id")
    stored = await state.read("Appointment", id) if isinstance(id, str) else None
    old = dict(stored.tree) if stored is not None else None
    return Candidate({**new, "id": id or ask.context.new_id()}, old)


def _add_patient(appointment: Resource, patient: str) -> Resource:
    people = members(appointment, "participant")
    if not patient or patient in [target_of(person.get("actor")) for person in people]:
        return appointment
    added = {"actor": {"reference": patient}, "required": "required", "status": "accepted"}
    return {**appointment, "participant": [added, *people]}


async def _list_any_of(ask: Ask, appointment: Resource) -> list[Resource]:
    """The Appointment with each of the providers who were named: fewest booked minutes that day, then Schedule."""
    times = read_times(appointment)
    assert not isinstance(times, Issue)
    types = list_types(appointment)
    schedules = select_providers(ask.asked, ask.practice, types)
    calendars, issues = list_calendars(ask.context, schedules, types, ask.practice)
    if not calendars:
        raise (
            Unprocessable(issues=issues)
            if issues
            else Unprocessable(
                "None of the practitioners has a Schedule; create one, or name another.", expression=("practitioner",)
            )
        )
    window = Interval(times.start - DAY, times.end + DAY)
    actors = [each.actor for each in calendars]

    occupied = (
        await read_surroundings(partial(read_unseen, ask.context), actors, window, ask.practice, ask.now)
    ).occupied
    ranked = sorted(calendars, key=lambda each: (count_visits(each, times.start, occupied)[0], each.schedule))
    return [with_provider(appointment, ask.practice.directory[each.schedule]) for each in ranked]


def with_provider(appointment: Resource, schedule: Resource) -> Resource:
    """The Appointment with those of the Schedule in the place of its practitioners."""
    others = [
        person
        for person in members(appointment, "participant")
        if not target_of(person.get("actor")).startswith(_PEOPLE)
    ]
    there = {target_of(person.get("actor")) for person in others}
    added = [
        {"actor": {"reference": actor}, "required": "required", "status": "accepted"}
        for actor in list_actors(schedule)
        if actor not in there
    ]
    return {**appointment, "participant": [*others, *added]}


_ERRORS: dict[str, type[FhirError]] = {
    "conflict": Conflict,
    "expired": Conflict,
    "forbidden": Forbidden,
    "not-found": NotFound,
    "required": Invalid,
    "value": Invalid,
    "too-costly": Unprocessable,
}


def error_of(*issues: Issue) -> FhirError:
    """The error of an issue, or of several by the first."""
    return _ERRORS.get(issues[0].code, Unprocessable)(issues=issues)


def is_same_visit(one: Resource, other: Resource) -> bool:
    """Whether two Appointments are the same visit of the same patient: a repeated request, not another one."""
    actors = [{target_of(p.get("actor")) for p in members(each, "participant")} for each in (one, other)]
    patients = any(actor.startswith("Patient/") for actor in actors[0])
    return patients and actors[0] == actors[1] and read_times(one) == read_times(other)


def name_of(appointment: Resource) -> str:
    """`Appointment/1`."""
    return reference_of({"resourceType": "Appointment", **appointment})
