"""`Claim/id/$split` over HTTP: the shipped scenarios, committed once; what is held; what is conserved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, serving
from tests.mappers.billing.split_scenarios import make_view, read_scenarios
from tests.operations.billing.claims_clinic import make_library, put, read, read_state, read_task
from tests.operations.payments.money_clinic import plain, sentence, store
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]
SCENARIOS = read_scenarios()
COMMIT = {"resourceType": "Parameters", "parameter": [{"name": "commit", "valueBoolean": True}]}


def find_scenario(title: str) -> Tree:
    return next(each for each in SCENARIOS if each["title"] == title)


def drop_empty(resource: Tree) -> Tree:
    return {key: value for key, value in resource.items() if value not in ({}, [])}


@asynccontextmanager
async def clinic(known: Knowledge, scenario: Tree, uri: str = "memory://") -> AsyncIterator[Client]:
    """A server with the claim of a scenario, all that it refers to, and the rule set in force."""
    clock = Clock("2026-04-01T03:00:00Z")
    view = make_view(scenario)
    claim = plain(
        {
            "created": "2026-03-31",
            "priority": {"coding": [{"code": "normal"}]},
            **view.claim,
        }
    )
    wanted = {
        place.split("/")[1]
        for item in claim["item"]
        for each in item.get("encounter", ())
        for place in [each["reference"]]
    }
    encounters = [
        {"resourceType": "Encounter", "id": each, "status": "finished", "class": {"code": "AMB"}} for each in wanted
    ]
    places = [{"resourceType": "Location", "id": scenario["facility"]}] if "facility" in scenario else []
    payers = scenario.get("one_rendering")
    settings = (
        [make_library("payer", "claim-payer-settings", {"payer_id": payers, "one_rendering": True})] if payers else []
    )
    rules = make_library("rules", "claim-split-rules", json.loads(scenario["rules"]))
    seams = replace(Seams(), clock=clock)
    async with serving(known, seams, store=uri, time_zone="America/New_York") as client:
        await store(client, [drop_empty(plain(each)) for each in view.resources.values()])
        await store(client, [*encounters, *places, rules, *settings, claim])
        yield client


def parts(answer: httpx.Response, name: str) -> list[Any]:
    """The resources or values of the parameters of a name."""
    assert answer.status_code == 200, answer.text
    found = [each for each in answer.json()["parameter"] if each["name"] == name]
    return [each.get("resource", each.get("valueString", each.get("valueBoolean"))) for each in found]


def total(resources: list[Tree]) -> Decimal:
    return sum(
        (Decimal(str(each["totalNet" if "totalNet" in each else "total"]["value"])) for each in resources), Decimal(0)
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each["title"].replace(" ", "-"))
async def test_what_was_tried_is_what_a_commit_makes_and_a_second_answers(known: Knowledge, scenario: Tree) -> None:
    async with clinic(known, scenario) as client:
        before = await read(client, "Claim/source")
        tried = await client.fhir("POST", "Claim/source/$split")
        for to, name in (("claim", "child"), ("hold", "held"), ("self-pay", "invoice")):
            wanted = [each for each in scenario["expected"] if each["to"] == to]
            assert [total([each]) for each in parts(tried, name)] == [Decimal(each["total"]) for each in wanted]
        assert await read(client, "Claim/source") == before
        made = await client.fhir("POST", "Claim/source/$split", json=COMMIT)
        assert made.json() == tried.json()
        changed = parts(made, "changed") == [True]
        assert (await read(client, "Claim/source"))["status"] == ("cancelled" if changed else "draft")
        everything = [*parts(made, "child"), *parts(made, "held"), *parts(made, "invoice")]
        assert total(everything) == total([before])
        if not changed:
            assert await read_state(client, "Claim/source") == ("held" if parts(made, "held") else "draft")
            return
        assert await read_state(client, "Claim/source") == "split"
        for name, state in (("child", "draft"), ("held", "held")):
            for child in parts(made, name):
                stored = await read(client, f"Claim/{child['id']}")
                assert stored["related"][-1]["claim"] == {"reference": "Claim/source"}
                assert stored["related"][-1]["relationship"]["coding"][0]["code"] == "associated"
                assert await read_state(client, f"Claim/{child['id']}") == state
        again = await client.fhir("POST", "Claim/source/$split", json=COMMIT)
        for name in ("child", "held", "invoice", "explain"):
            strip = [
                {k: v for k, v in e.items() if k != "meta"} if isinstance(e, dict) else e for e in parts(again, name)
            ]
            assert strip == parts(made, name)


async def test_the_patient_pays_what_a_rule_says_on_the_practices_day(known: Knowledge) -> None:
    scenario = next(each for each in SCENARIOS if any(e["to"] == "self-pay" for e in each["expected"]))
    async with clinic(known, scenario) as client:
        (invoice,) = parts(await client.fhir("POST", "Claim/source/$split", json=COMMIT), "invoice")
        stored = await read(client, f"Invoice/{invoice['id']}")
        # 03:00 UTC on 1 April is 31 March in New York
        assert {
            "url": "https://fhir-server.example/StructureDefinition/posting-date",
            "valueDate": "2026-03-31",
        } in stored["extension"]
        assert stored["status"] == "issued"


async def test_children_name_the_version_of_the_rules(known: Knowledge) -> None:
    async with clinic(known, find_scenario("Laboratory on a claim of its own")) as client:
        (first, second) = parts(await client.fhir("POST", "Claim/source/$split"), "child")
        url = "https://fhir-server.example/StructureDefinition/claim-rule-set"
        assert all({"url": url, "valueCanonical": "rules|1"} in each["extension"] for each in (first, second))


async def test_a_rule_that_cannot_be_applied_holds_the_claim_and_says_why(known: Knowledge) -> None:
    async with clinic(known, find_scenario("A rule that names what is not there holds the claim")) as client:
        answer = await client.fhir("POST", "Claim/source/$split", json=COMMIT)
        (outcome,) = parts(answer, "outcome")
        assert "which is not stored" in outcome["issue"][0]["diagnostics"]
        task = await read_task(client, "Claim/source")
        assert "which is not stored" in task["statusReason"]["text"]
        await client.fhir("POST", "Claim/source/$split", json=COMMIT)
        assert (await read_task(client, "Claim/source"))["meta"] == task["meta"]


async def test_what_is_sent_or_cancelled_is_not_split(known: Knowledge) -> None:
    async with clinic(known, find_scenario("Laboratory on a claim of its own")) as client:
        source = await read(client, "Claim/source")
        task = await read_task(client, "Claim/source")
        for state in ("adjudicated",):
            task["businessStatus"]["coding"][0]["code"] = state
            await put(client, task)
            refused = await client.fhir("POST", "Claim/source/$split")
            assert refused.status_code == 409 and "it can become `sent`, `closed`" in sentence(refused)
        task["businessStatus"]["coding"][0]["code"] = "closed"
        await put(client, task)
        assert (await client.fhir("POST", "Claim/source/$split")).status_code == 409
        other = {**source, "id": "other", "status": "cancelled", "identifier": [{"value": "x"}]}
        await put(client, {**other, "status": "draft"})
        await put(client, other)
        refused = await client.fhir("POST", "Claim/other/$split")
        assert refused.status_code == 409, refused.text
        assert (await client.fhir("POST", "Claim/none/$split")).status_code == 404
        assert (await client.fhir("POST", "Claim/source/$split?commit=yes")).status_code == 400


async def test_commits_at_once_make_one_set_of_children(known: Knowledge, store_uri: str) -> None:
    async with clinic(known, find_scenario("Laboratory on a claim of its own"), store_uri) as client:
        answers = await asyncio.gather(*(client.fhir("POST", "Claim/source/$split", json=COMMIT) for _ in range(4)))
        ids = {tuple(each["id"] for each in parts(answer, "child")) for answer in answers}
        assert len(ids) == 1 and len(ids.pop()) == 2
        found = (await client.get("Claim?_total=accurate")).json()
        assert found["total"] == 3
        children = (await client.get("Claim", params={"status": "draft"})).json()
        assert {each["resource"]["meta"]["versionId"] for each in children["entry"]} == {"1"}
