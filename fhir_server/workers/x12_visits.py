"""The insurance of a day's visits is asked about: a CoverageEligibilityRequest for each patient and coverage, once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.scheduling.surroundings import read_all
from fhir_server.search.query import Equals
from fhir_server.workers.message_tasks import derive_id
from fhir_server.workers.posting.writes import find_zone, put, read_today
from fhir_server.workers.x12_inquiries import TYPE, send_inquiry
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference, make_reference
from mappers.scheduling.wall_clock import day_interval

_COMING = "booked,arrived,checked-in,pending"


class Asked(NamedTuple):
    """What came of one coverage of a patient who comes: the delivery `Task/id`, or a sentence why there is none."""

    start: str
    patient: str
    coverage: str
    task: str = ""
    made: bool = False
    reason: str = ""


async def ask_for_day(context: Context, caller: Caller, day: date) -> list[Asked]:
    """Ask about the coverages in force of all who come on a day of the practice's zone, in the order of the visits.

    Safe to repeat: the request of a patient, coverage and day exists once, and is sent once.
    """
    asked: list[Asked] = []
    seen: set[str] = set()
    for appointment in await list_visits(context, caller, day):
        patient = _find_actor(appointment, "Patient/")
        if not patient or patient in seen:
            continue
        seen.add(patient)
        coverages = await _read_coverages(context, caller, patient, day)
        start = str(appointment.get("start", ""))
        if not coverages:
            asked.append(Asked(start, patient, "", reason="The patient has no active coverage on this day."))
        asked += [await _ask(context, caller, (appointment, each), day) for each in coverages]
    return asked


async def list_visits(context: Context, caller: Caller, day: date) -> list[Resource]:
    """The Appointments of a day that somebody is expected for, by their start."""
    window = day_interval(day, find_zone(context))
    pairs = (
        ("date", f"ge{format_instant(window.start)}"),
        ("date", f"lt{format_instant(window.end)}"),
        ("status", _COMING),
    )
    where = await parse_criteria(context, "Appointment", pairs, caller)
    found = await read_all(context.reader(caller), {"Appointment": where})
    return sorted(found, key=lambda each: (str(each.get("start", "")), each["id"]))


async def _read_coverages(context: Context, caller: Caller, patient: str, day: date) -> list[Resource]:
    """The active coverages of a patient whose period has the day, by their order."""
    found = await read_all(context.reader(caller), {"Coverage": Equals("beneficiary", (patient,))})
    in_force = [each for each in found if each.get("status") == "active" and _covers(each.get("period", {}), day)]
    return sorted(in_force, key=lambda each: (each.get("order", 1), each["id"]))


def _covers(period: Mapping[str, Any], day: date) -> bool:
    start, end = str(period.get("start", ""))[:10], str(period.get("end", ""))[:10]
    return start <= str(day)[: len(start)] and (not end or str(day)[: len(end)] <= end)


def _find_actor(appointment: Resource, type: str) -> str:
    actors = (find_reference(each.get("actor")) for each in appointment.get("participant", ()))
    return next((each for each in actors if each.startswith(type)), "")


async def _ask(context: Context, caller: Caller, visit: tuple[Resource, Resource], day: date) -> Asked:
    appointment, coverage = visit
    request = make_request(appointment, coverage, day, read_today(context))
    row = Asked(str(appointment.get("start", "")), find_reference(request["patient"]), make_reference(coverage))

    async def decide(state: State) -> Decision[None]:
        known = await state.read(TYPE, request["id"])
        return Decision(None, () if known is not None else (put(request, decided=False),))

    try:
        await decide_and_commit(context, caller, decide)
        task, made = await send_inquiry(context, caller, request["id"])
    except FhirError as error:
        return row._replace(reason=" ".join(each.diagnostics for each in error.issues))
    return row._replace(task=task, made=made)


def make_request(appointment: Resource, coverage: Resource, day: date, today: date) -> Resource:
    """The question whether a coverage is in force on the day of a visit; who asks is the visit's practitioner."""
    patient = _find_actor(appointment, "Patient/")
    provider = _find_actor(appointment, "Practitioner")
    payors = coverage.get("payor", ())
    request: Resource = {
        "resourceType": TYPE,
        "id": derive_id(TYPE, patient, make_reference(coverage), str(day)),
        "status": "active",
        "purpose": ["benefits"],
        "patient": {"reference": patient},
        "servicedDate": str(day),
        "created": str(today),
        "insurer": {"reference": find_reference(payors[0]) if payors else ""},
        "insurance": [{"focal": True, "coverage": {"reference": make_reference(coverage)}}],
    }
    return {**request, "provider": {"reference": provider}} if provider else request
