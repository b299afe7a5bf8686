"""The series of `$book`: each occurrence is booked as one visit is, all or none unless `partial` is true."""

from __future__ import annotations

from datetime import date
from hashlib import sha256

import orjson

from fhir_server.fhir.outcome import Conflict, Invalid, Issue
from fhir_server.operations.scheduling.asked import SERIES, Ask, Candidate, error_of, list_candidates, name_of
from fhir_server.operations.scheduling.change import Results, find_zone, respond, set_times
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.operations.scheduling.patients import create_patient, read_patient
from fhir_server.operations.scheduling.take import Order, make_provenance, try_candidate, write_candidate
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.availability import list_alternatives
from fhir_server.scheduling.settle import Consequences
from fhir_server.scheduling.site import read_site
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.scheduling.elements import Resource, members, read_times
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.series import Occurrence, SeriesRule, explain_occurrence, list_occurrences, mark_occurrence
from mappers.scheduling.wall_clock import to_local

NAMES = ("series", "partial")
_PARTS = ("frequency", "interval", "weekday", "count", "until")


async def book_series(context: Context, request: Request, asked: Parameters) -> Response:
    """201 with a Bundle of the Appointments; 409 with an issue for each occurrence that something is in the way of."""
    kinds, reason = asked.override()
    order = Order("booked", None, kinds, reason, request.principal.name)
    if "practitioner" in asked.values or "appointment-reference" in asked.values:
        raise Invalid("A series needs `appointment-resource`, with all its actors.", expression=("series",))

    async def decide(state: State) -> Decision[Results]:
        patient = await read_patient(state, asked)
        ask = Ask(context, request, asked, await read_site(state), context.clock(), patient)
        (first,) = await list_candidates(state, ask)
        return await _decide(ask, order, _list_members(ask, first.new))

    return await respond(context, request, await decide_and_commit(context, request.caller, decide))


def _list_members(ask: Ask, first: Resource) -> list[tuple[Occurrence, Resource]]:
    """Each occurrence with its Appointment."""
    rule = _read_rule(ask, first)
    occurrences, issues = list_occurrences(rule)
    if issues:
        raise error_of(*issues)
    series = sha256(orjson.dumps({**first, "id": ask.request.id}, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    found = []
    for each in occurrences:
        identifier = {"system": SERIES, "value": series}
        new = {**first, "id": ask.context.new_id(), "identifier": [*members(first, "identifier"), identifier]}
        if each.start is not None and each.end is not None:
            new = set_times(new, each.start, each.end)
        found.append((each, mark_occurrence(new, series, each.number)))
    return found


def _read_rule(ask: Ask, first: Resource) -> SeriesRule:
    parts, times = ask.asked.parts("series"), read_times(first)
    assert parts is not None and not isinstance(times, Issue)
    unknown = sorted(parts.values.keys() - set(_PARTS))
    if unknown:
        raise Invalid(f"`series` has no part `{unknown[0]}`; it has {', '.join(_PARTS)}.", expression=("series",))
    zone = find_zone(ask, first)
    local, until = to_local(times.start, zone), parts.text("until")
    try:
        last = date.fromisoformat(until) if until else None
    except ValueError:
        raise Invalid(f"`{until}` is no day; write `2026-12-31`.", code="value", expression=("until",)) from None
    return SeriesRule(
        local.date(),
        local.time(),
        (times.end - times.start) // MINUTE,
        zone,
        parts.text("frequency") or "weekly",
        parts.number("interval") or 1,
        tuple(map(str, parts.values.get("weekday", []))),
        parts.number("count"),
        last,
    )


async def _decide(ask: Ask, order: Order, occurrences: list[tuple[Occurrence, Resource]]) -> Decision[Results]:
    blind = State(ask.context, ask.request.caller)
    actions: list[Action] = []
    names: list[str] = []
    issues: list[Issue] = []
    written: list[Resource] = []
    for occurrence, new in occurrences:
        if occurrence.start is None:
            issues += [issue for issue in (explain_occurrence(occurrence, ()),) if issue]
            continue
        result = await try_candidate(blind, ask, order, Candidate(new))
        if isinstance(result, str):
            names.append(result)
        elif isinstance(result, Consequences):
            actions += write_candidate(Candidate(new), result)
            written.append(result.appointment)
            names.append(name_of(result.appointment))
        else:
            times = await list_alternatives(ask.context, new, ask.practice)
            issues += [issue for issue in (explain_occurrence(occurrence, result, times),) if issue]
    if issues and (not ask.asked.flag("partial") or not names):
        raise Conflict(issues=issues)
    provenance = (make_provenance(ask, written, order.reason),) if written else ()
    answer = Results(tuple(names), tuple(issues), several=True)
    newcomer = create_patient(ask.patient) if actions else ()
    return Decision(answer, (*newcomer, *actions, *provenance), tuple(blind.assertions), tuple(blind.locks))
