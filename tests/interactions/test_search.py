"""search over HTTP; the rules themselves are rows of tests/search/cases."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio


async def put(client: Client, type: str, id: str, **more: Any) -> None:
    response = await client.fhir("PUT", f"/{type}/{id}", json={"resourceType": type, "id": id, **more})
    assert response.status_code in (200, 201), response.text


async def observation(client: Client, id: str, **more: Any) -> None:
    await put(client, "Observation", id, status="final", code={"text": "x"}, **more)


def ids(bundle: dict[str, Any], mode: str = "match") -> list[str]:
    return [each["resource"]["id"] for each in bundle.get("entry", []) if each["search"]["mode"] == mode]


async def test_a_reference_by_identifier_alone_is_not_missing(client: Client) -> None:
    await observation(client, "by-identifier", subject={"identifier": {"value": "1"}})
    await observation(client, "nobody")
    found = (await client.fhir("GET", "/Observation?subject:missing=true")).json()
    assert ids(found) == ["nobody"]
    assert found["link"][0]["url"] == "http://test/fhir/Observation?subject:missing=true"


async def test_self_link_tells_the_search_and_post_equals_get(client: Client) -> None:
    await put(client, "Patient", "a", name=[{"family": "O'Neil, Jr|$"}])
    get = (await client.fhir("GET", "/Patient", params={"family": "o'neil\\, jr\\|\\$", "_sort": "-birthdate"})).json()
    post = (
        await client.fhir("POST", "/Patient/_search?_sort=-birthdate", data={"family": "o'neil\\, jr\\|\\$"})
    ).json()
    assert ids(get) == ids(post) == ["a"]
    again = await client.fhir("GET", get["link"][0]["url"])
    assert ids(again.json()) == ["a"]
    wrong = await client.fhir("POST", "/Patient/_search", json={"family": "x"})
    assert wrong.status_code == 415


async def test_pages_lead_through_all_matches_and_hide_the_terms_of_a_post(client: Client) -> None:
    for number in range(7):
        await put(
            client, "Patient", f"p{number}", name=[{"family": "Secretname"}], birthDate=f"19{60 + number // 2}-01-01"
        )
    page = (
        await client.fhir(
            "POST", "/Patient/_search", data={"family": "Secretname", "_sort": "-birthdate", "_count": "3"}
        )
    ).json()
    seen, urls = ids(page), []
    while following := [link["url"] for link in page["link"] if link["relation"] == "next"]:
        urls += following
        page = (await client.fhir("GET", following[0])).json()
        seen += ids(page)
    assert seen == ["p6", "p4", "p5", "p2", "p3", "p0", "p1"]
    assert len(urls) == 2
    assert not any("ecretname" in url for url in urls)


async def test_totals(client: Client) -> None:
    for number in range(3):
        await put(client, "Patient", f"p{number}")
    assert (await client.fhir("GET", "/Patient")).json()["total"] == 3
    assert "total" not in (await client.fhir("GET", "/Patient?_count=2")).json()
    assert (await client.fhir("GET", "/Patient?_count=2&_total=accurate")).json()["total"] == 3
    count = (await client.fhir("GET", "/Patient?_summary=count")).json()
    assert (count["total"], "entry" in count) == (3, False)
    zero = (await client.fhir("GET", "/Patient?_count=0")).json()
    assert (zero["total"], "entry" in zero) == (3, False)


async def test_includes_and_compartments(client: Client) -> None:
    await put(client, "Organization", "org", name="x")
    await put(client, "Patient", "a", managingOrganization={"reference": "Organization/org"})
    await put(client, "Patient", "b")
    await observation(client, "o1", subject={"reference": "Patient/a"})
    await observation(client, "o2", subject={"reference": "Patient/b"})
    url = "/Observation?_id=o1&_include=Observation:subject&_include:iterate=Patient:organization"
    found = (await client.fhir("GET", url)).json()
    assert (ids(found), ids(found, "include")) == (["o1"], ["a", "org"])
    reverse = (await client.fhir("GET", "/Patient?_id=b&_revinclude=Observation:subject")).json()
    assert (ids(reverse), ids(reverse, "include")) == (["b"], ["o2"])
    assert ids((await client.fhir("GET", "/Patient/a/Observation")).json()) == ["o1"]
    assert set(ids((await client.fhir("GET", "/Patient/a/*")).json())) == {"o1", "a"}
    assert ids((await client.fhir("POST", "/Patient/b/Observation/_search")).json()) == ["o2"]
    assert (await client.fhir("GET", "/Organization/org/Patient")).status_code == 404
    assert (await client.fhir("GET", "/Patient/*/Observation")).status_code == 404
    for types in ("Organization", "Observation,Organization"):
        outside = await client.fhir("GET", f"/Patient/a/*?_type={types}")
        assert outside.status_code == 400
        assert "not in the Patient compartment" in outside.json()["issue"][0]["diagnostics"]


async def test_an_include_shows_the_version_that_is_referred_to(client: Client) -> None:
    """R4: "If a resource has a reference that is versioned and _include is performed, the specified version SHOULD be
    provided." (https://hl7.org/fhir/R4/search.html#revinclude)
    """
    await put(client, "Patient", "p", gender="male")
    await put(client, "Patient", "p", gender="female")
    await observation(client, "old", subject={"reference": "Patient/p/_history/1"})
    await observation(client, "new", subject={"reference": "Patient/p"})
    await observation(client, "never", subject={"reference": "http://test/fhir/Patient/p/_history/7"})
    for asked, version in (("old", "1"), ("new", "2"), ("never", "2"), ("old,new", "2")):
        page = (await client.fhir("GET", f"/Observation?_id={asked}&_include=Observation:subject")).json()
        assert page["link"][0]["url"].endswith(f"Observation?_id={asked}&_include=Observation:subject")
        (patient,) = [each for each in page["entry"] if each["search"]["mode"] == "include"]
        assert (patient["fullUrl"], patient["resource"]["meta"]["versionId"]) == ("http://test/fhir/Patient/p", version)


async def test_summary_and_elements_are_marked(client: Client) -> None:
    await put(client, "Patient", "a", gender="male", photo=[{"title": "x"}])
    for query, present in (("_summary=true", "gender"), ("_elements=photo", "photo"), ("_summary=data", "photo")):
        (entry,) = (await client.fhir("GET", f"/Patient?{query}")).json()["entry"]
        assert entry["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"
        assert present in entry["resource"]


async def test_system_search(client: Client) -> None:
    await put(client, "Patient", "a", meta={"tag": [{"code": "t"}]})
    await observation(client, "o", meta={"tag": [{"code": "t"}]})
    assert ids((await client.fhir("GET", "/?_tag=t&_type=Patient,Observation")).json()) == ["o", "a"]
    assert ids((await client.fhir("GET", "/?_tag=t")).json()) == ["o", "a"]
    assert ids((await client.fhir("POST", "/_search", data={"_id": "o"})).json()) == ["o"]


async def test_chains_of_every_length_that_is_allowed(client: Client) -> None:
    """Eight links are the limit; longer ones are refused with a sentence, on every store alike."""
    await put(client, "Organization", "o0", name="top")
    for number in range(1, 9):
        parent = {"reference": f"Organization/o{number - 1}"}
        await put(client, "Organization", f"o{number}", name=f"n{number}", partOf=parent)
    for links in range(1, 9):
        chain = ".".join(["partof"] * links)
        assert ids((await client.fhir("GET", f"/Organization?{chain}.name=top")).json()) == [f"o{links}"]
        reverse = "_has:Organization:partof:" * links
        assert ids((await client.fhir("GET", f"/Organization?{reverse}name=n8")).json()) == [f"o{8 - links}"]
        assert ids((await client.fhir("GET", f"/Organization?{chain}.name=nobody")).json()) == []
    assert (await client.fhir("GET", f"/Organization?{'.'.join(['partof'] * 9)}.name=top")).status_code == 413
