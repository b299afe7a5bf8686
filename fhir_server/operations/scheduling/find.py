"""`Appointment/$find`: proposed Appointments at free times, earliest first (IHE Scheduling, ITI-115).

https://profiles.ihe.net/ITI/Scheduling/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fhir_server.fhir.bundle import write_bundle, write_outcome_entry
from fhir_server.fhir.outcome import Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters, zone_of
from fhir_server.operations.scheduling.patients import PATIENT_NAMES, read_patient
from fhir_server.operations.scheduling.pools import select_others, select_providers
from fhir_server.requests.context import Context
from fhir_server.requests.page_links import PAGE, Place, build_next_link, open_page_link
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.availability import (
    add_rooms,
    find_free_times,
    list_calendars,
    list_known_types,
    proposal_key,
)
from fhir_server.scheduling.site import site_of
from fhir_server.writes.state import State
from mappers.scheduling.calendars import Calendar, Practice, patient_calendar, takes_time
from mappers.scheduling.elements import Resource
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest, Position, explain_nothing
from mappers.scheduling.intervals import MINUTE, Interval
from mappers.scheduling.proposals import Proposal, proposal_to_appointment, write_proposal_id

APPLIED = ("start", "end", "specialty", "visit-type", "practitioner", "organization", "location-reference")
TAKEN = ("location-string", "reason", "referral-identifier", "timing", "insurance-reference")
_NAMING = ("practitioner", "organization", "location-reference")
_CHOOSING = ("practitioner", "specialty", "organization", "location-reference", "visit-type")
_PROVIDERS = {"practitioner", "specialty"}
_NAMES = (*APPLIED, *TAKEN, *PATIENT_NAMES, "_count", PAGE)


@dataclass(frozen=True, slots=True)
class Search:
    """A request for free times as `$find` reads it."""

    practice: Practice
    times: FreeTimesRequest
    types: frozenset[str]
    patient: str
    issues: tuple[Issue, ...]


async def find(context: Context, request: Request) -> Response:
    """200 with a searchset of proposed Appointments, or with the reasons why there are none."""
    asked = read_parameters(context, request, _NAMES)
    position, count = None, asked.number("_count") or context.settings.default_count
    token = asked.text(PAGE)
    if token:
        state = open_page_link(context, Place(request.path, request.principal), token)
        asked, position, count = Parameters("$find", state["values"]), Position(*state["after"]), state["count"]
    search = await _read_search(context, request, asked)
    count = min(count, context.settings.max_count)
    found: list[FreeTime] = []
    reasons: set[str] = set()
    async for time in find_free_times(context, search.times, search.practice, position, reasons):
        found.append(time)
        if len(found) > count:
            break
    issues = list(search.issues)
    if not found and all(search.times.pools):
        issues += explain_nothing(reasons or {"closed"})
    entries = [propose(context, request, search, time) for time in found[:count]]
    if issues:
        entries.append(write_outcome_entry(context.new_id(), build_operation_outcome(issues)))
    links = [("self", "/".join((request.base, *request.path)))]
    if len(found) > count:
        last = found[count - 1]
        after = [last.start, last.calendars[0].schedule]
        state = {"values": dict(asked.values), "after": after, "count": count}
        links.append(build_next_link(context, links[0][1], Place(request.path, request.principal), state))
    return Response(200, write_bundle({"type": "searchset"}, links, entries))


def propose(context: Context, request: Request, search: Search, time: FreeTime) -> bytes:
    """The entry of one free time; one that needs more Schedules than an id holds has none."""
    schedules = tuple(each.schedule for each in time.calendars if not each.actor.startswith("Patient/"))
    minutes = (time.end - time.start) // MINUTE
    proposal = Proposal(time.start, minutes, schedules, search.types, search.patient)
    id = write_proposal_id(proposal, proposal_key(context), search.times.now)
    appointment = proposal_to_appointment(proposal, search.practice, describe_types(search.types))
    entry: dict[str, Any] = {"resource": appointment, "search": {"mode": "match"}}
    if isinstance(id, str):
        appointment = {"resourceType": "Appointment", "id": id, **appointment}
        entry = {"fullUrl": f"{request.base}/Appointment/{id}", **entry, "resource": appointment}
    return orjson.dumps(entry)


def describe_types(types: frozenset[str]) -> Resource:
    """The service type of a proposed Appointment."""
    codings = [
        {name: part for name, part in zip(("system", "code"), each.rsplit("|", 1), strict=True) if part}
        for each in sorted(types)
    ]
    return {"serviceType": [{"coding": codings}]} if codings else {}


async def _read_search(context: Context, request: Request, asked: Parameters) -> Search:
    now, practice = context.clock(), await site_of(context).read(context.unrestricted)
    window = _read_window(context, asked, now)
    issues = [
        Issue("warning", "not-supported", f"`{name}` was taken but not applied: it does not narrow the times.", (name,))
        for name in TAKEN
        if name in asked.values
    ]
    types = _read_types(asked, practice, issues)
    patient = await _read_patient(context, request, asked, issues)
    named = {each: name for name in _NAMING for each in asked.references(name)}
    await check_known(context, request, {**named, patient: "patient-reference"} if patient else named, practice)
    rooms = [each for each in asked.references("location-reference") if takes_time(each, practice)]
    practice = add_rooms(context, rooms, practice)
    pools: list[tuple[Calendar, ...]] = []
    providers = select_providers(asked, practice, types)
    if not providers and (not rooms or _PROVIDERS & asked.values.keys()):
        issues.append(_explain_no_provider(asked))
    for schedules in (providers, *select_others(rooms, types, practice)):
        calendars, wrong = list_calendars(context, schedules, types, practice)
        issues += [replace(each, severity="warning") for each in wrong]
        pools.append(tuple(calendars))
    if rooms and not pools[0] and not _PROVIDERS & asked.values.keys():
        pools = pools[1:]  # a room alone
    if patient:
        pools.append((patient_calendar(patient),))
    times = FreeTimesRequest(window, now, tuple(pools))
    return Search(practice, times, types, patient, tuple(dict.fromkeys(issues)))


def _read_window(context: Context, asked: Parameters, now: int) -> Interval:
    zone = zone_of(context)
    start, end = asked.instant("start", zone), asked.instant("end", zone, end=True)
    for name, value in (("start", start), ("end", end)):
        if value is None:
            raise Invalid(f"`$find` needs `{name}`, a dateTime.", code="required", expression=(name,))
    assert start is not None and end is not None
    if end <= start:
        raise Invalid("The end of the window is not after its start.", code="value", expression=("end",))
    if end <= now:
        raise Invalid("The window is past; ask for times to come.", code="value", expression=("end",))
    return Interval(start, end)


def _read_types(asked: Parameters, practice: Practice, issues: list[Issue]) -> frozenset[str]:
    """The type of the visit, as Schedules and services of the site write it."""
    known, found = list_known_types(practice), []
    for codes in asked.codes("visit-type"):
        same = [each for each in sorted(known) for code in codes if each == code or each.endswith(code)]
        found += same[:1]
        if not same:
            text = "No Schedule or service of this site speaks of this visit type; it was not applied."
            issues.append(Issue("warning", "not-found", text, ("visit-type",)))
    if len(found) > 1:
        issues.append(Issue("warning", "not-supported", f"Only the type `{found[0]}` was applied.", ("visit-type",)))
    return frozenset(found[:1])


async def _read_patient(context: Context, request: Request, asked: Parameters, issues: list[Issue]) -> str:
    """The patient who has to be free; one who is not stored here has nothing booked."""
    patient = await read_patient(State(context, request.caller, context.reader(request.caller)), asked)
    if patient.newcomer is None:
        return patient.reference
    text = "The Patient of `patient-resource` is not stored here: the times are for anybody."
    issues.append(Issue("information", "informational", text, ("patient-resource",)))
    return ""


def _explain_no_provider(asked: Parameters) -> Issue:
    """Why there is no calendar to look at."""
    given = tuple(name for name in _CHOOSING if name in asked.values)
    listed = " and ".join(f"`{name}`" for name in given)
    which = f"fits {listed}" if given else "of a practitioner is active"
    text = f"No Schedule {which}, so that there is no calendar to look at; `Schedule?active=true` lists what there is."
    return Issue("information", "not-found", text, given)


async def check_known(context: Context, request: Request, references: Mapping[str, str], practice: Practice) -> None:
    """Refuse references (each with its parameter) to what is not here. Raises NotFound that names each."""
    others = [each for each in references if each not in practice.directory]
    stored = await context.reader(request.caller).read_many(others) if others else {}
    issues = [
        Issue(
            "error",
            "not-found",
            f"`{each}` is not known here; create it first, or name one that is.",
            (references[each],),
        )
        for each in others
        if each not in stored
    ]
    if issues:
        raise NotFound(issues=issues)
