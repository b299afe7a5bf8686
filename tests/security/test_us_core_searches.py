"""The searches that US Core 6.1 says a server SHALL answer, with a patient's token: only the patient's own is found.

https://hl7.org/fhir/us/core/STU6.1/CapabilityStatement-us-core-server.html: the combinations that are SHALL, by type.
"""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.security.test_tokens import act_as, guarding

pytestmark = pytest.mark.anyio

LOINC, CATEGORY = "http://loinc.org", "http://terminology.hl7.org/CodeSystem/observation-category"
CODE = {"coding": [{"system": LOINC, "code": "1-8"}]}
WHEN, SUBJECT = "2026-03-01T08:00:00Z", "subject"
IN_CATEGORY = [{"coding": [{"system": CATEGORY, "code": "laboratory"}]}]


def clinical(code: str) -> dict[str, Any]:
    system = f"http://terminology.hl7.org/CodeSystem/condition-{code}"
    return {"coding": [{"system": system, "code": {"clinical": "active", "ver-status": "confirmed"}[code]}]}


ACTIVE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}

RECORDS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "AllergyIntolerance": ("patient", {"clinicalStatus": ACTIVE, "code": CODE}, ("",)),
    "CarePlan": (
        SUBJECT,
        {"status": "active", "intent": "plan", "category": IN_CATEGORY},
        (f"&category={CATEGORY}|laboratory",),
    ),
    "CareTeam": (SUBJECT, {"status": "active"}, ("&status=active",)),
    "Condition": (
        SUBJECT,
        {"clinicalStatus": clinical("clinical"), "code": CODE, "category": IN_CATEGORY},
        ("", "&category=laboratory"),
    ),
    "Coverage": ("beneficiary", {"status": "active", "payor": [{"display": "Payer"}]}, ("",)),
    "Device": ("patient", {"status": "active"}, ("",)),
    "DiagnosticReport": (
        SUBJECT,
        {"status": "final", "code": CODE, "category": IN_CATEGORY, "effectiveDateTime": WHEN},
        ("", "&category=laboratory", f"&code={LOINC}|1-8", "&category=laboratory&date=ge2026-01"),
    ),
    "DocumentReference": (
        SUBJECT,
        {
            "status": "current",
            "type": CODE,
            "category": IN_CATEGORY,
            "date": WHEN,
            "content": [{"attachment": {"contentType": "text/plain", "url": "https://files.example/1"}}],
        },
        ("", "&category=laboratory", "&category=laboratory&date=ge2026-01", f"&type={LOINC}|1-8"),
    ),
    "Encounter": (
        SUBJECT,
        {"status": "finished", "class": {"code": "AMB"}, "period": {"start": WHEN}},
        ("", "&date=ge2026-01"),
    ),
    "Goal": (SUBJECT, {"lifecycleStatus": "active", "description": CODE}, ("",)),
    "Immunization": ("patient", {"status": "completed", "vaccineCode": CODE, "occurrenceDateTime": WHEN}, ("",)),
    "MedicationDispense": (SUBJECT, {"status": "completed", "medicationCodeableConcept": CODE}, ("",)),
    "MedicationRequest": (
        SUBJECT,
        {"status": "active", "intent": "order", "medicationCodeableConcept": CODE, "authoredOn": WHEN},
        ("&intent=order", "&intent=order&status=active"),
    ),
    "Observation": (
        SUBJECT,
        {"status": "final", "code": CODE, "category": IN_CATEGORY, "effectiveDateTime": WHEN},
        ("&category=laboratory", f"&code={LOINC}|1-8", "&category=laboratory&date=ge2026-01"),
    ),
    "Procedure": (
        SUBJECT,
        {"status": "completed", "code": CODE, "performedDateTime": WHEN},
        ("", "&date=ge2026-01"),
    ),
    "ServiceRequest": (
        SUBJECT,
        {"status": "active", "intent": "order", "code": CODE, "category": IN_CATEGORY, "authoredOn": WHEN},
        ("", "&category=laboratory", f"&code={LOINC}|1-8", "&category=laboratory&authored=ge2026-01"),
    ),
}
OF_PATIENT = (
    "_id=ada",
    "identifier=urn:mrn|ada",
    "name=Quill",
    "birthdate=1980-02-03&name=Quill",
    "gender=female&name=Qu",
)


async def test_a_patients_app_searches_as_us_core_says(known: Knowledge, any_store_uri: str) -> None:
    async with guarding(known, any_store_uri) as client:
        for id in ("ada", "bo"):
            person = {
                "resourceType": "Patient",
                "id": id,
                "identifier": [{"system": "urn:mrn", "value": id}],
                "name": [{"family": "Quill"}],
                "birthDate": "1980-02-03",
                "gender": "female",
            }
            assert (await client.put(f"Patient/{id}", json=person)).is_success
            for type, (element, content, _) in RECORDS.items():
                record = {"resourceType": type, "id": f"us-{id}", element: {"reference": f"Patient/{id}"}, **content}
                answer = await client.put(f"{type}/us-{id}", json=record)
                assert answer.status_code == 201, answer.text
        headers = await act_as(client, "patient/*.rs", "ada")

        async def find(url: str) -> list[str]:
            answer = await client.get(url, headers=headers)
            assert answer.status_code == 200, (url, answer.text)
            bundle = answer.json()
            assert bundle.get("total", len(bundle.get("entry", []))) == len(bundle.get("entry", []))
            return [entry["resource"]["id"] for entry in bundle.get("entry", [])]

        for query in OF_PATIENT:
            assert await find(f"Patient?{query}") == ["ada"], query
        for type, (_, _, endings) in RECORDS.items():
            if type == "Device":  # outside of R4's Patient compartment: nothing is found, and nobody else's
                assert await find("Device?patient=ada") == await find("Device?patient=bo") == []
                continue
            for ending in endings:
                assert "us-ada" in await find(f"{type}?patient=Patient/ada{ending}"), (type, ending)
                assert await find(f"{type}?patient=Patient/bo{ending}") == [], (type, ending)
                found = await find(f"{type}?_sort=_id&_total=accurate{ending}")
                assert "us-bo" not in found and "us-ada" in found, (type, ending)
