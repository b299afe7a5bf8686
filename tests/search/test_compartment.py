"""Compartments restrict a search (https://hl7.org/fhir/R4/compartmentdefinition.html)."""

from __future__ import annotations

import pytest

from fhir_server.fhir.outcome import NotFound
from fhir_server.search.compartment import build_compartment_clause, list_member_types
from fhir_server.search.query import Equals, Ids, Or
from tests.r4 import R4


def test_r4_defines_five_compartments() -> None:
    assert sorted(R4.compartments) == ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"]


@pytest.mark.parametrize(
    ("compartment", "type", "parameters"),
    [
        ("Patient", "Observation", {"subject", "performer"}),
        ("Patient", "AllergyIntolerance", {"patient", "recorder", "asserter"}),
        ("Practitioner", "Appointment", {"actor"}),
        ("Encounter", "DocumentReference", {"encounter"}),
        ("RelatedPerson", "Coverage", {"policy-holder", "subscriber", "payor"}),
        ("Device", "DeviceRequest", {"device", "subject", "requester", "performer"}),
    ],
)
def test_a_member_refers_to_the_compartment_by_one_of_the_defined_parameters(
    compartment: str, type: str, parameters: set[str]
) -> None:
    """The tables of the five CompartmentDefinitions of R4: https://hl7.org/fhir/R4/compartmentdefinition-patient.html"""
    clause = build_compartment_clause(R4, compartment, "1", type)
    clauses = clause.clauses if isinstance(clause, Or) else (clause,)
    assert set(clauses) == {Equals(parameter, (f"{compartment}/1",)) for parameter in parameters}


@pytest.mark.parametrize("compartment", ["Practitioner", "Encounter", "RelatedPerson", "Device"])
def test_the_resource_itself_is_in_its_compartment(compartment: str) -> None:
    assert build_compartment_clause(R4, compartment, "1", compartment) == Ids(("1",))


def test_a_patient_linked_to_the_patient_is_in_the_compartment_with_it() -> None:
    clause = build_compartment_clause(R4, "Patient", "1", "Patient")
    assert clause == Or((Equals("link", ("Patient/1",)), Ids(("1",))))


def test_the_members_of_a_compartment() -> None:
    types = list_member_types(R4, "Patient")
    assert len(types) == 66
    assert {"Patient", "Observation", "Claim", "ExplanationOfBenefit"} <= set(types)
    assert not {"Practitioner", "Organization", "Medication", "Location", "Slot"} & set(types)
    assert "Device" in list_member_types(R4, "Device")


def test_a_type_outside_the_compartment_is_not_found() -> None:
    with pytest.raises(NotFound, match=r"^`Slot` is not in the Encounter compartment. Valid types: `CarePlan`, "):
        build_compartment_clause(R4, "Encounter", "1", "Slot")


def test_a_type_without_a_compartment_is_not_found() -> None:
    with pytest.raises(NotFound) as error:
        build_compartment_clause(R4, "Organization", "1", "Observation")
    assert str(error.value) == (
        "`Organization` has no compartment. "
        "Valid ones: `Device`, `Encounter`, `Patient`, `Practitioner`, `RelatedPerson`."
    )
