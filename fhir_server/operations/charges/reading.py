"""What an assembly is decided on: the charges, visits and Procedures of some patients, and what these lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Issue
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Clause, Equals, Ids, StartsWith
from fhir_server.security.access import Reader
from fhir_server.workers.posting.reading import MOST, find_all
from fhir_server.workers.posting.writes import find_zone
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference, make_reference

_NAMED = ("Condition", "Encounter", "Location", "Procedure", "ServiceRequest")
_TERMS = 200


@dataclass(frozen=True, slots=True)
class Span:
    """Whose charges are assembled: of these encounters, else of a patient (or all), within [start, end) in µs."""

    encounters: tuple[str, ...]
    patient: str
    start: int | None
    end: int | None

    def holds(self, encounter: str, moment: str, zone: tzinfo) -> bool:
        """Whether a charge or Procedure of this encounter and this dateTime belongs to it."""
        if self.encounters and encounter not in self.encounters:
            return False
        if self.start is None and self.end is None:
            return True
        try:
            low, high = parse_interval(moment, zone)
        except ValueError:
            return False
        return (self.start is None or high >= self.start) and (self.end is None or low < self.end)

    def holds_claim(self, claim: Resource, zone: tzinfo) -> bool:
        """Whether some line of a claim belongs to it."""
        return any(
            self.holds(encounter, moment, zone)
            for item in claim.get("item", ())
            for encounter in ([find_reference(each) for each in item.get("encounter", ())] or [""])
            for moment in [str(item.get("servicedDate") or (item.get("servicedPeriod") or {}).get("start", ""))]
        )


@dataclass(frozen=True, slots=True)
class Ground:
    """Billable charges of the span, by reference all that they lead to, and what is remarked on the way."""

    charges: Sequence[Resource]
    resources: dict[str, Resource]
    issues: tuple[Issue, ...]


async def read_definitions(reader: Reader) -> list[Resource]:
    """The price list. A charge priced just before a change of it is priced rightly, so that nothing is asserted."""
    return await find_all(reader, "ChargeItemDefinition", StartsWith("status", f"active{SEPARATOR}"))


async def read_ground(state: State, span: Span, patients: Sequence[str], definitions: Iterable[Resource]) -> Ground:
    """Read it so that the decision is made again when any of it has changed."""
    zone, of_patients = find_zone(state.context), Equals("patient", tuple(patients))
    billable = And((of_patients, StartsWith("status", f"billable{SEPARATOR}")))
    charges = await _find(state, "ChargeItem", billable)
    done = And((of_patients, StartsWith("status", f"completed{SEPARATOR}")))
    procedures = [each for each in await _find(state, "Procedure", done) if find_reference(each.get("encounter"))]
    visits = await _find_named(state, [*charges, *procedures], ("Encounter",))
    charges = [each for each in charges if _is_in(each, "context", span, visits, zone)]
    procedures = [each for each in procedures if _is_in(each, "encounter", span, visits, zone)]
    procedures, issues = _leave_open_visits(procedures, visits)
    siblings = await _find_charges(state, {find_reference(each.get("encounter")) for each in procedures})
    own = {find_reference(each.get("context")) for each in siblings}
    procedures = [each for each in procedures if find_reference(each.get("encounter")) not in own]
    encounters = [each for each in visits.values() if _is_used(each, charges, procedures)]
    resources = {make_reference(each): each for each in (*definitions, *siblings, *encounters, *procedures)}
    named = await _find_named(state, [*charges, *procedures, *encounters], _NAMED)
    coverages = await _find(state, "Coverage", Equals("beneficiary", tuple(patients)))
    # Procedures that charges merely name are not to be charged again.
    others = {name: each for name, each in named.items() if not name.startswith("Procedure/")}
    return Ground(charges, {**others, **resources, **{make_reference(each): each for each in coverages}}, issues)


def _is_in(resource: Resource, member: str, span: Span, visits: dict[str, Resource], zone: tzinfo) -> bool:
    """Whether it belongs to the span by its own time, else by that of its encounter."""
    encounter = find_reference(resource.get(member))
    times = [resource.get(name) for name in ("occurrenceDateTime", "performedDateTime")]
    periods = [resource.get(name) or {} for name in ("occurrencePeriod", "performedPeriod")]
    periods.append(visits.get(encounter, {}).get("period") or {})
    moments = [*times, *(each.get("start") for each in periods)]
    return span.holds(encounter, str(next((each for each in moments if each), "")), zone)


def _leave_open_visits(
    procedures: Sequence[Resource], visits: dict[str, Resource]
) -> tuple[list[Resource], tuple[Issue, ...]]:
    """The Procedures of finished encounters; charged before, a later Procedure of the visit would be forgotten."""
    done, still_open = [], {}
    for each in procedures:
        encounter = find_reference(each.get("encounter"))
        status = visits.get(encounter, {}).get("status")
        if status == "finished":
            done.append(each)
        elif encounter in visits:
            text = f"`{encounter}` is `{status}`: its Procedures are charged when it is `finished`."
            still_open[encounter] = Issue("information", "informational", text, (f"{encounter}.status",))
    return done, tuple(still_open.values())


def _is_used(encounter: Resource, charges: Sequence[Resource], procedures: Sequence[Resource]) -> bool:
    reference = make_reference(encounter)
    named = [find_reference(each.get("context")) for each in charges]
    return reference in named or reference in [find_reference(each.get("encounter")) for each in procedures]


async def _find(state: State, type: str, where: Clause) -> list[Resource]:
    return [dict(each.tree) for each in await state.search(type, where, most=MOST)]


async def _find_charges(state: State, encounters: set[str]) -> list[Resource]:
    """All ChargeItems of the encounters, whatever their status."""
    return [
        each for part in _cut(sorted(encounters)) for each in await _find(state, "ChargeItem", Equals("context", part))
    ]


async def _find_named(state: State, resources: Iterable[Resource], types: Sequence[str]) -> dict[str, Resource]:
    """By reference, the resources of these types that are named anywhere inside."""
    names = sorted({each for resource in resources for each in _iterate_references(resource)})
    found: dict[str, Resource] = {}
    for type in types:
        ids = [each.partition("/")[2] for each in names if each.startswith(f"{type}/")]
        for part in _cut(ids):
            found |= {make_reference(each): each for each in await _find(state, type, Ids(part))}
    return found


def _iterate_references(element: object) -> Iterator[str]:
    if isinstance(element, dict):
        if isinstance(element.get("reference"), str):
            yield element["reference"]
        for each in element.values():
            yield from _iterate_references(each)
    elif isinstance(element, list):
        for each in element:
            yield from _iterate_references(each)


def _cut(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(names[start : start + _TERMS]) for start in range(0, len(names), _TERMS))
