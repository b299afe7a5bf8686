"""An invented practice's visits for the tests of charges: priced codes, a payer, patients who are covered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from fhir_server.app import Knowledge, Seams
from mappers.billing import codes
from tests.conftest import Client, serving
from tests.operations.payments.money_clinic import sentence, store
from tests.operations.scheduling.booking_clinic import Clock

Tree = dict[str, Any]

US = "Organization/us"


def concept(system: str, code: str) -> Tree:
    return {"coding": [{"system": system, "code": code}]}


def definition(code: str, price: float) -> Tree:
    base = {"type": "base", "amount": {"value": price, "currency": "USD"}}
    return {
        "resourceType": "ChargeItemDefinition",
        "id": f"price-{code}",
        "url": f"https://clinic.example/charges/{code}",
        "status": "active",
        "code": concept(codes.CPT, code),
        "propertyGroup": [{"priceComponent": [base]}],
    }


def patient(id: str, covered: bool = True) -> list[Tree]:
    """A patient, with a Coverage that is in force."""
    person: Tree = {"resourceType": "Patient", "id": id}
    coverage: Tree = {
        "resourceType": "Coverage",
        "id": id,
        "status": "active",
        "order": 1,
        "subscriberId": f"M-{id}",
        "beneficiary": {"reference": f"Patient/{id}"},
        "payor": [{"reference": "Organization/payer"}],
    }
    return [person, coverage] if covered else [person]


def visit(id: str, who: str, day: str = "2026-03-02", status: str = "finished") -> Tree:
    return {
        "resourceType": "Encounter",
        "id": id,
        "status": status,
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{who}"},
        "period": {"start": f"{day}T10:00:00Z", "end": f"{day}T10:20:00Z"},
        "participant": [
            {
                "type": [concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "ATND")],
                "individual": {"reference": "Practitioner/pine"},
            }
        ],
        "reasonCode": [concept(codes.ICD_10_CM, "I10")],
    }


def procedure(id: str, encounter: str, who: str, code: str = "99213", day: str = "2026-03-02") -> Tree:
    return {
        "resourceType": "Procedure",
        "id": id,
        "status": "completed",
        "code": concept(codes.CPT, code),
        "subject": {"reference": f"Patient/{who}"},
        "encounter": {"reference": f"Encounter/{encounter}"},
        "performedDateTime": f"{day}T10:05:00Z",
    }


def charge(id: str, who: str, code: str = "99213", price: float = 100.0, encounter: str = "", **more: Any) -> Tree:
    if encounter:
        more["context"] = {"reference": encounter}
    return {
        "resourceType": "ChargeItem",
        "id": id,
        "status": "billable",
        "code": concept(codes.CPT, code),
        "subject": {"reference": f"Patient/{who}"},
        "occurrenceDateTime": "2026-03-02",
        "priceOverride": {"value": price, "currency": "USD"},
        "reason": [concept(codes.ICD_10_CM, "I10")],
        **more,
    }


@asynccontextmanager
async def practice(known: Knowledge, uri: str = "memory://", **settings: Any) -> AsyncIterator[Client]:
    """A server with patients `a` and `b` (covered) and `c` (not), prices of 99213 and 93000, us as billing provider."""
    seams = replace(Seams(), clock=Clock("2026-03-02T12:00:00Z"))
    options = {"billing_provider": US, **settings}
    async with serving(known, seams, store=uri, **options) as client:
        await store(client, parties())
        yield client


def parties() -> list[Tree]:
    others: list[Tree] = [
        {"resourceType": "Organization", "id": "us", "name": "Us"},
        {"resourceType": "Organization", "id": "payer", "name": "Payer"},
        {"resourceType": "Practitioner", "id": "pine"},
    ]
    people = [*patient("a"), *patient("b"), *patient("c", covered=False)]
    return [*others, *people, definition("99213", 120.0), definition("93000", 45.5)]


async def assemble(client: Client, **asked: str) -> httpx.Response:
    """POST `$assemble`."""
    parts = [{"name": name, "valueString": value} for name, value in asked.items()]
    body = {"resourceType": "Parameters", **({"parameter": parts} if parts else {})}
    return await client.fhir("POST", "Claim/$assemble", json=body)


def claims(answer: httpx.Response) -> list[Tree]:
    """The claims of an answer."""
    assert answer.status_code == 200, answer.text
    return [each["resource"] for each in answer.json().get("parameter", ()) if each["name"] == "claim"]


def told(answer: httpx.Response) -> list[str]:
    """What the answer's OperationOutcome says."""
    found = [each["resource"] for each in answer.json()["parameter"] if each["name"] == "outcome"]
    return [issue["diagnostics"] for each in found for issue in each["issue"]]


def list_charges(claim: Tree) -> list[str]:
    """The charges that a claim bills."""
    links = [each for item in claim["item"] for each in item["extension"] if each["url"] == codes.CHARGE_ITEM]
    return [each["valueReference"]["reference"] for each in links]


def write_clearinghouse(folder: Path) -> Path:
    """The clearinghouse of the sample clinic in a folder of profiles, its folders beside it; gives the profiles."""
    text = (Path(__file__).resolve().parents[3] / "examples" / "clearinghouse.toml").read_text("utf-8")
    for name in ("in", "done", "failed", "out"):
        (folder / "clearinghouse" / name).mkdir(parents=True)
    (folder / "profiles" / "partners").mkdir(parents=True)
    toml = text.replace("/srv/clearinghouse", str(folder / "clearinghouse"))
    (folder / "profiles" / "partners" / "clearinghouse.toml").write_text(toml, "utf-8")
    return folder / "profiles"


async def read(client: Client, reference: str) -> Tree:
    answer = await client.get(reference)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


__all__ = ["sentence", "store"]
