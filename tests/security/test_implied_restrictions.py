"""A search that names its own patient is not asked a second time whose data they are; nothing else is left out."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from fhir_server.access_control import name_patient
from fhir_server.fhir import definitions
from fhir_server.search.compartment import build_compartment_clause, list_member_types
from fhir_server.search.entries import Entries
from fhir_server.search.index import Index
from fhir_server.search.match import NO_OTHERS, Candidate, compile_predicate
from fhir_server.search.query import EVERYTHING, NOTHING, And, Clause, Equals, Ids, Not, Or, StartsWith
from fhir_server.search.registry import build
from fhir_server.security.access import conjoin
from tests.shared import shared_path

DEFINITIONS = definitions.load()
REGISTRY = build(DEFINITIONS)

MINE, OTHER = Equals("patient", ("Patient/1",)), Equals("patient", ("Patient/2",))
BY_ME, LABEL = Equals("performer", ("Patient/1",)), Not(Equals("_security", ("R",)))
FINAL = Equals("status", ("final",))


@pytest.mark.parametrize(
    ("asked", "restriction", "together"),
    [
        (MINE, And((MINE, LABEL)), And((MINE, LABEL))),
        (MINE, And((Or((MINE, BY_ME)), LABEL)), And((MINE, LABEL))),
        (And((FINAL, MINE)), Or((BY_ME, MINE)), And((FINAL, MINE))),
        (OTHER, And((Or((MINE, BY_ME)), LABEL)), And((OTHER, Or((MINE, BY_ME)), LABEL))),
        (Or((MINE, OTHER)), MINE, And((Or((MINE, OTHER)), MINE))),
        (Not(MINE), MINE, And((Not(MINE), MINE))),
        (MINE, Not(MINE), And((MINE, Not(MINE)))),
        (MINE, NOTHING, And((MINE, NOTHING))),
        (MINE, EVERYTHING, MINE),
        (EVERYTHING, MINE, MINE),
        (
            Equals("patient", ("Patient/1", "Patient/2")),
            MINE,
            And((Equals("patient", ("Patient/1", "Patient/2")), MINE)),
        ),
        (Ids(("1",)), Or((Equals("link", ("Patient/1",)), Ids(("1",)))), Ids(("1",))),
    ],
)
def test_what_the_search_says_itself_is_left_out(asked: Clause, restriction: Clause, together: Clause) -> None:
    assert conjoin(asked, restriction) == together


def test_both_hold_for_the_same_resources() -> None:
    """All pairs of small clauses, over all resources with any of the terms that they speak of."""
    leaves: list[Clause] = [MINE, OTHER, BY_ME, FINAL, StartsWith("status", "fi"), Ids(("a",))]
    pairs = itertools.combinations(leaves, 2)
    clauses = [*leaves, *map(Not, leaves), *(kind(pair) for pair in pairs for kind in (And, Or)), EVERYTHING, NOTHING]
    terms = {"patient": ("Patient/1", "Patient/2"), "performer": ("Patient/1",), "status": ("final",)}
    choices = [[(code, values) for values in ((), *((each,) for each in terms[code]), terms[code])] for code in terms]
    candidates = [
        Candidate("Observation", id, 0, Entries({code: values for code, values in chosen if values}))
        for chosen in itertools.product(*choices)
        for id in "ab"
    ]

    def list_matches(clause: Clause) -> list[bool]:
        holds = compile_predicate(clause, NO_OTHERS)
        return [holds(each) for each in candidates]

    of_each = {clause: list_matches(clause) for clause in clauses}
    for asked, restriction in itertools.product(clauses, clauses):
        expected = [one and two for one, two in zip(of_each[asked], of_each[restriction], strict=True)]
        assert list_matches(conjoin(asked, restriction)) == expected, (asked, restriction)


BASE = "https://clinic.test/fhir"
ODD_REFERENCES: tuple[dict[str, Any], ...] = (
    {"reference": f"{BASE}/Patient/1"},
    {"reference": "Patient/1/_history/3"},
    {"reference": "https://else.where/fhir/Patient/1"},
    {"reference": "Patient/1", "type": "Group"},
    {"reference": "#inside"},
    {"reference": "urn:uuid:5d1b3c6e-8f0a-4b7e-9d55-1f2f3a4b5c6d", "type": "Patient"},
    {"type": "Patient", "identifier": {"system": "urn:mrn", "value": "1"}},
    {"reference": "Group/1"},
    {"reference": "Patient/1", "identifier": {"value": "1"}},
)


def list_changes() -> list[tuple[str, str]]:
    """(type, parameter) where a Patient compartment is asked for by `patient` in place of that parameter."""
    return [
        (type, code)
        for type in list_member_types(DEFINITIONS, "Patient")
        for code in DEFINITIONS.compartments["Patient"].get(type, ())
        if code != "patient" and name_patient(Equals(code, ("Patient/1",)), REGISTRY.parameters(type)) == MINE
    ]


def list_patients(type: str, resource: dict[str, Any]) -> dict[str, set[str]]:
    """By parameter, the patients by whom an index finds the resource."""
    terms = Index(REGISTRY, DEFINITIONS).make_entries(type, resource, BASE).terms
    return {code: {term for term in values if term.startswith("Patient/")} for code, values in terms.items()}


def test_the_compartment_is_asked_for_by_patient_where_that_says_the_same() -> None:
    changes = list_changes()
    # R4's compartment definition names these; their `patient` is the same element, where it is a patient
    assert {("Observation", "subject"), ("MedicationRequest", "subject"), ("Appointment", "actor")} <= set(changes)
    assert not any(type in ("Group", "Patient", "Coverage", "AdverseEvent") for type, _ in changes)
    clause = build_compartment_clause(DEFINITIONS, "Patient", "1", "Observation")
    assert name_patient(clause, REGISTRY.parameters("Observation")) == Or((MINE, BY_ME))


@pytest.mark.parametrize("reference", ODD_REFERENCES)
def test_patient_finds_whom_the_other_parameter_finds_by_odd_references(reference: dict[str, Any]) -> None:
    contained = [{"resourceType": "Patient", "id": "inside"}]
    observation = {"resourceType": "Observation", "contained": contained, "subject": reference}
    found = list_patients("Observation", observation)
    assert found.get("patient", set()) == found.get("subject", set())


def test_patient_finds_whom_the_other_parameter_finds_in_the_official_examples() -> None:
    changes, looked_at = list_changes(), 0
    for file in sorted(shared_path("data/r4-examples").glob("*.json")):
        resource = json.loads(file.read_bytes())
        for type, code in changes:
            if resource["resourceType"] == type:
                found = list_patients(type, resource)
                assert found.get("patient", set()) == found.get(code, set()), file
                looked_at += bool(found.get(code))
    assert looked_at > 50
