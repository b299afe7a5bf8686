"""The definitions that ship: stored at every start beside a site's own, and listed in profiles/README.md."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.urls import BASE
from fhir_server.operations import OPERATIONS
from tests.conftest import serving

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "profiles" / "README.md").read_text(encoding="utf-8")
PARAMETERS = {
    path.name: json.loads(path.read_bytes())
    for path in (ROOT / "profiles").glob("*.json")
    if path.name not in ("capability.json", "roles.json")
}
VOCABULARIES = (
    "fhir_server.workers.message_codes",
    "mappers.billing.codes",
    "mappers.prescribing.codes",
    "mappers.scheduling.extensions",
    "mappers.scheduling.waitlist",
    "mappers.x12.codes",
    "mappers.hl7v2.context",
    "mappers.hl7v2.outbound.leaves",
    "mappers.hl7v2.rows",
    "mappers.hl7v2.schedules",
    "mappers.hl7v2.stamps",
    "mappers.hl7v2.tasks",
)


def test_the_page_lists_every_search_parameter_as_it_is() -> None:
    rows = re.findall(r"^\| ([\w.-]+\.json) \| `(\w+)\?([\w-]+)` \| (\w+) \|", README, flags=re.MULTILINE)
    told = {name: (base, code, kind) for name, base, code, kind in rows}
    assert told == {name: (each["base"][0], each["code"], each["type"]) for name, each in PARAMETERS.items()}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_search_parameter_has_its_name_everywhere(name: str) -> None:
    parameter = PARAMETERS[name]
    stem = name.removesuffix(".json")
    assert (parameter["id"], parameter["url"]) == (f"practice-{stem}", f"{BASE}/SearchParameter/{stem}")
    page = (ROOT / "docs" / "search" / "practice.md").read_text(encoding="utf-8")
    assert re.search(rf"`{parameter['base'][0]}\?[^`]*\b{parameter['code']}=", page)


def urls(value: Any) -> Iterator[str]:
    if isinstance(value, str) and re.match(f"{BASE}/\\w+/", value):
        yield value.removeprefix(f"{BASE}/")
    elif isinstance(value, dict):
        for each in value.values():
            yield from urls(each)
    elif isinstance(value, tuple | list | frozenset | set):
        for each in value:
            yield from urls(each)


@pytest.mark.parametrize("module", VOCABULARIES)
def test_the_page_lists_every_url_of_our_own(module: str) -> None:
    used = {url for value in vars(importlib.import_module(module)).values() for url in urls(value)}
    assert used, "the module has no URL of ours: does it use fhir_server.fhir.urls?"
    assert {url for url in used if f"`{url}`" not in README} == set()


def test_the_page_lists_every_url_of_the_mapping_tables() -> None:
    tables = [path.read_text(encoding="utf-8") for path in (ROOT / "mappers").rglob("*.tsv")]
    used = {url for text in tables for url in re.findall(rf"{BASE}/([\w/-]+)", text)}
    assert used and {url for url in used if f"`{url}`" not in README} == set()


def test_operations_of_our_own_have_our_base() -> None:
    foreign = [
        each.definition for each in OPERATIONS.values() if not each.definition.startswith((BASE, "http://hl7.org/"))
    ]
    assert foreign == []


CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "Slot?end=2026-03-02": (
        [{"resourceType": "Slot", "id": "a", "schedule": {"reference": "Schedule/s"}, "status": "free",
          "start": "2026-03-01T23:00:00Z", "end": "2026-03-02T00:30:00Z"}],
        "Slot/a",
    ),
    "Appointment?end=gt2026-03-02T09:00:00Z": (
        [{"resourceType": "Appointment", "id": "a", "status": "booked", "start": "2026-03-02T08:30:00Z",
          "end": "2026-03-02T09:30:00Z", "participant": [{"status": "accepted", "actor": {"reference": "Patient/p"}}]}],
        "Appointment/a",
    ),
    "ChargeItem?status=billable": (
        [{"resourceType": "ChargeItem", "id": id, "status": status, "code": {"text": "x"},
          "subject": {"reference": "Patient/p"}} for id, status in (("a", "billable"), ("b", "billed"))],
        "ChargeItem/a",
    ),
    "Coverage?subscriber-id=W1": (
        [{"resourceType": "Coverage", "id": id, "status": "active", "subscriberId": number,
          "beneficiary": {"reference": "Patient/p"}, "payor": [{"reference": "Organization/o"}]}
         for id, number in (("a", "W1"), ("b", "W12"))],
        "Coverage/a",
    ),
    "PaymentReconciliation?payment-date=2026-03-05&payment-identifier=EFT-1&detail-request=Claim/c1": (
        [{"resourceType": "PaymentReconciliation", "id": id, "status": "active", "created": "2026-03-06",
          "paymentDate": "2026-03-05", "paymentAmount": {"value": 1}, "paymentIdentifier": {"value": number},
          "detail": [{"type": {"text": "payment"}, "request": {"reference": "Claim/c1"},
                      "response": {"reference": "ClaimResponse/r1"}}]}
         for id, number in (("a", "EFT-1"), ("b", "EFT-2"))],
        "PaymentReconciliation/a",
    ),
    "PaymentReconciliation?detail-response=ClaimResponse/r1&payment-identifier=EFT-3": (
        [{"resourceType": "PaymentReconciliation", "id": "a", "status": "active", "created": "2026-03-06",
          "paymentDate": "2026-03-05", "paymentAmount": {"value": 1}, "paymentIdentifier": {"value": "EFT-3"},
          "detail": [{"type": {"text": "payment"}, "response": {"reference": "ClaimResponse/r1"}}]}],
        "PaymentReconciliation/a",
    ),
    "Account?guarantor=RelatedPerson/r": (
        [{"resourceType": "Account", "id": id, "status": "active", "guarantor": [{"party": {"reference": party}}]}
         for id, party in (("a", "RelatedPerson/r"), ("b", "Patient/p"))],
        "Account/a",
    ),
    "Task?input=Binary/b&output=Claim/c": (
        [{"resourceType": "Task", "id": id, "status": "completed", "intent": "order",
          "input": [{"type": {"text": "x"}, "valueReference": {"reference": given}},
                    {"type": {"text": "y"}, "valueString": "z"}],
          "output": [{"type": {"text": "x"}, "valueReference": {"reference": "Claim/c"}}]}
         for id, given in (("a", "Binary/b"), ("b", "Binary/other"))],
        "Task/a",
    ),
    "PaymentReconciliation?patient=Patient/p": (
        [{"resourceType": "PaymentReconciliation", "id": id, "status": "active", "created": "2026-03-01",
          "paymentDate": "2026-03-01", "paymentAmount": {"value": 1, "currency": "USD"},
          "extension": [{"url": f"{BASE}/StructureDefinition/payment-patient", "valueReference": {"reference": who}}]}
         for id, who in (("a", "Patient/p"), ("b", "Patient/q"))],
        "PaymentReconciliation/a",
    ),
    "Claim?coverage=Coverage/c": (
        [{"resourceType": "Claim", "id": id, "status": "draft", "use": "claim", "created": "2026-03-01",
          "type": {"coding": [{"code": "professional"}]}, "patient": {"reference": "Patient/p"},
          "provider": {"reference": "Organization/o"}, "priority": {"coding": [{"code": "normal"}]},
          "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": coverage}}]}
         for id, coverage in (("a", "Coverage/c"), ("b", "Coverage/d"))],
        "Claim/a",
    ),
}  # fmt: skip
"""Query → resources, and the one that it finds."""


@pytest.mark.anyio
@pytest.mark.parametrize("query", CASES)
async def test_a_search_by_one_finds_what_it_says(known: Knowledge, store_uri: str, query: str) -> None:
    resources, expected = CASES[query]
    async with serving(known, store=store_uri, references="allow") as client:
        for resource in resources:
            answer = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
            assert answer.status_code == 201, answer.text
        found = (await client.get(query)).json()
        names = dict(each.split("=") for each in query.partition("?")[2].split("&"))
        for name in names:
            assert f"{name}=" in found["link"][0]["url"]
        assert [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in found["entry"]] == [expected]


def test_every_parameter_that_ships_is_searched_by() -> None:
    searched = {
        (query.partition("?")[0], pair.partition("=")[0])
        for query in CASES
        for pair in query.partition("?")[2].split("&")
    }
    assert {(each["base"][0], each["code"]) for each in PARAMETERS.values()} - searched == set()


@pytest.mark.anyio
async def test_a_folder_of_ones_own_is_added_to_what_ships(known: Knowledge, tmp_path: Path) -> None:
    own = {**PARAMETERS["slot-end.json"], "id": "mine", "url": "https://clinic.example/SearchParameter/mine",
           "code": "mine", "base": ["Slot"]}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(own))
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        page = (await client.get("SearchParameter?_count=100")).json()
        assert {each["resource"]["id"] for each in page["entry"]} == {
            "mine", *(each["id"] for each in PARAMETERS.values())
        }  # fmt: skip


@pytest.mark.anyio
async def test_a_restart_makes_no_new_versions(known: Knowledge, tmp_path: Path) -> None:
    for _ in range(2):
        async with serving(known, store=f"sqlite:///{tmp_path}/a.db") as client:
            page = (await client.get("SearchParameter?_count=100")).json()
            assert {each["resource"]["meta"]["versionId"] for each in page["entry"]} == {"1"}
