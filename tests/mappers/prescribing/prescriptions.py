"""Invented resources of prescriptions for the tests: a complete MedicationRequest, and what it is checked against."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SCHEDULE = "https://fhir-server.example/StructureDefinition/controlled-substance-schedule"
NPI = "1234567893"
"""The example of the NPI's check digit in 45 CFR 162.406 and CMS's own page on it."""
DEA = "AB1234563"
"""1 + 3 + 5 = 9; 2 + 4 + 6 = 12, twice 24; 33 ends in 3, the check digit."""


def concept(code: str, system: str = RXNORM) -> Tree:
    return {"coding": [{"system": system, "code": code}]}


def prescription(id: str = "rx", drug: str = "314076", status: str = "draft", **more: Any) -> Tree:
    """Thirty tablets for thirty days."""
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": concept(drug),
        "subject": {"reference": "Patient/ada"},
        "requester": {"reference": "Practitioner/pine"},
        "dosageInstruction": [{"text": "1 tablet a day", "doseAndRate": [{"doseQuantity": {"value": 1}}]}],
        "dispenseRequest": {
            "quantity": {"value": 30},
            "expectedSupplyDuration": {"value": 30, "system": "http://unitsofmeasure.org", "code": "d"},
        },
        **more,
    }


def practitioner(npi: str = NPI, dea: str = "") -> Tree:
    identifiers: list[Tree] = [{"system": "http://hl7.org/fhir/sid/us-npi", "value": npi}] if npi else []
    if dea:
        type = concept("DEA", "http://terminology.hl7.org/CodeSystem/v2-0203")
        identifiers.append({"system": "urn:oid:2.16.840.1.113883.4.814", "type": type, "value": dea})
    return {"resourceType": "Practitioner", "id": "pine", **({"identifier": identifiers} if identifiers else {})}


def allergy(id: str, code: str, status: str = "active", **more: Any) -> Tree:
    return {
        "resourceType": "AllergyIntolerance",
        "id": id,
        "clinicalStatus": concept(status, "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"),
        "patient": {"reference": "Patient/ada"},
        "code": concept(code),
        **more,
    }


def schedule(code: str, system: str = "http://terminology.hl7.org/CodeSystem/v2-0477") -> Tree:
    return {"url": SCHEDULE, "valueCodeableConcept": concept(code, system)}
