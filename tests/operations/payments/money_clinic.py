"""An invented practice for the tests of money over HTTP: patients, payers, charges and claims, a clock that is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, serving
from tests.mappers.billing.histories import Practice
from tests.operations.scheduling.booking_clinic import Clock

Tree = dict[str, Any]

REMITTANCE = "https://fhir-server.example/identifier/remittance"
POSTING_DATE = "https://fhir-server.example/StructureDefinition/posting-date"


def plain(value: Any) -> Any:
    """A resource with its amounts as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


def parties() -> list[Tree]:
    """Patients a and b with an Account each, payers 1 and 2 with the numbers 90001 and 90002, a provider, a place."""
    payers: list[Tree] = [
        {
            "resourceType": "Organization",
            "id": f"payer{n}",
            "name": f"Plan {n}",
            "identifier": [{"system": "https://fhir-server.example/identifier/payer", "value": f"9000{n}"}],
        }
        for n in (1, 2)
    ]
    people: list[Tree] = [{"resourceType": "Patient", "id": each} for each in "ab"]
    accounts: list[Tree] = [
        {"resourceType": "Account", "id": each, "status": "active", "subject": [{"reference": f"Patient/{each}"}]}
        for each in "ab"
    ]
    others: list[Tree] = [
        {"resourceType": "Practitioner", "id": "pine"},
        {"resourceType": "Location", "id": "north"},
        {"resourceType": "Organization", "id": "us", "name": "Us"},
    ]
    return [*payers, *others, *people, *accounts]


def complete(resource: Tree) -> Tree:
    """A resource of the practice in memory with what base R4 asks for besides."""
    more: Tree = {}
    if resource["resourceType"] == "Coverage":
        more = {"status": "active", "beneficiary": {"reference": "Patient/a"}, "subscriberId": "M1"}
    if resource["resourceType"] == "Claim":
        priority = {"coding": [{"code": "normal"}]}
        team = [{**each, "role": {"coding": [{"code": "primary"}]}} for each in resource["careTeam"]]
        us = {"reference": "Organization/us"}
        more = {"use": "claim", "provider": us, "priority": priority, "careTeam": team}
    return plain({**resource, **more})  # type: ignore[no-any-return]


async def store(client: Client, resources: Iterable[Tree]) -> None:
    """Store resources under their ids as one transaction."""
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
        for each in resources
    ]
    answer = await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200, answer.text


async def bill(client: Client, when: str, number: str, *charges: str, payers: int = 1, **more: Any) -> None:
    """Charges entered on a day of 2026, and their claim, as `Practice.bill` makes them."""
    practice = Practice()
    practice.bill(when, number, *charges, payers=payers)
    made = [complete(each) for each in practice.resources.values()]
    await store(client, [{**each, **more} if each["resourceType"] == "Claim" else each for each in made])


@asynccontextmanager
async def practice(
    known: Knowledge, uri: str = "memory://", clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Client]:
    """A server with the parties of the practice; today is 2 March 2026 unless a clock says otherwise."""
    clock = clock or Clock("2026-03-02T12:00:00Z")
    async with serving(known, replace(Seams(), clock=clock), store=uri, **settings) as client:
        await store(client, parties())
        yield client


def body(**values: Any) -> Tree:
    """Parameters: numbers as decimals, texts as strings (those that are empty left out), resources as such."""
    parts: list[Tree] = []
    for name, value in values.items():
        if value == "":
            continue
        if isinstance(value, dict):
            parts.append({"name": name, "resource": value})
        elif isinstance(value, str):
            parts.append({"name": name, "valueString": value})
        else:
            parts.append({"name": name, "valueDecimal": value})
    return {"resourceType": "Parameters", "parameter": parts}


async def call(client: Client, url: str, **values: Any) -> httpx.Response:
    """POST an operation."""
    return await client.fhir("POST", url, json=body(**values))


async def read_balance(client: Client, patient: str, date: str = "") -> dict[str, Any]:
    """Amounts of `$balance` by name; open amounts of payers by their reference."""
    answer = await client.fhir("GET", f"Patient/{patient}/$balance", params={"date": date} if date else {})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = {}
    for each in answer.json()["parameter"]:
        if "valueMoney" in each:
            found[each["name"]] = Decimal(str(each["valueMoney"]["value"]))
        elif "part" in each:
            found[each["part"][0]["valueString"]] = Decimal(str(each["part"][1]["valueMoney"]["value"]))
    return found


def sentence(answer: httpx.Response) -> str:
    """What an OperationOutcome says."""
    return " ".join(each["diagnostics"] for each in answer.json()["issue"])
