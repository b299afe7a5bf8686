"""Lists in one resource that multiply: what is computed of them is bounded or linear, however small the body is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fhir_server.search.parameters.composite import MOST_COMBINED
from fhir_server.writes.reference_errors import MOST_NAMED
from tests.conftest import Client
from tests.cost.measuring import JSON, check_ratio
from tests.cost.test_limits import refused

pytestmark = pytest.mark.anyio


def codings(count: int) -> dict[str, Any]:
    return {"coding": [{"system": "urn:example:codes", "code": f"c{number}"} for number in range(count)]}


def observe(count: int) -> list[dict[str, Any]]:
    """Observations whose codes and values have so many codings, in the resource and in a component of it."""
    pair = {"code": codings(count), "valueCodeableConcept": codings(count)}
    head = {"resourceType": "Observation", "status": "final"}
    return [{**head, **pair}, {**head, "code": {"text": "x"}, "component": [pair]}]


async def test_the_codes_and_values_of_an_element_have_a_number_of_combinations(client: Client) -> None:
    """A token has two search forms, with and without its system: 20 codes and 20 values make 1,600 combinations."""
    assert 4 * 20 * 20 < MOST_COMBINED < 4 * 3000 * 3000
    for fits, not_fits in zip(observe(20), observe(3000), strict=True):
        assert (await client.post("/Observation", json=fits, headers=JSON)).status_code == 201
        refused(await client.post("/Observation", json=not_fits, headers=JSON), "combinations")
    found = await client.get("/Observation", params={"combo-code-value-concept": "c19$urn:example:codes|c19"})
    assert found.json()["total"] == 2
    assert "combo-code-value-concept=" in found.json()["link"][0]["url"]


async def test_references_without_target_are_named_up_to_a_number(client: Client) -> None:
    """Each named one with its place, in a time that grows as their number does."""

    async def measure(count: int) -> float:
        members = [{"entity": {"reference": f"Patient/p{number}"}} for number in range(count)]
        group = {"resourceType": "Group", "type": "person", "actual": True, "member": members}
        began = time.process_time()
        answer = await client.post("/Group", json=group, headers=JSON)
        spent = time.process_time() - began
        assert answer.status_code == 422
        *named, rest = answer.json()["issue"]
        assert len(named) == MOST_NAMED
        assert named[0]["expression"] == ["Group.member[0].entity.reference"]
        assert f"{count - MOST_NAMED:,} more references" in rest["diagnostics"]
        return spent

    await check_ratio(lambda _: measure(3000), lambda _: measure(6000), 3)


async def test_deletions_of_what_is_referred_to_are_named_up_to_a_number(client: Client) -> None:
    count = MOST_NAMED + 5
    patients = [
        {
            "resource": {"resourceType": "Patient", "id": f"p{number}"},
            "request": {"method": "PUT", "url": f"Patient/p{number}"},
        }
        for number in range(count)
    ]
    members = [{"entity": {"reference": f"Patient/p{number}"}} for number in range(count)]
    group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}
    stored = {"resource": group, "request": {"method": "PUT", "url": "Group/g"}}
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [*patients, stored]}
    assert (await client.post("/", json=body, headers=JSON)).status_code == 200
    gone = [{"request": {"method": "DELETE", "url": f"Patient/p{number}"}} for number in range(count)]
    answer = await client.post("/", json={"resourceType": "Bundle", "type": "transaction", "entry": gone}, headers=JSON)
    assert answer.status_code == 409
    *named, rest = answer.json()["issue"]
    assert len(named) == MOST_NAMED and "`Group/g` (Group.member[" in named[0]["diagnostics"]
    assert "5 more" in rest["diagnostics"]
