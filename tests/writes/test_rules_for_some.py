"""A rule that allows most new resources is asked about the others alone, and about every change and deletion."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.operations.rules import list_rules
from fhir_server.settings import Settings
from fhir_server.writes.rules import ALLOWED, Change, Rule, RuleForSome, Ruling, concerns_new, join_rules
from fhir_server.writes.state import State
from tests.conftest import Client, serving
from tests.shared import shared_path
from tests.writes.test_rules import Seen, basic, bundle, entry, forbid, text_of

pytestmark = pytest.mark.anyio


def is_odd(tree: Any) -> bool:
    return text_of(tree) != "plain"


def count_pending(seen: list[int]) -> Rule:
    """Notes how many resources the plan writes."""

    async def rule(state: State, change: Change) -> Ruling:
        seen.append(len(state.list_pending(frozenset({"Basic"}))))
        return ALLOWED

    return rule


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def numbers() -> list[int]:
    return []


@pytest.fixture
async def ruled(known: Knowledge, store_uri: str, seen: Seen, numbers: list[int]) -> AsyncIterator[Client]:
    tables = ({"Basic": RuleForSome(forbid(seen), is_odd)}, {"Basic": RuleForSome(count_pending(numbers), is_odd)})
    async with serving(known, Seams(rules=join_rules(*tables)), store=store_uri) as client:
        yield client


async def test_only_new_resources_that_concern_nobody_are_not_asked_about(ruled: Client, seen: Seen) -> None:
    assert (await ruled.put("Basic/b", json=basic("plain", "b"))).status_code == 201
    assert seen == []
    assert (await ruled.put("Basic/b", json={**basic("plain", "b"), "language": "en"})).status_code == 200
    assert (await ruled.delete("Basic/b")).status_code == 204
    assert seen == [("PUT", "plain", "plain"), ("DELETE", "plain", None)]
    assert (await ruled.put("Basic/b", json=basic("plain", "b"))).status_code == 201
    assert len(seen) == 2
    assert (await ruled.post("Basic", json=basic("odd"))).status_code == 201
    assert (await ruled.post("Basic", json=basic("no"))).status_code == 422
    assert seen[2:] == [("POST", None, "odd"), ("POST", None, "no")]


async def test_in_a_transaction_the_others_are_seen(ruled: Client, seen: Seen, numbers: list[int]) -> None:
    texts = ("plain", "odd", "plain", "plain")
    entries = [entry("PUT", f"Basic/b{number}", basic(text, f"b{number}")) for number, text in enumerate(texts)]
    assert (await ruled.post("", json=bundle("transaction", *entries))).status_code == 200
    assert seen == [("PUT", None, "odd")] and numbers == [4]
    entries[2]["resource"]["code"]["text"] = "no"
    answer = await ruled.post("", json=bundle("transaction", *entries))
    assert answer.status_code == 422 and answer.json()["issue"][0]["expression"][0].startswith("Bundle.entry[2]")


def test_of_several_rules_one_that_is_always_asked_decides() -> None:
    async def rule(state: State, change: Change) -> Ruling:
        return ALLOWED

    some = RuleForSome(rule, is_odd)
    plain, odd = basic("plain"), basic("odd")
    joined = join_rules({"Basic": some}, {"Basic": rule})["Basic"]
    assert concerns_new(joined, plain)
    other = RuleForSome(rule, lambda tree: "language" in tree)
    both = join_rules({"Basic": some}, {"Basic": other})["Basic"]
    assert [concerns_new(both, each) for each in (plain, odd, {**plain, "language": "en"})] == [False, True, True]


def list_resources() -> Iterator[dict[str, Any]]:
    """Every resource of the official examples and of Synthea's bundles."""
    for file in sorted(shared_path("data/r4-examples").glob("*.json")):
        yield json.loads(file.read_bytes())
    for file in sorted(shared_path("data/synthea").glob("*.json"))[:8]:
        yield from (each["resource"] for each in json.loads(file.read_bytes())["entry"])


@pytest.mark.parametrize("type", ["Claim", "Encounter"])
async def test_a_rule_says_nothing_of_what_it_is_not_asked_about(type: str) -> None:
    """With a state from which nothing can be read: what is not asked about may depend on no other resource."""
    settings = Settings(encounter_moves_appointment=True)
    nothing = cast(State, SimpleNamespace(context=SimpleNamespace(settings=settings)))
    rule = list_rules(settings)[type]
    assert isinstance(rule, RuleForSome)
    asked = unasked = 0
    for resource in list_resources():
        if resource["resourceType"] == type:
            if concerns_new(rule, resource):
                asked += 1
            else:
                assert await rule.rule(nothing, Change("POST", type, "x", None, resource)) == ALLOWED
                unasked += 1
    assert unasked > 50 and (asked or type == "Claim")
