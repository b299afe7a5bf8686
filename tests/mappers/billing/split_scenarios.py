"""The scenarios of `examples/billing-rules` as FHIR: a claim with its resources, a rule set, what must come of it."""

from __future__ import annotations

import json
import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView, Surroundings, view_claim
from mappers.billing.libraries import read_model
from mappers.billing.payer_settings import SiteSettings
from mappers.billing.split_rules import RuleSet

Resource = dict[str, Any]
FOLDER = Path(__file__).resolve().parents[3] / "examples" / "billing-rules"
PAYERS = ("90001", "90002", "90003")
NPIS = {"pine": "1700000007", "elm": "1700000015"}


def read_scenarios() -> list[Resource]:
    """All scenarios in the order of their files."""
    return [each for path in sorted(FOLDER.glob("*.toml")) for each in tomllib.loads(path.read_text())["scenario"]]


def read_rules(scenario: Resource) -> RuleSet:
    rules, issues = read_model(json.loads(scenario["rules"]), RuleSet)
    assert rules is not None, issues
    return rules.model_copy(update={"version": "riverbend|1"})


def concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code} if system else {"code": code}]}


def make_view(scenario: Resource) -> ClaimView:
    """The claim of a scenario, resolved."""
    coverages = [make_coverage(each) for each in scenario["coverages"]]
    people = [
        {"resourceType": "Practitioner", "id": name, "identifier": [{"system": codes.NPI, "value": npi}]}
        for name, npi in NPIS.items()
    ]
    payers = [
        {
            "resourceType": "Organization",
            "id": each,
            "name": each,
            "identifier": [{"system": codes.PAYER_ID, "value": each}],
        }
        for each in PAYERS
    ]
    us = [{"resourceType": "Organization", "id": each, "name": each} for each in ("us", "south")]
    patient = {"resourceType": "Patient", "id": "ada", "gender": "female", "birthDate": "1980-01-02"}
    resources = {f"{e['resourceType']}/{e['id']}": e for e in (*coverages, *people, *payers, *us, patient)}
    wanted = scenario.get("one_rendering", "")
    site = SiteSettings.model_validate({"payers": {wanted: {"one_rendering": True}} if wanted else {}})
    return view_claim(make_claim(scenario), resources, Surroundings(today=date(2026, 4, 1), site=site))


def make_coverage(given: Resource) -> Resource:
    return {
        "resourceType": "Coverage",
        "id": given["id"],
        "status": "active",
        "order": given["order"],
        "type": concept("", given.get("kind", "5")),
        "beneficiary": {"reference": "Patient/ada"},
        "payor": [{"reference": f"Organization/{given['payer']}"}],
        "period": {key: given[key] for key in ("start", "end") if key in given},
    }


def make_claim(scenario: Resource) -> Resource:
    lines = scenario.get("lines") or [
        {**scenario["repeat"]["line"], "id": f"A{n}"} for n in range(scenario["repeat"]["count"])
    ]
    known = list(dict.fromkeys(code for line in lines for code in line["diagnoses"]))
    claim: Resource = {
        "resourceType": "Claim",
        "id": "source",
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": "SOURCE1"}],
        "status": "draft",
        "type": concept(codes.CLAIM_TYPE, "professional"),
        "use": "claim",
        "patient": {"reference": "Patient/ada"},
        "provider": {"reference": "Organization/us"},
        "careTeam": [
            {"sequence": n, "provider": {"reference": f"Practitioner/{name}"}, "role": concept("", "primary")}
            for n, name in enumerate(NPIS, 1)
        ],
        "diagnosis": [
            {"sequence": n, "diagnosisCodeableConcept": concept(codes.ICD_10_CM, code)}
            for n, code in enumerate(known, 1)
        ],
        "insurance": [
            {"sequence": n, "focal": n == 1, "coverage": {"reference": f"Coverage/{each}"}}
            for n, each in enumerate(scenario["claim"], 1)
        ],
        "item": [make_item(n, line, known) for n, line in enumerate(lines, 1)],
        "total": {"value": sum((Decimal(line["charge"]) for line in lines), Decimal("0.00")), "currency": "USD"},
    }
    if "accident" in scenario:
        claim["accident"] = {"date": "2026-03-01", "type": concept(codes.ACCIDENT, scenario["accident"])}
    if "facility" in scenario:
        claim["facility"] = {"reference": f"Location/{scenario['facility']}"}
    if "information" in scenario:
        claim["supportingInfo"] = [
            {"sequence": 1, "category": concept("", "info"), "code": concept("", scenario["information"])}
        ]
    return claim


def make_item(number: int, line: Resource, known: list[str]) -> Resource:
    item: Resource = {
        "id": line["id"],
        "sequence": number,
        "careTeamSequence": [list(NPIS).index(line.get("rendering", "pine")) + 1],
        "diagnosisSequence": [known.index(code) + 1 for code in line["diagnoses"]],
        "productOrService": concept(codes.CPT, line["code"]),
        "servicedDate": line.get("date", "2026-03-02"),
        "locationCodeableConcept": concept(codes.POS, line.get("place", "11")),
        "quantity": {"value": Decimal(line.get("units", "1"))},
        "net": {"value": Decimal(line["charge"]), "currency": "USD"},
    }
    if "modifiers" in line:
        item["modifier"] = [concept("", each) for each in line["modifiers"]]
    if "encounter" in line:
        item["encounter"] = [{"reference": f"Encounter/{line['encounter']}"}]
    return item
