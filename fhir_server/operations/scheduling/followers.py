"""What moves an Appointment from outside: answers of its participants, and the Encounter that it led to.

https://hl7.org/fhir/R4/appointmentresponse.html and https://hl7.org/fhir/R4/encounter.html
"""

from __future__ import annotations

from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Issue
from fhir_server.scheduling.site import read_site
from fhir_server.writes.action import Action, Patch
from fhir_server.writes.rules import ALLOWED, Change, Ruling
from fhir_server.writes.state import State
from mappers.scheduling.elements import (
    Resource,
    code_of,
    extension_value,
    hold_expired,
    members,
    person_of,
    reference_of,
    target_of,
)
from mappers.scheduling.extensions import HOLD_EXPIRES
from mappers.scheduling.life_cycle import TRANSITIONS

# Status of an Encounter → the status that its Appointment moves to, and those from which it does.
_MOVES = {
    "arrived": ("arrived", ("booked",)),
    "triaged": ("arrived", ("booked",)),
    "in-progress": ("arrived", ("booked",)),
    "finished": ("fulfilled", ("booked", "arrived", "checked-in")),
}


async def response_rule(state: State, change: Change) -> Ruling:
    """An AppointmentResponse sets the status of its participant; with the last acceptance a request is booked."""
    if change.new is None:
        return ALLOWED
    answer = dict(change.new)
    id = _local_id(answer.get("appointment"))
    found = await state.read("Appointment", id) if id else None
    if found is None:
        return ALLOWED
    appointment = dict(found.tree)
    practice = await read_site(state)
    actor = person_of(target_of(answer.get("actor")), practice.directory)
    positions = [
        position
        for position, person in enumerate(members(appointment, "participant"))
        if actor and person_of(target_of(person.get("actor")), practice.directory) == actor
    ]
    if not positions and "actor" in answer:
        text = f"`{actor}` does not take part in `Appointment/{id}`, so its answer changes nothing there."
        return Ruling((Issue("warning", "business-rule", text, ("AppointmentResponse.actor",)),))
    status = code_of(answer, "participantStatus")
    if found.version == 0 or not positions or status not in ("accepted", "declined", "tentative", "needs-action"):
        return ALLOWED
    if status == "accepted" and (text := _find_over(appointment, state.context.clock())):
        return Ruling((Issue("error", "conflict", text, ("AppointmentResponse.appointment",)),))
    return Ruling(actions=_change(appointment, _answer(positions, status)))


def _find_over(appointment: Resource, now: int) -> str:
    """Why nothing is left to be accepted: the time was given on to somebody else, or is about to be."""
    name = f"`{reference_of(appointment)}`"
    if code_of(appointment) == "waitlist":
        return f"{name} is on the waitlist and no time is offered now; it may be offered another one."
    if code_of(appointment) == "pending" and hold_expired(appointment, now):
        return f"The time of {name} was kept until {extension_value(appointment, HOLD_EXPIRES)} and is given on."
    return ""


def _answer(positions: list[int], status: str) -> Patch:
    """Sets the participants' status; a request whose participants have all accepted becomes booked."""

    def patch(tree: Resource) -> Resource:
        people = [
            {**person, "status": status} if position in positions else person
            for position, person in enumerate(tree["participant"])
        ]
        needed = [person for person in people if person.get("required", "required") == "required"]
        agreed = status == "accepted" and all(person.get("status") == "accepted" for person in needed)
        if not agreed or tree["status"] != "pending":
            return {**tree, "participant": people}
        others = [each for each in tree.get("extension", ()) if each.get("url") != HOLD_EXPIRES]
        rest = {name: value for name, value in tree.items() if name != "extension"}
        return {**rest, "status": "booked", "participant": people, **({"extension": others} if others else {})}

    return patch


async def encounter_rule(state: State, change: Change) -> Ruling:
    """An Encounter that starts or finishes moves its Appointments, where the life cycle lets it."""
    move = _MOVES.get(code_of(dict(change.new or {})))
    moved = change.current is not None and code_of(dict(change.current)) == code_of(dict(change.new or {}))
    if not state.context.settings.encounter_moves_appointment or move is None or moved or change.new is None:
        return ALLOWED
    to, sources = move
    actions: tuple[Action, ...] = ()
    issues: list[Issue] = []
    for position, reference in enumerate(members(dict(change.new), "appointment")):
        id = _local_id(reference)
        found = await state.read("Appointment", id) if id else None
        if found is None or found.version == 0:  # what the same transaction writes says its status itself
            continue
        status = code_of(dict(found.tree))
        if status in sources and to in TRANSITIONS[status]:
            actions += _change(dict(found.tree), lambda tree: {**tree, "status": to})
        elif status not in (to, "fulfilled"):
            text = f"`Appointment/{id}` is `{status}` and was not moved to `{to}`."
            issues.append(Issue("warning", "business-rule", text, (f"Encounter.appointment[{position}]",)))
    return Ruling(tuple(issues), actions)


def _change(appointment: Resource, patch: Patch) -> tuple[Action, ...]:
    """The change of an Appointment, under its own rule; none where nothing changes."""
    if patch(decode(encode(appointment))) == appointment:
        return ()
    return (Action("PATCH", "Appointment", "", id=appointment["id"], patch=patch),)


def _local_id(reference: object) -> str:
    """The id of a reference to an Appointment of this server; empty for any other."""
    type, _, id = target_of(reference).partition("/")
    return id if type == "Appointment" else ""
