"""Value sets and code systems that multiply: what a search looks at has a number, and is looked at beside the loop."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.concepts import Unevaluable
from fhir_server.search.terminology import MAX_CODES, Terminology
from tests.conftest import Client, serving
from tests.cost.measuring import JSON, check_ratio_of_calls
from tests.cost.test_limits import refused
from tests.search.test_terminology import CS, VS, code_system, including, known, value_set

FORM = {"content-type": "application/x-www-form-urlencoded"}


def layers(depth: int, width: int) -> dict[str, Any]:
    """A code system whose every concept has all of the layer above for its parents."""
    concepts = [
        {
            "code": f"{layer}-{number}",
            "property": [{"code": "parent", "valueCode": f"{layer - 1}-{each}"} for each in range(width)]
            if layer
            else [],
        }
        for layer in range(depth)
        for number in range(width)
    ]
    return code_system(concept=concepts)


def test_a_concept_with_many_ways_up_is_reached_once() -> None:
    """Ten concepts in each of forty layers: 10 ** 39 ways."""
    terminology = known(layers(40, 10))
    assert len(terminology.find_below(CS, "0-0")) == 39 * 10 + 1
    assert len(terminology.find_above(CS, "39-9")) == 39 * 10 + 1


@pytest.mark.anyio
async def test_many_includes_cost_what_their_number_says() -> None:
    few, many = (
        value_set(**including(*[{"system": CS, "concept": [{"code": str(number)}]} for number in range(count)]))
        for count in (4000, 8000)
    )
    assert len(known(few).list_codes(VS).listed) == 4000 and len(known(many).list_codes(VS).listed) == 8000
    await check_ratio_of_calls(lambda: known(few).list_codes(VS), lambda: known(many).list_codes(VS), 3)


LARGE = {
    **value_set(**including({"system": CS, "concept": [{"code": str(n)} for n in range(MAX_CODES)]})),
    "url": "urn:l",
}
LONG = [{"url": "http://example.org/e", "valueString": "x" * 100_000}] * 40
EQUAL = {"property": "code", "op": "=", "value": "1"}
ACTIVE = {"compose": {"inactive": False, "include": [{"system": CS, "concept": [{"code": "1"}]}] * 1000}}


@pytest.mark.parametrize(
    "definitions",
    [
        (value_set(**including(*[{"valueSet": ["urn:l"]}] * 1000)), LARGE),
        (value_set(**including({"system": CS, "filter": [EQUAL] * 1000})), layers(2, 200)),
        (value_set(**including(*[{"system": CS}] * 1000)), code_system(*map(str, range(10_000)))),
        (value_set(**ACTIVE), layers(2, 200)),
    ],
    ids=["value sets", "filters", "whole systems", "inactive"],
)
def test_what_a_value_set_looks_at_has_a_number(definitions: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(TooCostly, match="codes would be looked at"):
        known(*definitions).list_codes(VS)


def test_what_the_criteria_of_a_search_name_has_a_number() -> None:
    """The same value set, or concept, in one criterion after the other is read once, and counts each time."""
    terminology = known(LARGE)
    with pytest.raises(TooCostly):
        for _ in range(1000):
            terminology.list_codes("urn:l")
    terminology = known(layers(40, 10))
    with pytest.raises(TooCostly):
        for _ in range(10_000):
            terminology.find_below(CS, "0-0")
    assert Terminology().find_below("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB")


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("a?" * 40 + "a" * 40, "a" * 40),
        ("(a|a)" * 40 + "b", "a" * 40),
        (r"\\*" * 30 + "b", "\\" * 200),
        ("a*a*a*b", "a" * 5000),
        ("a*a*" + "a" * 2000 + "b", "a" * 4000),
        ("(" * 5000 + ")" * 5000, "a"),
        ("a{99999999999999}", "a"),
    ],
)
def test_patterns_that_would_take_very_long_are_refused(pattern: str, code: str) -> None:
    include = {"system": CS, "filter": [{"property": "code", "op": "regex", "value": pattern}]}
    with pytest.raises(Unevaluable, match="cannot be evaluated"):
        known(value_set(**including(include)), code_system(code)).list_codes(VS)


def test_patterns_on_many_values_have_a_number_of_steps() -> None:
    include = {"system": CS, "filter": [{"property": "code", "op": "regex", "value": "a*a*b"}]}
    codes = [f"{'a' * 300}{number}" for number in range(2000)]
    with pytest.raises(TooCostly):
        known(value_set(**including(include)), code_system(*codes)).list_codes(VS)
    assert known(value_set(**including(include)), code_system("aab", "c")).list_codes(VS).listed == {(CS, "aab")}


@pytest.mark.parametrize("pattern", ["LP.*", "A|B|C|D|E|F|G|H", "(AB|CD)-[0-9]+", r"\*[a-z]?x", "[^-]+-[0-9]{1,4}"])
def test_patterns_in_use_are_evaluated(pattern: str) -> None:
    codes = ("LP123", "B", "AB-12", "*x", "1-2")
    include = {"system": CS, "filter": [{"property": "code", "op": "regex", "value": pattern}]}
    assert len(known(value_set(**including(include)), code_system(*codes)).list_codes(VS).listed) in (1, 2)


async def put(client: Client, resource: dict[str, Any]) -> None:
    answer = await client.put(f"/{resource['resourceType']}/x", json={**resource, "id": "x"}, headers=JSON)
    assert answer.status_code == 201, answer.text[:500]


@pytest.mark.anyio
async def test_value_sets_are_evaluated_beside_the_loop(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 50,000 codes is refused, one of 20,000 is searched by; both are read in a thread."""
    threads: list[bool] = []
    real = Terminology.list_codes

    def list_codes(self: Terminology, canonical: str) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(self, canonical)

    monkeypatch.setattr(Terminology, "list_codes", list_codes)
    async with serving(known, store="memory://", max_answer=4_000_000) as client:
        await put(client, LARGE)
        assert (await client.get("/Observation?code:in=urn:l")).json()["total"] == 0
        for count, text in ((50_000, "has 50000 codes"), (1, "max_answer")):
            many = value_set(**including({"system": CS, "concept": [{"code": f"c{n}"} for n in range(count)]}))
            words = {"id": "y", "extension": LONG[: 40 if count == 1 else 1]}
            answer = await client.put("/ValueSet/y", json={**many, **words}, headers=JSON)
            assert answer.status_code in (200, 201)
            refused(await client.get(f"/Observation?code:in={VS}"), text)
            refused(await client.post("/Observation/_search", content=f"code:not-in={VS}", headers=FORM), text)
    assert set(threads) == {False}
