"""`Claim/$assemble`: billable charges become draft claims, each charge once whatever is retried (docs/billing.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import orjson

from fhir_server.fhir.outcome import (
    FhirError,
    Invalid,
    Issue,
    NotFound,
    TooCostly,
    Unprocessable,
    build_operation_outcome,
)
from fhir_server.operations.charges.reading import Ground, Span, read_definitions, read_ground
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Bound, DateRange, Equals, StartsWith
from fhir_server.security.access import Reader
from fhir_server.store.operations import VersionIs
from fhir_server.workers.posting.reading import find_each, find_texts
from fhir_server.workers.posting.writes import find_zone, name, put, read_now, read_today
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.assembly import Assembly, AssemblySettings, assemble_claims, make_charges
from mappers.billing.fields import Resource, find_identifier, find_reference, make_reference

_NAMES = ("encounter", "patient", "start", "end")
_TOGETHER = 20
MOST_PATIENTS = 1000
"""Patients, and encounters by name, whose charges one request assembles."""


@dataclass(slots=True)
class _Found:
    """What the decisions of one request have made, and what they could not."""

    claims: list[bytes] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)


async def assemble(context: Context, request: Request) -> Response:
    """200 with Parameters: the draft Claims of these charges, and an OperationOutcome of what was not assembled."""
    asked = read_parameters(context, request, _NAMES)
    span, reader = _read_span(context, asked), context.reader(request.caller)
    patients = await _list_patients(reader, span)
    definitions = await read_definitions(reader)
    found = _Found()
    for part in _cut(patients):
        try:
            await _assemble(context, request.caller, span, part, definitions, found)
        except FhirError:
            if len(patients) == 1:
                raise
            await _assemble_singly(context, request.caller, span, part, definitions, found)
    found.claims += await _list_drafts(context, reader, span, patients, found.claims)
    return Response(200, _write_answer(found))


def _cut(patients: Sequence[str]) -> list[Sequence[str]]:
    return [patients[start : start + _TOGETHER] for start in range(0, len(patients), _TOGETHER)]


async def _assemble_singly(
    context: Context,
    caller: Caller,
    span: Span,
    patients: Sequence[str],
    definitions: Sequence[Resource],
    found: _Found,
) -> None:
    """One patient whose claims are refused keeps no other one's from being made."""
    for each in patients:
        try:
            await _assemble(context, caller, span, (each,), definitions, found)
        except FhirError as error:
            found.issues += error.issues


def _read_span(context: Context, asked: Parameters) -> Span:
    """Whose charges, and when. Raises Invalid where nothing narrows them."""
    zone = find_zone(context)
    start, end = asked.instant("start", zone), asked.instant("end", zone, end=True)
    encounters, patient = tuple(asked.references("encounter")), asked.reference("patient")
    for names, kind in ((encounters, "Encounter"), ((patient,) if patient else (), "Patient")):
        for each in names:
            if not each.startswith(f"{kind}/"):
                text = f"`{kind.lower()}` needs a reference such as `{kind}/1`, not `{each}`."
                raise Invalid(text, code="value", expression=(kind.lower(),))
    if len(encounters) > MOST_PATIENTS:
        raise TooCostly(f"`$assemble` takes at most {MOST_PATIENTS} encounters at a time; ask for a period instead.")
    if not encounters and not patient and (start is None or end is None):
        text = "`$assemble` needs `encounter`, `patient`, or `start` and `end` of a period."
        raise Invalid(text, code="required", expression=("encounter",))
    if start is not None and end is not None and end <= start:
        raise Invalid("`end` lies before `start`.", code="value", expression=("end",))
    return Span(encounters, patient, start, end)


async def _list_patients(reader: Reader, span: Span) -> list[str]:
    """The patients who have charges or visits in the span. Raises NotFound, Unprocessable, TooCostly."""
    if span.patient:
        await _need(reader, span.patient)
    subjects = [find_reference((await _need(reader, each)).get("subject")) for each in span.encounters]
    for encounter, subject in zip(span.encounters, subjects, strict=True):
        if not subject.startswith("Patient/"):
            text = f"`{encounter}` names no patient, so that nobody can be billed for it."
            raise Unprocessable(text, code="required", expression=("Encounter.subject",))
        if span.patient and subject != span.patient:
            raise Unprocessable(f"`{encounter}` is of `{subject}`, not of `{span.patient}`.", expression=("encounter",))
    if subjects or span.patient:
        return sorted({*subjects} or {span.patient})
    found: set[str] = set()
    # Those whose charges are billed already as well, so that a retry is answered like the first request.
    for type, parameter in (("ChargeItem", "occurrence"), ("Encounter", "date")):
        async for resource in find_each(reader, type, _within(parameter, span)):
            found.add(find_reference(resource.get("subject")))
            if len(found) > MOST_PATIENTS:
                text = f"More than {MOST_PATIENTS} patients have charges in this period; ask for a shorter one."
                raise TooCostly(text)
    return sorted(each for each in found if each.startswith("Patient/"))


async def _need(reader: Reader, reference: str) -> Resource:
    """A resource that has to be there. Raises NotFound."""
    type, _, id = reference.partition("/")
    stored = await reader.read(type, id)
    if stored is None or stored.raw is None:
        raise NotFound(f"There is no `{reference}` on this server.")
    return orjson.loads(stored.raw)  # type: ignore[no-any-return]


def _within(parameter: str, span: Span) -> DateRange:
    assert span.start is not None and span.end is not None
    return DateRange(parameter, (Bound("high", "ge", span.start), Bound("low", "lt", span.end)))


async def _assemble(
    context: Context,
    caller: Caller,
    span: Span,
    patients: Sequence[str],
    definitions: Sequence[Resource],
    found: _Found,
) -> None:
    """Assemble the charges of a few patients in one transaction."""

    async def decide(state: State) -> Decision[tuple[Issue, ...]]:
        state.lock(f"charges {each}" for each in patients)
        ground = await read_ground(state, span, patients, definitions)
        made, issues = await _make_charges(state, ground)
        entered = {make_reference(each): each for each in made}
        charges = [*ground.charges, *made]
        found, unused = await _number(state, charges, ground, _read_settings(context))
        billed = {make_reference(each) for each in found.charge_items}
        actions = [put(name(each), decided=False) for each in found.claims]
        actions += [
            put({**each, "status": "billed" if reference in billed else "billable"})
            for reference, each in entered.items()
        ]
        actions += [_mark_billed(each) for each in ground.charges if make_reference(each) in billed]
        return Decision((*ground.issues, *issues, *found.issues), actions, unused)

    outcome = await decide_and_commit(context, caller, decide)
    found.issues += outcome.answer
    found.claims += [each.text() for each in outcome.results if each.type == "Claim"]


def _read_settings(context: Context) -> AssemblySettings:
    settings = context.settings
    return AssemblySettings(settings.billing_provider, read_now(context), settings.place_of_service, find_zone(context))


async def _make_charges(state: State, ground: Ground) -> tuple[list[Resource], list[Issue]]:
    """Charges from the Procedures of encounters that have none; a Procedure that was charged before is told."""
    made, issues = make_charges(ground.resources, str(read_today(state.context)))
    new: list[Resource] = []
    for each in map(name, made):
        before = await state.read("ChargeItem", each["id"])
        if before is None:
            new.append(each)
            continue
        procedure, reference = find_identifier(each, codes.CHARGE_OF_PROCEDURE), make_reference(each)
        text = f"`{procedure}` was charged before as `{reference}`, which stands at another encounter. Mend that one."
        issues.append(Issue("warning", "duplicate", text, (procedure,)))
    return new, issues


async def _number(
    state: State, charges: Sequence[Resource], ground: Ground, settings: AssemblySettings
) -> tuple[Assembly, list[VersionIs]]:
    """The claims under control numbers that no claim has ever had, deleted ones included; and that none has them."""
    taken: frozenset[str] = frozenset()
    while True:
        found = assemble_claims(charges, ground.resources, replace(settings, taken=taken))
        numbers = {name(each)["id"]: find_identifier(each, codes.PATIENT_CONTROL_NUMBER) for each in found.claims}
        before = await state.context.unrestricted.read_many([f"Claim/{each}" for each in numbers], deletions=True)
        if not before:
            return found, [VersionIs("Claim", id, 0) for id in numbers]
        taken |= {numbers[each.partition("/")[2]] for each in before}


def _mark_billed(charge: Resource) -> Action:
    """The charge as `billed`, otherwise as it is written. That it is at the version it was read at is asserted."""

    def patch(tree: Resource) -> Resource:
        return {**tree, "status": "billed"}

    return Action("PATCH", "ChargeItem", "", id=charge["id"], patch=patch, decided=True)


async def _list_drafts(
    context: Context, reader: Reader, span: Span, patients: Sequence[str], made: Iterable[bytes]
) -> list[bytes]:
    """The drafts that earlier requests made of the same charges, so that a retry is answered like the first."""
    known = {orjson.loads(each)["id"] for each in made}
    zone = find_zone(context)
    drafts: list[bytes] = []
    for part in _cut(patients):
        where = And((Equals("patient", tuple(part)), StartsWith("status", f"draft{SEPARATOR}")))
        async for raw in find_texts(reader, "Claim", where):
            claim = orjson.loads(raw)
            if claim["id"] not in known and span.holds_claim(claim, zone):
                drafts.append(raw)
    return drafts


def _write_answer(found: _Found) -> bytes:
    parts = [b'{"name":"claim","resource":%b}' % each for each in found.claims]
    if found.issues:
        issues = tuple(dict.fromkeys(found.issues))
        parts.append(b'{"name":"outcome","resource":%b}' % orjson.dumps(build_operation_outcome(issues)))
    inside = b',"parameter":[%b]' % b",".join(parts) if parts else b""
    return b'{"resourceType":"Parameters"%b}' % inside
