"""Writes that rules are asked about, and decisions: large resources are read beside the event loop."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.writes import apply_rules, state
from tests.conftest import serving
from tests.cost.test_conditional_creates import JSON
from tests.cost.test_large_answers import overhear
from tests.cost.test_limits import refused
from tests.operations.billing.claims_clinic import claims_clinic

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
