"""What client programs send and expect beyond R4's examples; docs/clients.md names the programs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

MERGE = {"content-type": "application/merge-patch+json"}
LENIENT = {"prefer": "handling=lenient"}


def patient(number: int, **rest: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": f"p{number}", "name": [{"family": f"Quill{number}"}], **rest}


async def put_patients(client: Client, count: int = 5) -> None:
    for number in range(count):
        assert (await client.put(f"Patient/p{number}", json=patient(number))).status_code == 201


def link(bundle: dict[str, Any], relation: str) -> str | None:
    return next((each["url"] for each in bundle["link"] if each["relation"] == relation), None)


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


async def test_each_entry_of_a_searchset_has_a_full_url(client: Client) -> None:
    """bdl-7 and several clients need one; an outcome has none of its own, so it gets a `urn:uuid:`."""
    for url in ("Patient?nonsense=1", "Patient?__explain=true"):
        found = (await client.fhir("GET", url, headers=LENIENT)).json()
        urls = [entry["fullUrl"] for entry in found["entry"]]
        assert urls and all(re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", url) for url in urls)


@pytest.mark.parametrize("added", ["_count=3", "_format=json&_pretty=true", "_summary=true", "_count=3&_format=json"])
async def test_a_page_link_takes_what_clients_add(client: Client, added: str) -> None:
    await put_patients(client)
    first = (await client.get("Patient?_sort=_id&_count=2")).json()
    following = link(first, "next")
    assert following is not None and link(first, "first") is None
    answer = await client.fhir("GET", f"{following}&{added}")
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert ids(page) == (["p2", "p3", "p4"] if "_count" in added else ["p2", "p3"])
    assert "_sort=_id" in (link(page, "self") or "") and link(page, "first") == link(page, "self")
    if "_summary" in added:
        assert page["entry"][0]["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"
    refused = await client.fhir("GET", f"{following}&family=x")
    assert refused.status_code == 400 and "_count" in refused.text


@pytest.mark.parametrize("url", ["Patient/$everything?_count=2", "Patient/_history?_count=2"])
async def test_other_page_links_take_a_count(client: Client, url: str) -> None:
    await put_patients(client)
    following = link((await client.fhir("GET", url)).json(), "next")
    assert following is not None
    page = (
        await client.fhir(
            "GET", f"{following}&_count=1&_summary=false" if "_history" in url else f"{following}&_count=1"
        )
    ).json()
    assert len(ids(page)) == 1


@pytest.mark.parametrize("url", ["Patient/p0", "Patient/p0/_history/1", "Patient/p0/_history"])
async def test_unknown_parameters_of_reads_follow_the_preference(client: Client, url: str) -> None:
    await put_patients(client, 1)
    strict = await client.fhir("GET", f"{url}?made-up=1")
    assert strict.status_code == 400 and "handling=lenient" in strict.text
    assert (await client.fhir("GET", f"{url}?made-up=1", headers=LENIENT)).status_code == 200


async def test_unknown_parameters_of_writes_stay_refused_but_for_a_file_name(client: Client) -> None:
    await put_patients(client, 1)
    for method, url in (("PUT", "Patient/p0?made-up=1"), ("DELETE", "Patient/p0?made-up=1")):
        body = patient(0) if method == "PUT" else None
        answer = await client.fhir(method, url, json=body, headers=LENIENT)
        assert answer.status_code == 400, url
    text = {"content-type": "text/plain"}
    assert (await client.fhir("POST", "Binary?_filename=a.txt", content=b"x", headers=text)).status_code == 201
    assert (await client.fhir("POST", "Patient?_filename=a", json={"resourceType": "Patient"})).status_code == 400


async def test_a_quantity_with_two_empty_parts_has_any_unit(client: Client) -> None:
    for value, unit in ((7, "kg"), (9, "g"), (10, None)):
        quantity = {"value": value, **({"unit": unit} if unit else {})}
        resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueQuantity": quantity}
        assert (await client.post("Observation", json=resource)).status_code == 201
    found = (await client.fhir("GET", "Observation?value-quantity=gt8.0||")).json()
    assert found["total"] == 2 and "value-quantity=gt8.0||" in (link(found, "self") or "")


async def test_meta_of_a_type_and_of_the_system(client: Client) -> None:
    """resource-operation-meta.html: at type and system level, all that is in use there."""
    # an empty `valueMeta` would break ele-1: HAPI's validator refused it
    assert (await client.fhir("GET", "Patient/$meta")).json() == {"resourceType": "Parameters"}
    tags = [{"system": "urn:t", "code": code} for code in ("a", "b")]
    await client.put("Patient/p0", json=patient(0, meta={"tag": tags}))
    await client.put("Patient/p1", json=patient(1, meta={"tag": tags[:1], "profile": ["http://e.example/p"]}))
    basic = {"resourceType": "Basic", "id": "b", "code": {"text": "x"}, "meta": {"tag": [{"code": "c"}]}}
    await client.put("Basic/b", json=basic)
    [of_type] = (await client.fhir("GET", "Patient/$meta")).json()["parameter"]
    assert sorted(each["code"] for each in of_type["valueMeta"]["tag"]) == ["a", "b"]
    assert of_type["valueMeta"]["profile"] == ["http://e.example/p"]
    [of_all] = (await client.fhir("GET", "$meta")).json()["parameter"]
    assert {"a", "b", "c"} <= {each["code"] for each in of_all["valueMeta"]["tag"]}


async def test_an_entry_without_url_is_what_its_resource_tells(client: Client) -> None:
    """HAPI's Java client sends such entries in `transaction().withResources(…)`, with a `total` of the Bundle."""
    entries: list[dict[str, Any]] = [
        {"resource": patient(0), "request": {"method": "POST"}},
        {"resource": patient(1, id="told"), "request": {"method": "PUT"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "total": 2, "entry": entries}
    answer = await client.fhir("POST", "", json=bundle)
    assert [entry["response"]["status"] for entry in answer.json()["entry"]] == ["201 Created", "201 Created"]
    assert (await client.fhir("GET", "Patient/told")).status_code == 200
    for entry in (
        {"request": {"method": "DELETE"}},
        {"resource": {"resourceType": "Patient"}, "request": {"method": "PUT"}},
    ):
        refused = await client.fhir("POST", "", json={**bundle, "entry": [*entries, entry]})
        [issue] = refused.json()["issue"]
        assert refused.status_code == 400
        assert (issue["code"], issue["expression"]) == ("required", ["Bundle.entry[2].request.url"])


async def test_criteria_in_the_url_of_a_create_make_it_conditional(client: Client) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:x", "value": "1"}]}
    url = "Patient?identifier=urn:x|1&_format=json"
    assert [(await client.fhir("POST", url, json=body)).status_code for _ in range(2)] == [201, 200]
    assert (await client.fhir("POST", "Patient?identifer=urn:x|1", json=body)).status_code == 400
    assert (await client.get("Patient?identifier=urn:x|1")).json()["total"] == 1


async def test_a_merge_patch_follows_rfc_7396(client: Client) -> None:
    await client.put("Patient/p0", json=patient(0, active=True, contact=[{"name": {"text": "A", "family": "B"}}]))
    patch = {"active": None, "birthDate": "1970-01-01", "name": [{"family": "New"}]}
    answer = await client.fhir("PATCH", "Patient/p0", json=patch, headers=MERGE)
    assert answer.status_code == 200
    stored = (await client.get("Patient/p0")).json()
    assert "active" not in stored and stored["name"] == [{"family": "New"}] and stored["birthDate"] == "1970-01-01"
    assert stored["contact"] == [{"name": {"text": "A", "family": "B"}}]
    assert (await client.fhir("PATCH", "Patient/p0", json=[1], headers=MERGE)).status_code in (400, 422)
    assert (await client.fhir("PATCH", "Patient/p0", json={"gender": "x"}, headers=MERGE)).status_code in (400, 422)
    capabilities = (await client.get("metadata")).json()
    assert "application/merge-patch+json" in capabilities["patchFormat"]


async def test_a_misspelt_parameter_is_answered_with_the_one_that_was_meant(client: Client) -> None:
    answer = await client.fhir("GET", "Patient?famly=x")
    text = answer.json()["issue"][0]["diagnostics"]
    assert text.startswith("`Patient` has no search parameter `famly`. Did you mean `family`?")
    assert "`Prefer: handling=lenient`" in text
