"""What `$reschedule`, `$cancel`, `$check-in` and `$no-show` share: a stored Appointment, or its series, is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

import orjson

from fhir_server.fhir.bundle import write_bundle
from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Conflict, FhirError, Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.scheduling.asked import SERIES, Ask, Candidate, error_of, name_of
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.operations.scheduling.take import build_refusal, make_provenance, write_candidate
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.settle import Consequences, Visit, plan_slots, settle
from fhir_server.scheduling.site import read_site
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, Outcome, decide_and_commit
from fhir_server.writes.pending_writes import PendingWrites
from fhir_server.writes.state import State
from mappers.scheduling.clashes import Refusal, apply_override, note_override
from mappers.scheduling.elements import Resource, code_of, read_times, target_of
from mappers.scheduling.life_cycle import TRANSITIONS, check_transition
from mappers.scheduling.occupied import list_takings
from mappers.scheduling.series import Occurrence, explain_occurrence, read_occurrence, select_occurrences
from mappers.scheduling.wall_clock import read_zone, to_local

NAMES = ("appointment-reference", "comment", "reason", "scope", "override")
_TAKEN = frozenset(("clash", "buffer", "capacity"))

Edit = Callable[[Ask, Resource, Resource], Resource]
"""(request, one member, the member that was named) → the member as it will be. Raises what is wrong."""


@dataclass(frozen=True, slots=True)
class Results:
    """The Appointments that answer, and what is said beside them; `several`: they answer as a Bundle."""

    references: tuple[str, ...]
    issues: tuple[Issue, ...] = ()
    several: bool = False


async def change(context: Context, request: Request, asked: Parameters, edit: Edit) -> Response:
    """200 with the Appointment as it is after the change; unchanged where it was so before."""

    async def decide(state: State) -> Decision[Results]:
        ask = Ask(context, request, asked, await read_site(state), context.clock())
        chosen = await _read_chosen(state, ask)
        return await _decide(ask, chosen, await _read_members(state, ask, chosen), edit)

    return await respond(context, request, await decide_and_commit(context, request.caller, decide))


async def _read_chosen(state: State, ask: Ask) -> Resource:
    """The Appointment of the URL or of `appointment-reference`."""
    path, named = ask.request.path, ask.asked.text("appointment-reference")
    if (len(path) == 3) == bool(named):
        text = "Name the Appointment once: in the URL, or in `appointment-reference`."
        raise Invalid(text, code="required", expression=("appointment-reference",))
    id = path[1] if len(path) == 3 else target_of({"reference": named}).removeprefix("Appointment/")
    stored = await state.read("Appointment", id)
    if stored is None:
        raise NotFound(f"`Appointment/{id}` does not exist on this server.", expression=("appointment-reference",))
    return dict(stored.tree)


async def _read_members(state: State, ask: Ask, chosen: Resource) -> list[Resource]:
    """The members of the series that the change is about; the Appointment alone without a scope."""
    scope, own = ask.asked.text("scope") or "one", read_occurrence(chosen)
    others: list[Resource] = [chosen]
    if scope in ("following", "all") and own is not None:
        where = Equals("identifier", (f"{own[0]}{SEPARATOR}{SERIES}",))
        others = [dict(each.tree) for each in await state.search("Appointment", where)]
    found = select_occurrences(others, chosen, scope)
    if isinstance(found, Issue):
        raise error_of(found)
    return found


async def _decide(ask: Ask, chosen: Resource, olds: Sequence[Resource], edit: Edit) -> Decision[Results]:
    # past and cancelled members of a series stay as they are; where none is left, the one that was named says why
    open_ones = [old for old in olds if len(olds) == 1 or _can_change(old, ask.now)] or [chosen]
    pairs = [(old, edit(ask, old, chosen)) for old in open_ones]
    results = Results(tuple(name_of(old) for old, _ in pairs), several=len(olds) > 1)
    changed = [(old, new) for old, new in pairs if new != old]
    if not changed:
        return Decision(Results(tuple(map(name_of, olds)), several=results.several))
    # a moved series passes through times that other members still have in the store
    blind = State(ask.context, ask.request.caller, pending=PendingWrites({name_of(new): new for _, new in changed}))
    actions, refused, written = await _try_all(blind, ask, changed)
    if refused:
        raise await _refuse(ask, refused, results.several)
    return Decision(
        results,
        (*actions, make_provenance(ask, written, ask.asked.text("reason"))),
        tuple(blind.assertions),
        tuple(blind.locks),
    )


def _can_change(appointment: Resource, now: int) -> bool:
    times = read_times(appointment)
    return bool(set(TRANSITIONS[code_of(appointment)]) - {"entered-in-error"}) and (
        isinstance(times, Issue) or times.end > now
    )


async def _try_all(
    state: State, ask: Ask, changed: Sequence[tuple[Resource, Resource]]
) -> tuple[list[Action], list[tuple[Resource, Sequence[Refusal]]], list[Resource]]:
    """(writes, what is in the way of which Appointment, the Appointments as written)."""
    actions: list[Action] = []
    refused: list[tuple[Resource, Sequence[Refusal]]] = []
    written: list[Resource] = []
    for old, new in changed:
        result = await _try(state, ask, old, new)
        if isinstance(result, Consequences):
            actions += write_candidate(Candidate(new, old), result)
            written.append(result.appointment)
        else:
            refused.append((new, result))
    return actions, refused, written


async def _try(state: State, ask: Ask, old: Resource, new: Resource) -> Consequences | Sequence[Refusal]:
    kinds, reason = ask.asked.override()
    issue = check_transition(code_of(old), code_of(new), bool(kinds))
    if issue:
        raise error_of(issue)
    settled = await settle(state, Visit(new, old, ask.practice, ask.now, operation=_times(old) != _times(new)))
    remaining, aside, _ = apply_override(settled.refusals, kinds, reason)
    if remaining:
        return remaining
    if aside:
        new = note_override(new, sorted(kinds), reason, ask.request.principal.name)
        settled = await settle(state, Visit(new, old, ask.practice, ask.now, operation=True))
    return await plan_slots(state, settled, overbooked=any(each.kind in _TAKEN for each in aside))


def _times(appointment: Resource) -> tuple[object, object]:
    return appointment.get("start"), appointment.get("participant")


async def _refuse(ask: Ask, refused: Sequence[tuple[Resource, Sequence[Refusal]]], several: bool) -> FhirError:
    if not several:
        return await build_refusal(ask, *refused[0])
    issues = []
    for appointment, refusals in refused:
        times, place = read_times(appointment), read_occurrence(appointment)
        if isinstance(times, Issue) or place is None:
            continue
        day = to_local(times.start, find_zone(ask, appointment)).date()
        issue = explain_occurrence(Occurrence(place[1], day, *times), refusals)
        issues += [issue] if issue else []
    return Conflict(issues=issues)


def find_zone(ask: Ask, appointment: Resource) -> tzinfo:
    """The zone of the first of its Schedules that knows one, else the practice's, else UTC."""
    names = [each.parameters.zone for each in list_takings(appointment, ask.practice)]
    name = next((each for each in names if each), ask.practice.default.zone)
    zone = read_zone(name, "Schedule.extension") if name else UTC
    return UTC if isinstance(zone, Issue) else zone


async def respond(context: Context, request: Request, outcome: Outcome[Results]) -> Response:
    """The Appointment, or a Bundle of all with what is said beside them."""
    results = {f"{each.type}/{each.id}": each for each in outcome.results}
    stored = await context.reader(request.caller).read_many(outcome.answer.references)
    created = any(each.type == "Appointment" and each.status == 201 for each in results.values())
    if not outcome.answer.several and not outcome.answer.issues:
        (found,) = stored.values()
        location = f"{request.base}/{found.reference}/_history/{found.version}"
        return Response(201 if created else 200, found.raw or b"", found.version, found.last_updated, location)
    entries = [
        orjson.dumps({"fullUrl": f"{request.base}/{name}", "resource": orjson.Fragment(stored[name].raw or b"{}")})
        for name in outcome.answer.references
        if name in stored
    ]
    if outcome.answer.issues:
        outcome_resource = build_operation_outcome(outcome.answer.issues)
        entries.append(orjson.dumps({"resource": outcome_resource}))
    return Response(201 if created else 200, write_bundle({"type": "collection"}, (), entries))


def set_times(appointment: Resource, start: int, end: int) -> Resource:
    """The Appointment at other times."""
    rest = {name: value for name, value in appointment.items() if name != "minutesDuration"}
    changed = {**rest, "start": format_instant(start), "end": format_instant(end)}
    return appointment if read_times(changed) == read_times(appointment) else changed
