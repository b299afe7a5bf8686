"""Rules, decisions and statements: what is large of them is read and written beside the event loop."""

from __future__ import annotations

import threading
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.operations.payments.ledger import SIZE_OF_ONE
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.writes import apply_rules, state
from tests.conftest import serving
from tests.cost.measuring import JSON
from tests.cost.test_large_answers import overhear
from tests.cost.test_limits import refused
from tests.operations.billing.claims_clinic import claims_clinic
from tests.operations.payments.money_clinic import bill, practice

pytestmark = pytest.mark.anyio

LARGE = [{"url": f"http://example.org/e{number % 7}", "valueString": "x" * 1000} for number in range(100)]


def note_threads(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of a function of the module, whether it is on the loop's thread."""
    real, calls = getattr(module, name), []

    def work(*arguments: Any) -> Any:
        calls.append(threading.current_thread() is threading.main_thread())
        return real(*arguments)

    monkeypatch.setattr(module, name, work)
    return calls


async def test_what_a_rule_is_asked_about_is_read_beside_the_loop(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A charge gets its day by the rule: the version before is parsed, and the element set, where others can go on."""
    async with serving(known, store="memory://") as client:
        await client.put("/Patient/p", json={"resourceType": "Patient", "id": "p"}, headers=JSON)
        charge = {
            "resourceType": "ChargeItem",
            "id": "c",
            "status": "planned",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/p"},
        }
        for extension, on_loop in (({"extension": LARGE}, False), ({}, True)):
            await client.put("/ChargeItem/c", json={**charge, **extension}, headers=JSON)
            with monkeypatch.context() as patch:
                parsed = overhear(apply_rules, patch)
                settings = note_threads(apply_rules, "set_elements", patch)
                answer = await client.put("/ChargeItem/c", json={**charge, **extension, "status": "billable"})
            assert answer.status_code == 200 and "enteredDate" in answer.json()
            assert [each for _, each in parsed] == settings == [on_loop]


async def test_what_a_decision_reads_is_parsed_beside_the_loop(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        large = {**claim, "extension": [*claim.get("extension", []), *LARGE]}
        assert (await client.put("/Claim/c00000", json=large, headers=JSON)).status_code == 200
        parsed = overhear(state, monkeypatch)
        assert (await client.post("/Claim/c00000/$scrub")).status_code == 200
    assert {on_loop for size, on_loop in parsed if size >= THREAD_FROM} == {False}
    assert {on_loop for size, on_loop in parsed if size < THREAD_FROM} == {True}


async def test_what_a_decision_reads_has_a_size(known: Knowledge) -> None:
    async with claims_clinic(known, max_answer=50_000) as (client, (claim,)):
        assert (await client.post("/Claim/c00000/$scrub")).status_code == 200
        coverage = {
            "resourceType": "Coverage",
            "status": "cancelled",
            "beneficiary": claim["patient"],
            "payor": [claim["patient"]],
            "extension": LARGE[:10],
        }
        for _ in range(6):
            assert (await client.post("/Coverage", json=coverage, headers=JSON)).status_code == 201
        refused(await client.post("/Claim/c00000/$scrub"), "max_answer")


@pytest.mark.parametrize(
    ("module", "name", "url", "accept"),
    [
        ("ledger", "_write_csv", "Account/a/$ledger", "text/csv"),
        ("ledger", "_to_parameters", "Account/a/$ledger", "application/fhir+json"),
        ("ledger", "_balance", "Patient/a/$balance", "application/fhir+json"),
        ("statement", "make_statement", "Account/a/$statement", "text/plain"),
        ("statement", "write_statement", "Account/a/$statement", "text/plain"),
        ("statement", "draw_statement", "Account/a/$statement", "application/pdf"),
    ],
)
async def test_ledgers_and_statements_of_many_entries_are_written_beside_the_loop(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch, module: str, name: str, url: str, accept: str
) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", "50")
        found = (await client.get("/ChargeItem?_count=1")).json()["entry"][0]["resource"]
        charge = {key: found[key] for key in ("resourceType", "code", "subject", "account") if key in found}
        monkeypatch.setattr("fhir_server.requests.long_work.THREAD_FROM", 100 * SIZE_OF_ONE)
        for count, on_loop in ((1, True), (100, False)):
            entries = [
                {"resource": {**charge, "status": "billable"}, "request": {"method": "POST", "url": "ChargeItem"}}
            ] * count
            body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            assert (await client.post("/", json=body, headers=JSON)).status_code == 200
            with monkeypatch.context() as patch:
                calls = note_threads(import_module(f"fhir_server.operations.payments.{module}"), name, patch)
                answer = await client.get(f"/{url}", headers={"accept": accept})
            assert answer.status_code == 200, answer.text[:500]
            assert calls == [on_loop]
