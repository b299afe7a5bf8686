"""Invented people, payers and claims for the tests of the 837P, and a generator of valid claims."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from mappers.x12 import codes
from mappers.x12.partner import ClaimSource, Partner, Party
from mappers.x12.resource import make_concept
from mappers.x12.writer import ControlNumbers, Envelope

NUMBERS = ControlNumbers(1, 1, datetime(2026, 1, 15, 12, 0))
PARTNER = Partner(
    Envelope("SUBMITTER01", "RECEIVER01"),
    Party("Good Clinic", "SUBMITTER01", "Billing Office", "555-555-1212"),
    Party("Clearinghouse", "RECEIVER01"),
)
Json = dict[str, Any]


def npi(value: str) -> Json:
    return {"system": codes.NPI, "value": value}


def address(line: str, city: str, state: str, postal: str, **more: str) -> Json:
    return {"line": [line], "city": city, "state": state, "postalCode": postal, **more}


def reference(text: str) -> Json:
    return {"reference": text}


CLINIC: Json = {
    "resourceType": "Organization",
    "id": "clinic",
    "name": "Good Clinic",
    "identifier": [npi("1700000007"), {"system": codes.EIN[1], "value": "12-3456789"}],
    "type": [make_concept(codes.TAXONOMY, "207Q00000X")],
    "address": [address("1 Main St.", "Boston", "MA", "02108-1234")],
}
SMITH: Json = {
    "resourceType": "Practitioner",
    "id": "smith",
    "name": [{"family": "Smith", "given": ["Adam"]}],
    "identifier": [npi("1700000015")],
    "qualification": [{"code": make_concept(codes.TAXONOMY, "207Q00000X")}],
}
REFERRER: Json = {
    "resourceType": "Practitioner",
    "id": "pine",
    "name": [{"family": "Pine", "given": ["Ruth", "Ann"], "suffix": ["Jr"]}],
    "identifier": [npi("1700000023")],
}
JANE: Json = {
    "resourceType": "Patient",
    "id": "jane",
    "name": [{"family": "Doe", "given": ["Jane"]}],
    "gender": "female",
    "birthDate": "1980-01-02",
    "address": [address("2 Elm St", "Boston", "MA", "02109")],
}
BO: Json = {
    "resourceType": "Patient",
    "id": "bo",
    "name": [{"family": "Doe", "given": ["Bo"]}],
    "gender": "male",
    "birthDate": "2012-03-04",
    "address": [address("2 Elm St", "Boston", "MA", "02109")],
}
PAYER: Json = {
    "resourceType": "Organization",
    "id": "acme",
    "name": "Acme Health",
    "identifier": [{"system": codes.PAYER_ID, "value": "12345"}],
}
SECOND_PAYER: Json = {
    "resourceType": "Organization",
    "id": "best",
    "name": "Best Insurance",
    "identifier": [{"system": codes.PAYER_ID, "value": "67890"}],
}
WARD: Json = {
    "resourceType": "Location",
    "id": "ward",
    "name": "North Surgery Center",
    "identifier": [npi("1700000023"), {"system": codes.CLIA, "value": "22D1234567"}],
    "address": address("9 Hill Rd", "Boston", "MA", "021091111"),
}


def make_coverage(key: str, *, patient: str = "jane", payer: str = "acme", **more: Any) -> Json:
    return {
        "resourceType": "Coverage",
        "id": key,
        "status": "active",
        "type": make_concept("https://nahdo.org/sopt", "5"),
        "subscriber": reference("Patient/jane"),
        "subscriberId": "MEM123",
        "beneficiary": reference(f"Patient/{patient}"),
        "relationship": make_concept("http://terminology.hl7.org/CodeSystem/subscriber-relationship", "self"),
        "payor": [reference(f"Organization/{payer}")],
        "class": [{"type": make_concept(f"{codes.HL7}/coverage-class", "group"), "value": "GRP1"}],
        **more,
    }


def make_item(sequence: int, code: str, net: str, **more: Any) -> Json:
    return {
        "id": f"L{sequence}",
        "sequence": sequence,
        "productOrService": make_concept(codes.CPT, code),
        "servicedDate": "2026-01-10",
        "locationCodeableConcept": make_concept(codes.POS, "11"),
        "quantity": {"value": 1},
        "net": {"value": Decimal(net), "currency": "USD"},
        "diagnosisSequence": [1],
        **more,
    }


def make_claim(*items: Json, **more: Any) -> Json:
    total = sum((item["net"]["value"] for item in items), Decimal(0))
    diagnoses = [(1, "E11.9"), (2, "I10")]
    return {
        "resourceType": "Claim",
        "id": "c1",
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": "PCN1"}],
        "status": "active",
        "use": "claim",
        "patient": reference("Patient/jane"),
        "created": "2026-01-15",
        "provider": reference("Organization/clinic"),
        "careTeam": [{"sequence": 1, "provider": reference("Practitioner/smith"), "role": make_concept("", "primary")}],
        "diagnosis": [
            {"sequence": number, "diagnosisCodeableConcept": make_concept(codes.ICD_10_CM, code)}
            for number, code in diagnoses
        ],
        "insurance": [
            {"sequence": 1, "focal": True, "coverage": reference("Coverage/cov"), "preAuthRef": ["PA77"]}
        ],
        "item": list(items),
        "total": {"value": total, "currency": "USD"},
        **more,
    }  # fmt: skip


def make_resources(*more: Json) -> dict[str, Json]:
    known = [CLINIC, SMITH, REFERRER, JANE, BO, PAYER, SECOND_PAYER, WARD, make_coverage("cov"), *more]
    return {f"{each['resourceType']}/{each['id']}": each for each in known}


def make_skeleton() -> Json:
    """The claim of the skeleton in `x12.md`: two lines, two diagnoses."""
    first = make_item(1, "99213", "100", modifier=[make_concept("", "25")], diagnosisSequence=[1, 2])
    return make_claim(first, make_item(2, "81002", "50"))


def make_source(claim: Json | None = None, *more: Json, **options: Any) -> ClaimSource:
    return ClaimSource(claim or make_skeleton(), make_resources(*more), **options)


def adjudicate(group: str, reason: str, amount: Decimal) -> Json:
    return {
        "category": make_concept(codes.GROUP, group),
        "reason": make_concept(codes.CARC, reason),
        "amount": {"value": amount, "currency": "USD"},
    }


def make_response(claim: Json, rng: random.Random | None = None) -> Json:
    """What a first payer decided: 60 % of each line paid, the rest contractual and patient's, or all at claim level."""
    items, paid_total = [], Decimal(0)
    for item in claim["item"]:
        charge = item["net"]["value"]
        paid = (charge * 6 / 10).quantize(Decimal("0.01"))
        contractual = ((charge - paid) / 2).quantize(Decimal("0.01"))
        paid_total += paid
        entries = [("CO", "45", contractual), ("PR", "2", charge - paid - contractual)]
        benefit = {"category": make_concept(codes.ADJUDICATION, "benefit"), "amount": {"value": paid}}
        adjudications = [adjudicate(*entry) for entry in entries if entry[2]]
        items.append({"itemSequence": item["sequence"], "adjudication": [benefit, *adjudications]})
    response: Json = {
        "resourceType": "ClaimResponse",
        "id": "r1",
        "created": "2026-01-20",
        "identifier": [{"system": codes.PAYER_CONTROL_NUMBER, "value": "ICN1"}],
        "payment": {"amount": {"value": paid_total}, "date": "2026-01-19"},
        "item": items,
    }
    if rng and rng.random() < 0.4:
        total = sum((item["net"]["value"] for item in claim["item"]), Decimal(0))
        response = {key: value for key, value in response.items() if key != "item"}
        response["adjudication"] = [adjudicate("CO", "45", total - paid_total)]
    return response


_DIAGNOSES = (
    "E11.9",
    "I10",
    "J06.9",
    "M54.50",
    "R51.9",
    "Z00.00",
    "K21.9",
    "E78.5",
    "F41.1",
    "N39.0",
    "L30.9",
    "G43.909",
)
_PROCEDURES = ("99213", "99214", "81002", "36415", "93000", "71046", "87880", "90471", "20610", "17110")


def generate_source(seed: int) -> ClaimSource:
    """A random valid claim: lines, modifiers, dependents, drugs, anesthesia, accidents, other payers, frequency."""
    rng = random.Random(seed)
    dependent, secondary = rng.random() < 0.3, rng.random() < 0.3
    count = rng.randint(1, 12)
    lines = 50 if seed % 97 == 5 else rng.choice((1, 1, 2, 3, 5))
    items = [_generate_item(rng, number, count) for number in range(1, lines + 1)]
    claim = make_claim(*items)
    claim["identifier"] = [{"system": codes.PATIENT_CONTROL_NUMBER, "value": f"PCN{seed:08}"}]
    claim["diagnosis"] = [
        {"sequence": place, "diagnosisCodeableConcept": make_concept(codes.ICD_10_CM, code)}
        for place, code in enumerate(rng.sample(_DIAGNOSES, count), 1)
    ]
    patient = "bo" if dependent else "jane"
    relation = rng.choice(("child", "other", "spouse")) if dependent else "self"
    claim["patient"] = reference(f"Patient/{patient}")
    options: Json = {"patient": patient, "relationship": make_concept("", relation), "subscriberId": f"M{seed % 40}"}
    coverages = [make_coverage("cov", **options), make_coverage("cov2", payer="best", **options)]
    resources = make_resources(*coverages)
    _add_choices(rng, claim)
    frequency = rng.choice(("1", "1", "7", "8"))
    if frequency != "1":
        claim["related"] = [{"reference": {"value": f"ICN{seed}"}}]
    if secondary:
        resources["ClaimResponse/r1"] = make_response(claim, rng)
        claim["insurance"] = [
            {
                "sequence": 1,
                "focal": False,
                "coverage": reference("Coverage/cov2"),
                "claimResponse": reference("ClaimResponse/r1"),
            },
            {"sequence": 2, "focal": True, "coverage": reference("Coverage/cov")},
        ]
    return ClaimSource(claim, resources, frequency)


def _generate_item(rng: random.Random, number: int, diagnoses: int) -> Json:
    code = rng.choice(_PROCEDURES)
    item = make_item(number, code, f"{rng.randint(1, 90_000) / 100:.2f}", id=f"L{number}X{rng.randint(0, 10**6)}")
    item["diagnosisSequence"] = rng.sample(range(1, diagnoses + 1), min(diagnoses, rng.randint(1, 4)))
    item["modifier"] = [
        make_concept("", code) for code in rng.sample(("25", "59", "76", "RT", "LT"), rng.randint(0, 4))
    ]
    day = date(2026, 1, 1) + timedelta(days=rng.randint(0, 13))
    item["servicedDate"] = str(day)
    if rng.random() < 0.2:
        del item["servicedDate"]
        item["servicedPeriod"] = {"start": str(day), "end": str(day + timedelta(days=rng.randint(0, 3)))}
    if rng.random() < 0.1:
        item["productOrService"] = make_concept(codes.CPT, "00142")
        item["quantity"] = {"value": rng.randint(1, 300), "code": "min"}
    elif rng.random() < 0.2:
        item["productOrService"] = make_concept(codes.HCPCS[0], "J1550")
        quantity = {"value": Decimal(rng.randint(1, 99)) / 10, "code": rng.choice(("mL", "mg", "[iU]", "g", "{tbl}"))}
        item["detail"] = [
            {"sequence": 1, "productOrService": make_concept(codes.NDC, "00026-0635-12"), "quantity": quantity}
        ]
    if rng.random() < 0.2:
        item["extension"] = [{"url": codes.EMERGENCY, "valueBoolean": True}]
    if rng.random() < 0.2:
        item["locationCodeableConcept"] = make_concept(codes.POS, "22")
    return item


def _add_choices(rng: random.Random, claim: Json) -> None:
    team = claim["careTeam"]
    for role in ("referring", "supervisor", "ordering"):
        if rng.random() < 0.3:
            sequence = len(team) + 1
            member = {"sequence": sequence, "provider": reference("Practitioner/pine"), "role": make_concept("", role)}
            team.append(member)
            if role == "ordering":
                claim["item"][0]["careTeamSequence"] = [sequence]
    if rng.random() < 0.3:
        claim["facility"] = reference("Location/ward")
    if rng.random() < 0.2:
        kind, state = rng.choice((("MVA", "TX"), ("WPA", ""), ("SPT", "")))
        claim["accident"] = {"date": "2025-12-30", "type": make_concept("", kind), "locationAddress": {"state": state}}
    information: list[Mapping[str, Any]] = [
        {"category": make_concept("", "onset"), "timingDate": "2025-12-29"},
        {"category": make_concept("", "initial-treatment"), "timingDate": "2025-12-30"},
        {"category": make_concept("", "patient-paid"), "valueQuantity": {"value": 1}},
        {"category": make_concept("", "info"), "valueString": "Patient called; see chart #12 ~ at *noon*"},
        {"category": make_concept("", "attachment"), "code": make_concept("", "OZ"), "valueString": "ATT 1"},
        {"category": make_concept("", "hospitalized"), "timingPeriod": {"start": "2026-01-01", "end": "2026-01-03"}},
    ]
    claim["supportingInfo"] = [info for info in information if rng.random() < 0.2]
    extension = [(codes.ASSIGNMENT, "C"), (codes.BENEFITS, "N"), (codes.RELEASE, "I"), (codes.DELAY, "7")]
    claim["extension"] = [{"url": url, "valueCode": code} for url, code in extension if rng.random() < 0.2]
