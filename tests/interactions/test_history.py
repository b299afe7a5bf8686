"""history: https://hl7.org/fhir/R4/http.html#history."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(empty_client: Client) -> Client:
    """These tests look at everything that is stored."""
    return empty_client


async def put(client: Client, type: str, id: str, **more: Any) -> Any:
    extra = {"status": "final", "code": {"text": "x"}} if type == "Observation" else {}
    return await client.fhir("PUT", f"/{type}/{id}", json={"resourceType": type, "id": id, **extra, **more})


async def fill(client: Client) -> None:
    await put(client, "Patient", "a")
    await put(client, "Patient", "a", active=True)
    await put(client, "Observation", "o")
    await client.fhir("DELETE", "/Patient/a")
    await put(client, "Patient", "b")


def versions(bundle: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            entry["request"]["method"],
            entry["fullUrl"].removeprefix("http://test/fhir/"),
            entry["response"]["etag"],
        )
        for entry in bundle["entry"]
    ]


async def test_instance_type_and_system(client: Client) -> None:
    await fill(client)
    instance = (await client.fhir("GET", "/Patient/a/_history")).json()
    assert instance["type"] == "history"
    assert instance["total"] == 3
    assert versions(instance) == [
        ("DELETE", "Patient/a", 'W/"3"'),
        ("PUT", "Patient/a", 'W/"2"'),
        ("PUT", "Patient/a", 'W/"1"'),
    ]
    assert "resource" not in instance["entry"][0]
    assert instance["entry"][1]["resource"]["active"] is True
    type = (await client.fhir("GET", "/Patient/_history")).json()
    assert {url for _, url, _ in versions(type)} == {"Patient/a", "Patient/b"}
    assert len(type["entry"]) == 4
    system = (await client.fhir("GET", "/_history")).json()
    assert len(system["entry"]) == 5
    times = [entry["response"]["lastModified"] for entry in system["entry"]]
    assert times == sorted(times, reverse=True)


async def test_pages(client: Client) -> None:
    await fill(client)
    url, seen = "/_history?_count=2", []
    for _ in range(5):
        page = (await client.fhir("GET", url)).json()
        seen += versions(page)
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        if not following:
            break
        url = following[0]
    assert seen == versions((await client.fhir("GET", "/_history")).json())


async def test_since_is_safe_to_continue_from(client: Client) -> None:
    await fill(client)
    first = (await client.fhir("GET", "/_history")).json()
    await asyncio.sleep(0.003)
    await put(client, "Patient", "later")
    after = (await client.fhir("GET", "/_history", params={"_since": first["meta"]["lastUpdated"]})).json()
    assert ("PUT", "Patient/later", 'W/"1"') in versions(after)
    assert ("PUT", "Patient/a", 'W/"1"') not in versions(after)


async def test_at(client: Client) -> None:
    first = (await put(client, "Patient", "a")).json()
    await asyncio.sleep(0.003)
    await put(client, "Patient", "a", active=True)
    at = (await client.fhir("GET", "/Patient/a/_history", params={"_at": first["meta"]["lastUpdated"]})).json()
    assert versions(at) == [("PUT", "Patient/a", 'W/"1"')]


@pytest.mark.parametrize(
    "query",
    ["_count=0", "_count=-1", "_count=x", "_since=yesterday", "_at=2023-02-30", "_sort=x", "name=x", "__page=abc"],
)
async def test_bad_parameters(client: Client, query: str) -> None:
    response = await client.fhir("GET", f"/_history?{query}")
    assert response.status_code == 400
    assert response.json()["issue"][0]["diagnostics"]


async def test_the_links_of_a_history_are_urls_of_the_whole_request(client: Client) -> None:
    for active in (True, False):
        await put(client, "Patient", "a", active=active)
    page = (await client.fhir("GET", "/Patient/a/_history?_since=2020-01-01T00:00:00+01:00&_count=1")).json()
    links = {link["relation"]: link["url"] for link in page["link"]}
    # a link is a uri, which has no spaces; what the request had for a plus sign was none
    assert links["self"].endswith("_since=2020-01-01T00:00:00%2B01:00&_count=1")
    assert (await client.fhir("GET", links["next"])).status_code == 200
    assert (await client.fhir("GET", f"{links['next']}&_format=json")).status_code == 200
    assert (await client.fhir("GET", f"{links['next']}&_since=2020")).status_code == 400


async def test_never_existed(client: Client) -> None:
    assert (await client.fhir("GET", "/Patient/none/_history")).status_code == 404
    empty = await client.fhir("GET", "/Patient/_history")
    assert (empty.status_code, empty.json()["total"]) == (200, 0)


async def test_a_put_after_a_deletion_made_the_resource_anew(client: Client) -> None:
    for year in ("1980", "1981", None, "1982", "1983"):
        if year is None:
            await client.fhir("DELETE", "/Patient/back")
        else:
            await client.fhir("PUT", "/Patient/back", json={"resourceType": "Patient", "id": "back", "birthDate": year})
    for url in ("/Patient/back/_history", "/Patient/_history", "/_history"):
        entries = (await client.fhir("GET", url)).json()["entry"]
        assert [each["response"]["status"][:3] for each in entries] == ["200", "201", "204", "200", "201"], url
    statuses, url = [], "/_history?_count=1"
    while url:
        page = (await client.fhir("GET", url)).json()
        statuses.append(page["entry"][0]["response"]["status"][:3])
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    assert statuses == ["200", "201", "204", "200", "201"]
