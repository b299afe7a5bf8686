"""Small builders of R4 JSON for the sample clinic (https://hl7.org/fhir/R4/datatypes.html)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

CLINIC = "https://clinic.example"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
SYSTEMS = {
    "loinc": "http://loinc.org",
    "icd10": "http://hl7.org/fhir/sid/icd-10-cm",
    "cvx": "http://hl7.org/fhir/sid/cvx",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "charge": f"{CLINIC}/charges",
}
# Daylight saving time is in force in the clinic's zone in these months of 2026, as far as the sample goes.
_SUMMER = {"04", "05", "06", "07", "08", "09", "10"}

Resource = dict[str, Any]


def resource(type: str, id: str, /, **members: Any) -> Resource:
    """A resource; a trailing underscore frees Python's own words (`class_`), members that are None are left out."""
    given = {name.rstrip("_"): value for name, value in members.items() if value is not None}
    return {"resourceType": type, "id": id, **given}


def reference(target: str, display: str | None = None) -> Resource:
    return {"reference": target} | ({"display": display} if display else {})


def identifier(kind: str, value: str) -> Resource:
    return {"system": f"{CLINIC}/{kind}", "value": value}


def coding(system: str, code: str, display: str | None = None) -> Resource:
    """A Coding; `system` is a key of SYSTEMS, the end of a terminology.hl7.org address, or a whole URL."""
    url = SYSTEMS.get(system) or (system if ":" in system else f"{TERMINOLOGY}/{system}")
    return {"system": url, "code": code} | ({"display": display} if display else {})


def concept(system: str, code: str, text: str | None = None) -> Resource:
    return {"coding": [coding(system, code, text)]} | ({"text": text} if text else {})


def quantity(value: str, unit: str, code: str | None = None) -> Resource:
    """A UCUM quantity; the value's text is written as it stands here."""
    return {"value": Decimal(value), "unit": unit, "system": "http://unitsofmeasure.org", "code": code or unit}


def money(value: Decimal) -> Resource:
    return {"value": value, "currency": "USD"}


def moment(date: str, time: str) -> str:
    """`2026-11-03`, `09:30` → an instant in the clinic's time zone (US Eastern)."""
    return f"{date}T{time}:00{'-04:00' if date[5:7] in _SUMMER else '-05:00'}"


def transaction(resources: list[Resource]) -> Resource:
    """A transaction that puts each resource at its own id, so that loading it again changes nothing."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"{CLINIC}/fhir/{item['resourceType']}/{item['id']}",
                "resource": item,
                "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"},
            }
            for item in resources
        ],
    }
