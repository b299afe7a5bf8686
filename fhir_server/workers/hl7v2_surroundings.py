"""What a message may speak of beside the resource that it is about: what that leads to, and what is its patient's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.references import BaseUrls, find_literal_references, find_local_target
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.query import Query, Scope

Resource = dict[str, Any]

DEPTH = 3
"""References that are followed one after the other."""

MOST = 300
"""Resources beside the one that a message is about."""

PEOPLE = frozenset({"Patient", "Practitioner", "PractitionerRole", "Organization", "Location"})
MONEY = frozenset({"Account", "Coverage", "RelatedPerson"})


class Surroundings(NamedTuple):
    """The types that are followed, and what is looked up by its patient: type → search parameter."""

    types: frozenset[str]
    of_patient: Mapping[str, str] = {}


OF_PATIENT = {"RelatedPerson": "patient", "Coverage": "beneficiary", "Account": "patient"}

SURROUNDINGS: Mapping[str, Surroundings] = {
    "ADT": Surroundings(PEOPLE | MONEY | {"Encounter", "Condition"}, OF_PATIENT),
    "SIU": Surroundings(PEOPLE | {"ServiceRequest", "Device"}),
    "ORU": Surroundings(PEOPLE | {"Observation", "Specimen", "ServiceRequest", "Encounter"}),
    "DFT": Surroundings(PEOPLE | MONEY | {"ChargeItem", "Encounter", "Condition"}, OF_PATIENT),
    "RDE": Surroundings(PEOPLE | {"Medication", "Encounter", "MedicationRequest"}),
    "OMP": Surroundings(PEOPLE | {"Medication", "Encounter", "MedicationRequest"}),
}
"""By family of messages."""

_PERSON_EVENTS = frozenset({"A28", "A31", "A40"})
"""Events about a person, whatever visits there are."""

_SUBJECTS = ("subject", "patient", "beneficiary", "for")


def find_patient(context: Context, caller: Caller, resource: Resource) -> str:
    """`Patient/id` of whom a resource is about, by whom its messages are put in order; "" for nobody."""
    if resource["resourceType"] == "Patient":
        return f"Patient/{resource['id']}"
    actors = [each.get("actor") for each in resource.get("participant", ()) if isinstance(each, dict)]
    for reference in (*(resource.get(name) for name in _SUBJECTS), *actors):
        text = reference.get("reference", "") if isinstance(reference, dict) else ""
        target = find_local_target(text, _list_bases(context, caller), context.types) or ""
        if target.startswith("Patient/"):
            return target
    return ""


def _list_bases(context: Context, caller: Caller) -> BaseUrls:
    return context.bases.include(caller.base)


async def read_surroundings(
    context: Context, caller: Caller, focus: Resource, event: tuple[str, str]
) -> list[Resource]:
    """The current resources around `focus`, nearest first, without it; absolute references of ours lead there too."""
    row = SURROUNDINGS.get(event[0], Surroundings(frozenset(context.types)))
    types = row.types - ({"Encounter", "Condition"} if event[1] in _PERSON_EVENTS else set())
    own = f"{focus['resourceType']}/{focus['id']}"
    found: dict[str, Resource] = {own: focus}
    level = [focus]
    if (patient := find_patient(context, caller, focus)) and row.of_patient:
        level += await _read_of_patient(context, caller, patient, row.of_patient, found)
    for _ in range(DEPTH):
        wanted = {
            name: None
            for each in level
            for name in find_literal_references(each, _list_bases(context, caller), types)
            if name not in found
        }
        names = list(wanted)[: MOST - len(found)]
        if not names:
            break
        stored = await context.unrestricted.read_many(names)
        level = [orjson.loads(each.raw) for name in names if (each := stored.get(name)) is not None and each.raw]
        found |= {f"{each['resourceType']}/{each['id']}": each for each in level}
    return [each for name, each in found.items() if name != own]


async def _read_of_patient(
    context: Context, caller: Caller, patient: str, parameters: Mapping[str, str], found: dict[str, Resource]
) -> list[Resource]:
    """What is kept of a patient and not yet found; it joins what was found."""
    scopes = [
        Scope(type, await parse_criteria(context, type, ((parameter, patient),), caller))
        for type, parameter in parameters.items()
        if type in context.types
    ]
    page = await context.unrestricted.search(Query(tuple(scopes), count=MOST))
    new = [orjson.loads(each.raw) for each in page.matches if each.raw and each.reference not in found]
    found |= {f"{each['resourceType']}/{each['id']}": each for each in new}
    return new
