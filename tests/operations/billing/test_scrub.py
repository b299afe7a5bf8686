"""`Claim/$scrub` over HTTP: findings on FHIR paths and X12 loops, the state of the claim, the settings of payers."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.operations.billing.claims_clinic import (
    claims_clinic,
    make_library,
    put,
    read,
    read_state,
    read_task,
    rules_of,
)
from tests.operations.payments.money_clinic import sentence

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]


async def test_a_clean_claim_becomes_ready_and_one_with_an_error_is_held(known: Knowledge, store_uri: str) -> None:
    async with claims_clinic(known, store_uri) as (client, _):
        clean = await client.fhir("POST", "Claim/c00000/$scrub")
        assert clean.status_code == 200 and rules_of(clean.json()) == [], clean.text
        assert await read_state(client, "Claim/c00000") == "ready"
        patient = await read(client, "Patient/a00000")
        await put(client, {key: value for key, value in patient.items() if key != "birthDate"})
        faulty = (await client.fhir("POST", "Claim/c00000/$scrub")).json()
        (issue,) = [each for each in faulty["issue"] if each["severity"] == "error"]
        # 837P TR3 005010X222A1: DMG02 of 2010BA (subscriber) is the birth date
        assert issue["location"] == ["2010BA/DMG02"]
        assert issue["expression"] == ["Claim.patient.resolve().birthDate"]
        assert issue["details"]["coding"][0]["code"] == "patient-birth-date"
        assert "Enter the whole date" in issue["diagnostics"]
        assert await read_state(client, "Claim/c00000") == "held"
        task = await read_task(client, "Claim/c00000")
        assert "patient-birth-date" in task["statusReason"]["text"]
        await client.fhir("POST", "Claim/c00000/$scrub")
        assert (await read_task(client, "Claim/c00000"))["meta"] == task["meta"]
        await put(client, patient)
        await client.fhir("POST", "Claim/c00000/$scrub")
        assert await read_state(client, "Claim/c00000") == "ready"


async def test_a_claim_of_the_request_is_judged_and_not_stored(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        other = {**claim, "id": "new", "identifier": [{"system": "urn:x", "value": "7"}], "item": claim["item"][:1]}
        other["item"] = [{key: value for key, value in claim["item"][0].items() if key != "id"}]
        bare = await client.fhir("POST", "Claim/$scrub", json=other)
        assert "duplicate-claim" in rules_of(bare.json()) and "total" in rules_of(bare.json())
        assert "control-number" not in rules_of(bare.json()) and "line-control-number" not in rules_of(bare.json())
        wrapped = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": other}]}
        assert (await client.fhir("POST", "Claim/$scrub", json=wrapped)).json() == bare.json()
        assert (await client.fhir("GET", "Claim/new")).status_code == 404
        assert await read_state(client, "Claim/c00000") == "draft"


@pytest.mark.parametrize(
    ("url", "body", "status", "text"),
    [
        ("Claim/$scrub", None, 400, "needs a Claim"),
        ("Claim/$scrub", {"resourceType": "Patient"}, 400, "needs a Claim"),
        ("Claim/$scrub", {"resourceType": "Claim", "item": 3}, 400, ""),
        ("Claim/none/$scrub", None, 404, "There is no `Claim/none`"),
        ("Claim/c00000/$scrub?now=1", None, 400, "no parameter `now`"),
    ],
)
async def test_what_cannot_be_judged_says_why(
    known: Knowledge, url: str, body: Tree | None, status: int, text: str
) -> None:
    async with claims_clinic(known) as (client, _):
        answer = await client.fhir("POST", url, json=body)
        assert (answer.status_code, text in sentence(answer)) == (status, True), answer.text


async def test_a_cancelled_claim_is_not_judged(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        await put(client, {**claim, "status": "cancelled"})
        answer = await client.fhir("POST", "Claim/c00000/$scrub")
        assert answer.status_code == 422 and "`cancelled`" in sentence(answer)


async def test_the_settings_of_a_payer_are_in_force_as_soon_as_they_are_stored(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        coverage = await read(client, claim["insurance"][0]["coverage"]["reference"])
        payer = (await read(client, coverage["payor"][0]["reference"]))["identifier"][0]["value"]
        settings = {"payer_id": payer, "member_id_pattern": "[A-Z]{3}"}
        stored = await put(client, make_library("plan", "claim-payer-settings", settings))
        system = "https://fhir-server.example/CodeSystem/library-kind"
        assert stored["type"]["coding"] == [{"system": system, "code": "claim-payer-settings"}]
        found = (await client.fhir("POST", "Claim/c00000/$scrub")).json()
        assert rules_of(found) == ["member-id-pattern"]
        await put(
            client, make_library("plan", "claim-payer-settings", {**settings, "rules": {"member-id-pattern": "off"}})
        )
        assert rules_of((await client.fhir("POST", "Claim/c00000/$scrub")).json()) == []


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("claim-payer-settings", {"member_id_pattern": "x"}, "`payer_id` is missing"),
        ("claim-payer-settings", {"payer_id": "1", "member_id_pattern": "("}, "no regular expression"),
        ("claim-payer-settings", {"payer_id": "1", "rules": {"no-such": "off"}}, "no scrub rule `no-such`"),
        ("claim-payer-settings", {"payer_id": "1", "colour": "red"}, "`colour` is wrong"),
        ("claim-split-rules", {"name": "a", "rules": [{"id": "x"}]}, "`rules[0].because` is wrong"),
        (
            "claim-split-rules",
            {"name": "a", "rules": [{"id": "x", "because": "b", "then": {"action": "split", "key": "moon"}}]},
            "there is no fact `moon`",
        ),
    ],
)
async def test_a_library_with_a_fault_is_refused_at_every_door(
    known: Knowledge, kind: str, content: Tree, text: str
) -> None:
    async with claims_clinic(known) as (client, _):
        library = make_library("wrong", kind, content)
        entry = {"resource": library, "request": {"method": "POST", "url": "Library"}}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        for answer in (
            await client.fhir("PUT", "Library/wrong", json=library),
            await client.fhir("POST", "", json=bundle),
        ):
            assert answer.status_code == 422 and text in sentence(answer), answer.text


async def test_a_second_active_library_for_the_same_owner_is_refused(known: Knowledge, store_uri: str) -> None:
    async with claims_clinic(known, store_uri) as (client, _):
        rules = {"name": "riverbend", "provider": "Organization/o00000"}
        await put(client, make_library("a", "claim-split-rules", rules))
        second = make_library("b", "claim-split-rules", rules)
        refused = await client.fhir("PUT", "Library/b", json=second)
        assert refused.status_code == 409 and "`Library/a` is the active one for Organization/o00000" in sentence(
            refused
        )
        await put(client, {**second, "status": "draft"})
        await put(client, make_library("c", "claim-split-rules", {"name": "general"}))
        both = [
            {"resource": make_library(each, "claim-payer-settings", {"payer_id": "90001"}),
             "request": {"method": "PUT", "url": f"Library/{each}"}}
            for each in "xy"
        ]  # fmt: skip
        answer = await client.fhir("POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": both})
        assert answer.status_code == 409 and "active one for payer 90001" in sentence(answer)
        assert (await client.fhir("GET", "Library/x")).status_code == 404


async def test_a_claim_that_is_too_large_is_refused_before_it_is_judged(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        lines = [{**claim["item"][0], "id": f"L{n}", "sequence": n} for n in range(1, 502)]
        answer = await client.fhir("POST", "Claim/$scrub", json={**claim, "item": lines})
        assert answer.status_code == 422 and "501 entries in `item`" in sentence(answer), answer.text
        assert (await client.fhir("POST", "Claim/$scrub", json={**claim, "item": lines[:500]})).status_code == 200
        await put(client, {**claim, "item": lines})
        assert (await client.fhir("POST", "Claim/c00000/$split")).status_code == 422
        told = await client.fhir("POST", "Claim/c00000/$transmit")
        assert told.status_code == 200 and "501 entries in `item`" in told.text
