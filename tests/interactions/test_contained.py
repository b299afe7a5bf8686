"""Searches among contained resources over HTTP; the rules themselves are rows of tests/search/cases/contained.yaml."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_server.interactions import contained
from fhir_server.interactions.search import search
from fhir_server.requests.request import Request
from fhir_server.search.query import EVERYTHING, Clause, Equals
from fhir_server.security.policy import AllowAll, Principal
from tests.conftest import Client

pytestmark = pytest.mark.anyio

WRITTEN = (
    b'{"resourceType":"Medication","id":"m1", "code":{"text":"a"},'
    b'"amount":{"numerator":{"value":1.10},"denominator":{"value":1}}}'
)


async def put(client: Client, id: str, status: str = "active", inside: bytes = WRITTEN) -> None:
    body = (
        b'{"resourceType":"MedicationRequest","id":"%b","status":"%b","intent":"order","subject":{"reference":"Patient/p"},'
        b'"contained":[%b],"medicationReference":{"reference":"#m1"}}' % (id.encode(), status.encode(), inside)
    )
    response = await client.fhir(
        "PUT", f"/MedicationRequest/{id}", content=body, headers={"content-type": "application/fhir+json"}
    )
    assert response.status_code == 201, response.text


@pytest.fixture
async def pharmacy(client: Client) -> Client:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    await client.fhir("PUT", "/Medication/own", json={"resourceType": "Medication", "id": "own", "code": {"text": "o"}})
    for id in ("1", "2", "3"):
        await put(client, id, "active" if id != "3" else "stopped")
    return client


async def bundle(client: Client, url: str) -> dict[str, Any]:
    response = await client.fhir("GET", url)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def urls(found: dict[str, Any], mode: str = "match") -> list[str]:
    entries = found.get("entry", [])
    return [each["fullUrl"].removeprefix("http://test/fhir/") for each in entries if each["search"]["mode"] == mode]


async def test_the_full_url_has_the_fragment_and_the_text_is_as_written(pharmacy: Client) -> None:
    response = await pharmacy.fhir("GET", "/Medication?_contained=true&_containedType=contained&_count=1")
    assert urls(response.json()) == ["MedicationRequest/1#m1"]
    assert b'"resource":' + WRITTEN + b"," in response.content
    assert response.json()["link"][0]["url"].endswith("/Medication?_contained=true&_containedType=contained&_count=1")


async def test_pages_and_totals(pharmacy: Client) -> None:
    url = "/Medication?_contained=both&_containedType=contained&_count=2&_total=accurate&_sort=-_id"
    page = await bundle(pharmacy, url)
    seen = urls(page)
    while following := [link["url"] for link in page["link"] if link["relation"] == "next"]:
        assert page["total"] == 4
        page = await bundle(pharmacy, following[0])
        seen += urls(page)
    assert seen == ["Medication/own", "MedicationRequest/1#m1", "MedicationRequest/2#m1", "MedicationRequest/3#m1"]
    assert (await bundle(pharmacy, "/Medication?_contained=true&_summary=count"))["total"] == 3
    assert (await bundle(pharmacy, "/Medication?_contained=both"))["total"] == 4
    assert "total" not in await bundle(pharmacy, "/Medication?_contained=both&_total=none")


async def test_parts_of_what_is_returned(pharmacy: Client) -> None:
    found = await bundle(pharmacy, "/Medication?_contained=true&_containedType=contained&_elements=code&_count=1")
    resource = found["entry"][0]["resource"]
    assert resource.keys() == {"resourceType", "id", "code", "meta"}
    assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"
    found = await bundle(pharmacy, "/Medication?_contained=true&_elements=status&_count=1")
    assert {"contained", "amount"}.isdisjoint(found["entry"][0]["resource"])
    refused = await pharmacy.fhir("GET", "/Medication?_contained=true&_containedType=contained&_elements=subject")
    assert refused.status_code == 400


async def test_includes_of_containers(pharmacy: Client) -> None:
    found = await bundle(
        pharmacy, "/Medication?_contained=true&_include=MedicationRequest:subject&_revinclude=Provenance:target"
    )
    assert urls(found) == ["MedicationRequest/1", "MedicationRequest/2", "MedicationRequest/3"]
    assert urls(found, "include") == ["Patient/p"]


async def test_explained(pharmacy: Client) -> None:
    found = await bundle(pharmacy, "/Medication?_contained=both&code:text=a&__explain=true")
    (outcome,) = (each["resource"] for each in found["entry"] if each["search"]["mode"] == "outcome")
    sentences = [issue["diagnostics"] for issue in outcome["issue"]]
    assert "3 containers were looked into; they give 3 matches." in sentences
    assert any(each.startswith("`code:text=a` on Medication is a token parameter") for each in sentences)


async def test_too_many_containers_cost_too_much(pharmacy: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contained, "MOST_CONTAINERS", 2)
    response = await pharmacy.fhir("GET", "/Medication?_contained=true")
    assert (response.status_code, response.json()["issue"][0]["code"]) == (413, "too-costly")
    assert "More than 2 resources contain a `Medication`" in response.text
    monkeypatch.setattr(contained, "MOST_CONTAINERS", 3)
    monkeypatch.setattr(contained, "_AT_ONCE", 2)
    assert (await bundle(pharmacy, "/Medication?_contained=true"))["total"] == 3


async def test_what_cannot_look_into_containers_says_so(pharmacy: Client) -> None:
    response = await pharmacy.fhir("GET", "/Patient/p/MedicationRequest?_contained=true")
    assert response.status_code == 400
    assert "no compartment of their own" in response.text
    entry = {"request": {"method": "GET", "url": "Medication?_contained=true"}}
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
    answered = (await pharmacy.fhir("POST", "/", json=batch)).json()
    assert answered["entry"][0]["resource"]["total"] == 3
    refused = await pharmacy.fhir("POST", "/", json={**batch, "type": "transaction"})
    assert refused.status_code == 400
    assert "A transaction does not look into containers" in refused.text
    refused = await pharmacy.fhir("GET", "/Observation/$lastn?patient=p&code=x&_contained=true")
    assert "does not look into containers" in refused.text


class ActiveOnly(AllowAll):
    """Requests that are active, and everything else."""

    def restricts(self, principal: Principal) -> bool:
        return True

    def restriction(self, principal: Principal, type: str) -> Clause:
        if type != "MedicationRequest":
            return EVERYTHING
        return Equals("status", ("active\x1f",))


async def test_a_policy_restricts_the_containers(pharmacy: Client) -> None:
    context = replace(pharmacy.server.context, policy=ActiveOnly())
    request = Request("GET", ("Medication",), (("_contained", "true"),), base="http://test/fhir")
    answer = await search(context, request)
    assert b'"total":2' in answer.body
    assert b"MedicationRequest/3" not in answer.body


async def test_one_without_an_id_is_named_by_its_place(pharmacy: Client) -> None:
    nameless = b'{"resourceType":"Flag","status":"active","code":{"text":"f"},"subject":{"reference":"#"}}'
    await put(pharmacy, "4", inside=WRITTEN + b"," + nameless)
    found = await bundle(pharmacy, "/Flag?_contained=true&_containedType=contained")
    assert urls(found) == ["MedicationRequest/4#contained.1"]


async def test_a_chain_to_more_than_is_indexed_is_refused(client: Client) -> None:
    """Contained members that refer to each other in a circle: followed three times; without them all is answered."""

    def member(id: str, of: str) -> dict[str, Any]:
        code = {"coding": [{"code": id}]}
        refers = [{"reference": f"#{of}"}]
        return {"resourceType": "Observation", "id": id, "status": "final", "code": code, "hasMember": refers}

    circle = member("circle", "a") | {"contained": [member("a", "b"), member("b", "a")]}
    assert (await client.fhir("PUT", "/Observation/circle", json=circle)).status_code == 201
    step = "has-member:Observation."
    assert urls(await bundle(client, f"/Observation?{step * 3}code=a")) == ["Observation/circle"]
    refused = await client.fhir("GET", f"/Observation?{step * 4}code=b")
    issue = refused.json()["issue"][0]
    assert (refused.status_code, issue["code"]) == (413, "too-costly")
    assert "3 references in a row" in issue["diagnostics"]
    await client.fhir("DELETE", "/Observation/circle")
    assert urls(await bundle(client, f"/Observation?{step * 4}code=b")) == []
