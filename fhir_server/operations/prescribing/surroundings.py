"""A prescription with all that it is checked against, read for one decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fhir_server.fhir.outcome import TooCostly, Unprocessable
from fhir_server.fhir.references import parse
from fhir_server.requests.merges import find_merged, read_priors
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Clause, Equals, Or, StartsWith
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference, make_reference
from mappers.prescribing.checks import Other, Prescription
from mappers.prescribing.medicines import list_references, read_medicine

MOST_OTHERS = 500
"""Prescriptions that are active or on hold, and allergies, that one patient may have to be compared."""

MOST_REFERENCES = 1000
"""Medications and Substances that these may lead to."""

MOST_CODES = 100
"""Codes that one drug may have."""

_CURRENT = Or(tuple(StartsWith("status", f"{status}{SEPARATOR}") for status in ("active", "on-hold")))


async def read_prescription(state: State, request: Mapping[str, object]) -> Prescription:
    """The MedicationRequest with its prescriber, and with the patient's allergies and other prescriptions.

    `state` is one that sees everything: what the caller may not see counts as well, and is not named. Two decisions
    about one patient follow each other. Raises TooCostly or Unprocessable where there is too much to compare.
    """
    tree = dict(request)
    patient = find_local(state, tree.get("subject"))
    patient = patient if patient.startswith("Patient/") else ""
    others, allergies = await _read_of_patient(state, patient, make_reference(tree)) if patient else ([], [])
    drugs = await read_drugs(state, [tree, *others])
    return Prescription(
        tree,
        read_medicine(tree, drugs, await _read_knowledge(state, read_medicine(tree, drugs).codes)),
        patient=patient,
        prior=find_local(state, tree.get("priorPrescription")),
        prescriber=await read_people(state, tree),
        allergies=allergies,
        others=[Other(each, read_medicine(each, drugs)) for each in others],
        hidden=await _find_hidden(state, [*others, *allergies]),
    )


async def _read_of_patient(state: State, patient: str, own: str) -> tuple[list[Resource], list[Resource]]:
    """The patient's prescriptions that are active or on hold but for its own, and the allergies.

    While a merge is under way, those of whom the patient was merged with count too. The version of the Patient is
    asserted before it is asked for merges: one that begins meanwhile changes it.
    """
    await read(state, patient)
    merged = find_merged(patient, await read_priors(state.context))
    state.lock(f"prescriptions of {each}" for each in merged)
    of_patient = Equals("patient", merged)
    others = await _search(state, "MedicationRequest", And((of_patient, _CURRENT)))
    allergies = await _search(state, "AllergyIntolerance", of_patient)
    return [each for each in others if make_reference(each) != own], allergies


def find_local(state: State, element: object) -> str:
    """`Type/id` of a Reference to a resource of this server; "" for any other."""
    found = parse(find_reference(element), state.context.bases.include(state.caller.base), state.context.types)
    return f"{found.type}/{found.id}" if found.kind == "local" else ""


async def _search(state: State, type: str, where: Clause) -> list[Resource]:
    if type not in state.context.types:
        return []
    try:
        return [dict(each.tree) for each in await state.search(type, where, most=MOST_OTHERS)]
    except TooCostly:
        text = f"More than {MOST_OTHERS} resources of type `{type}` would have to be compared with the prescription."
        raise TooCostly(f"{text} End or delete those that do not count any more.") from None


async def _read_knowledge(state: State, codes: Iterable[str]) -> list[Resource]:
    """What is known of the drugs of these codes, where the site keeps MedicationKnowledge."""
    pairs = [code.rsplit("|", 1) for code in sorted(codes)]
    if len(pairs) > MOST_CODES:
        text = f"The drug has {len(pairs):,} codes; at most {MOST_CODES} are compared."
        raise Unprocessable(text, code="too-costly", expression=("MedicationRequest.medication",))
    terms = tuple(f"{code}{SEPARATOR}{system}" for system, code in pairs if system)
    return await _search(state, "MedicationKnowledge", Equals("code", terms)) if terms else []


async def read(state: State, reference: str) -> Resource | None:
    type, _, id = reference.partition("/")
    found = await state.read(type, id) if reference else None
    return None if found is None else dict(found.tree)


async def read_people(state: State, request: Resource) -> list[Resource]:
    """The Practitioner who requests, the PractitionerRole before it."""
    people: list[Resource] = []
    reference = find_local(state, request.get("requester"))
    if reference.startswith("PractitionerRole/") and (role := await read(state, reference)) is not None:
        people.append(role)
        reference = find_local(state, role.get("practitioner"))
    if reference.startswith("Practitioner/") and (person := await read(state, reference)) is not None:
        people.insert(0, person)
    return people


async def read_drugs(state: State, requests: Iterable[Resource]) -> dict[str, Resource]:
    """By the reference as it is written, the Medications of the requests and what these are made of."""
    found: dict[str, Resource] = {}
    waiting = [reference for each in requests for reference in list_references(each)]
    seen: set[str] = set()
    while waiting:
        text = waiting.pop()
        if text in seen or text.startswith("#"):
            continue
        seen.add(text)
        if len(seen) > MOST_REFERENCES:
            message = f"The patient's prescriptions lead to more than {MOST_REFERENCES} Medications."
            raise Unprocessable(message, code="too-costly", expression=("MedicationRequest.medication",))
        drug = await read(state, find_local(state, {"reference": text}))
        if drug is not None:
            found[text] = drug
            waiting += list_references(drug)
    return found


async def _find_hidden(state: State, resources: Iterable[Resource]) -> frozenset[str]:
    references = [make_reference(each) for each in resources]
    seen = await state.context.reader(state.caller).read_many(references) if references else {}
    own = state.list_pending(frozenset(("AllergyIntolerance", "MedicationRequest")))
    return frozenset(references) - seen.keys() - own.keys()
