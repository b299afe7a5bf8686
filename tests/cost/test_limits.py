"""The bounds of `docs/limits.md`, each with an input just beyond it and a neighbour within it."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fhir_server.api.bodies import AT_WORK, Bodies
from fhir_server.api.decompression import MOST_MEMBERS, inflate
from fhir_server.app import Knowledge
from fhir_server.fhir import fhirpath_patch, json_patch
from fhir_server.fhir.outcome import Invalid, TooCostly, TooLarge, Unavailable
from fhir_server.fhir.resource import MOST_VALUES
from fhir_server.interactions.batch import AT_ONCE
from tests.conftest import Client, serving
from tests.cost.measuring import JSON, check_ratio_of_calls

pytestmark = pytest.mark.anyio

JSON_PATCH = {"content-type": "application/json-patch+json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def refused(answer: httpx.Response, named: str) -> None:
    """It is 413 `too-costly`, and the sentence names the setting or the matter."""
    assert answer.status_code == 413, answer.text
    (issue,) = answer.json()["issue"]
    assert issue["code"] == "too-costly" and named in issue["diagnostics"]


async def count_searches(client: Client, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many searches the store was asked for by a transaction, its own checks aside."""
    store = client.server.context.unrestricted
    search, asked = type(store).search, []

    async def counted(self: Any, query: Any) -> Any:
        asked.append(query)
        return await search(self, query)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "search", counted)
        answer = await client.post("/", json=body, headers=JSON)
        assert answer.status_code == 200, answer.text[:500]
    return len(asked)


def observation(number: int, **members: Any) -> dict[str, Any]:
    made = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **members}
    return {"resource": made, "request": {"method": "POST", "url": "Observation"}, "fullUrl": f"urn:example:{number}"}


async def test_conditional_creates_and_references_share_their_searches(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many criteria ask the store hardly more often."""
    for count in (100, 200):
        patients = [
            {
                "resource": {"resourceType": "Patient", "identifier": [{"system": "u", "value": f"{count}-{number}"}]},
                "request": {
                    "method": "POST",
                    "url": "Patient",
                    "ifNoneExist": f"identifier=u|{count}-{number}",
                },
            }
            for number in range(count)
        ]
        body = {"resourceType": "Bundle", "type": "transaction", "entry": patients}
        assert await count_searches(client, body, monkeypatch) <= 2
        subjects = [
            observation(number, subject={"reference": f"Patient?identifier=u|{count}-{number}"})
            for number in range(count)
        ]
        body = {"resourceType": "Bundle", "type": "transaction", "entry": subjects}
        assert await count_searches(client, body, monkeypatch) <= 2
    total = (await client.get("/Observation", params={"_summary": "count"})).json()["total"]
    assert total == 300


async def test_conditional_creates_that_are_there_answer_with_what_is_there(client: Client) -> None:
    entries = [
        {
            "resource": {"resourceType": "Patient", "identifier": [{"system": "u", "value": value}]},
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier=u|{value}"},
        }
        for value in ("a", "b", "c", "a")
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    first = (await client.post("/", json=body, headers=JSON)).json()["entry"]
    assert [each["response"]["status"][:3] for each in first] == ["201", "201", "201", "200"]
    again = (await client.post("/", json=body, headers=JSON)).json()["entry"]
    assert [each["response"]["status"][:3] for each in again] == ["200"] * 4
    assert [each["response"]["location"] for each in again] == [each["response"]["location"] for each in first]


async def test_one_of_two_criteria_that_matches_several_is_refused_with_its_entry(client: Client) -> None:
    for _ in range(2):
        await client.post("/Patient", json={"resourceType": "Patient", "identifier": [{"value": "x"}]}, headers=JSON)
    entries = [
        {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient", "ifNoneExist": each}}
        for each in ("identifier=|y", "identifier=|x")
    ]
    answer = await client.post(
        "/", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}, headers=JSON
    )
    assert answer.status_code == 412
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]


async def test_gzip_members_are_bounded_and_cost_what_their_number_says() -> None:
    empty, last = gzip.compress(b""), gzip.compress(b"{}")
    assert inflate(empty * (MOST_MEMBERS - 1) + last, "gzip", 100) == b"{}"
    with pytest.raises(TooCostly, match="members"):
        inflate(empty * MOST_MEMBERS + last, "gzip", 100)
    half, whole = empty * 4000, empty * 8000
    assert inflate(whole, "gzip", 100) == b""
    await check_ratio_of_calls(lambda: inflate(half, "gzip", 100), lambda: inflate(whole, "gzip", 100), 3, tries=8)


def test_compressed_bodies_are_inflated_whole_or_refused() -> None:
    text = bytes(range(256)) * 5000
    parts = b"".join(gzip.compress(text[at : at + 7000]) for at in range(0, len(text), 7000))
    assert inflate(parts, "gzip", len(text)) == text
    with pytest.raises(TooLarge):
        inflate(parts, "gzip", len(text) - 1)
    with pytest.raises(Invalid, match="too early"):
        inflate(parts[:-5], "gzip", len(text))
    with pytest.raises(Invalid, match="not valid"):
        inflate(parts + b"junk", "gzip", len(text))


async def test_a_resource_with_too_many_index_rows_is_refused(known: Knowledge) -> None:
    async with serving(known, store="memory://", max_entries=5000) as client:
        fits, not_fits = ({"name": [{"family": f"f{n}"} for n in range(count)]} for count in (300, 3000))
        for members, status in ((fits, 201), (not_fits, 413)):
            answer = await client.post("/Patient", json={"resourceType": "Patient", **members}, headers=JSON)
            assert answer.status_code == status
        refused(answer, "max_entries")
        entries = [
            {"resource": {"resourceType": "Patient", **fits}, "request": {"method": "POST", "url": "Patient"}}
            for _ in range(6)
        ]
    async with serving(known, store="memory://", max_transaction_entries=5000) as client:
        body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        refused(await client.post("/", json=body, headers=JSON), "max_transaction_entries")
        assert (await client.get("/Patient")).json()["total"] == 0


async def test_more_values_of_one_parameter_than_can_be_indexed(known: Knowledge) -> None:
    async with serving(known, store="memory://") as client:
        given = {"resourceType": "Patient", "name": [{"given": [f"g{n}" for n in range(250_000)]}]}
        refused(await client.post("/Patient", json=given, headers=JSON), "can be indexed")


async def test_a_long_string_is_found_and_takes_no_square_of_its_length(known: Knowledge, tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    async with serving(known, store=f"sqlite:///{database}") as client:
        words = "".join(chr(97 + (n * n * 31 + n // 7) % 26) for n in range(60_000))
        patient = {"resourceType": "Patient", "name": [{"family": words}]}
        assert (await client.post("/Patient", json=patient, headers=JSON)).status_code == 201
        for wanted in (words[30_000:30_020], words[-15:]):
            found = await client.get("/Patient", params={"family:contains": wanted})
            assert found.json()["total"] == 1
    size = sum(each.stat().st_size for each in tmp_path.iterdir())
    assert size < 100 * len(words)


async def test_patches_have_a_number_of_operations(known: Knowledge) -> None:
    async with serving(known, store="memory://", max_patch_operations=10) as client:
        await client.put("/Patient/p", json={"resourceType": "Patient", "id": "p"}, headers=JSON)
        patch = [{"op": "add", "path": "/active", "value": True}]
        fits = await client.patch("/Patient/p", content=orjson.dumps(patch * 10), headers=JSON_PATCH)
        assert fits.status_code == 200
        refused(
            await client.patch("/Patient/p", content=orjson.dumps(patch * 11), headers=JSON_PATCH),
            "max_patch_operations",
        )


def test_what_a_json_patch_copies_is_bounded() -> None:
    tree = {"resourceType": "Patient", "text": "x" * 1_000_000}
    copies = [{"op": "copy", "from": "/text", "path": f"/c{number}"} for number in range(17)]
    assert len(json_patch.apply(tree, copies[:16])) == 18
    with pytest.raises(TooCostly, match="copies more"):
        json_patch.apply(tree, copies)
    moves = [{"op": "move", "from": f"/{'ab'[n % 2]}", "path": f"/{'ba'[n % 2]}"} for n in range(1000)]
    assert json_patch.apply({"a": tree}, moves) == {"a": tree}


def test_what_the_paths_of_a_fhirpath_patch_visit_is_bounded(known: Knowledge) -> None:
    contacts = [{"name": {"family": "f"}, "gender": "male"}] * 1000
    path = "Patient.contact.where(" + "name.where(family='f').family='f' and " * 25 + "gender='female')"
    parts = [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": path}]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}] * 20}
    with pytest.raises(TooCostly, match="visit more"):
        fhirpath_patch.apply({"resourceType": "Patient", "contact": contacts}, patch, known.definitions)
    small = {"resourceType": "Patient", "contact": contacts[:5]}
    assert fhirpath_patch.apply(small, patch, known.definitions) == small


@pytest.mark.parametrize(
    ("base", "expression"),
    [
        (["Patient"], " | ".join(["Patient.name.given"] * 201)),
        (["Patient"], "Patient.name.where(" + " and ".join(["use = 'usual'"] * 201) + ").given"),
        (["Resource"], " | ".join(["Resource.language"] * 60)),
    ],
)
async def test_expressions_of_search_parameters_have_a_number_of_branches(
    known: Knowledge, base: list[str], expression: str
) -> None:
    parameter = {
        "resourceType": "SearchParameter",
        "url": "http://example.org/many",
        "name": "many",
        "status": "active",
        "description": "many",
        "code": "many",
        "base": base,
        "type": "string",
        "expression": expression,
    }
    async with serving(known, store="memory://") as client:
        refused(await client.post("/SearchParameter", json=parameter, headers=JSON), "max_search_parameter_branches")


async def test_searches_are_bounded(known: Knowledge) -> None:
    async with serving(known, store="memory://") as client:
        for form, named in (
            ("family=" + "a" * 300_000, "search form"),
            ("_id=" + ",".join(f"i{n}" for n in range(10_001)), "alternatives"),
            ("&".join("family=" + ",".join(f"f{m}-{n}" for n in range(300)) for m in range(20)), "alternatives"),
        ):
            refused(await client.post("/Patient/_search", content=form, headers=FORM), named)


async def test_includes_follow_so_many_levels(client: Client) -> None:
    count = 150
    entries = [
        {
            "resource": {
                "resourceType": "Organization",
                "name": "x",
                "id": f"o{number}",
                "partOf": {"reference": f"Organization/o{(number + 1) % count}"},
            },
            "request": {"method": "PUT", "url": f"Organization/o{number}"},
        }
        for number in range(count)
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert (await client.post("/", json=body, headers=JSON)).status_code == 200
    refused(await client.get("/Organization?_id=o0&_include:iterate=Organization:partof"), "levels")
    assert (await client.get("/Organization?_include:iterate=Organization:partof&_count=120")).status_code == 200


async def store_large(client: Client, count: int, size: int) -> None:
    for number in range(count):
        basic = {"resourceType": "Basic", "id": f"b{number}", "code": {"text": "x" * size}}
        assert (await client.put(f"/Basic/b{number}", json=basic, headers=JSON)).status_code == 201


async def test_pages_of_large_resources_are_shorter_and_miss_none(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, max_answer=50_000) as client:
        await store_large(client, 30, 9_000)
        for first in ("/Basic?_count=100", "/Basic?_count=100&_sort=-_id", "/Basic/_history?_count=100"):
            url, seen = first, []
            while url:
                page = (await client.get(url)).json()
                assert 1 <= len(page["entry"]) <= 6
                seen += [entry["resource"]["id"] for entry in page["entry"]]
                url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
            assert sorted(seen) == sorted(f"b{number}" for number in range(30))


async def test_reads_of_a_bundle_beyond_the_budget(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, max_answer=50_000) as client:
        await store_large(client, 1, 9_000)
        reads = [{"request": {"method": "GET", "url": "Basic/b0"}} for _ in range(20)]
        write, other = (
            {
                "resource": {"resourceType": "Basic", "id": id, "code": {"text": "x" * 60_000}},
                "request": {"method": "PUT", "url": f"Basic/{id}"},
            }
            for id in ("w", "t")
        )
        batch = {"resourceType": "Bundle", "type": "batch", "entry": [write, *reads]}
        answer = await client.post("/", json=batch, headers=JSON | {"prefer": "return=representation"})
        statuses = [entry["response"]["status"][:3] for entry in answer.json()["entry"]]
        assert statuses[0] == "201"
        assert statuses[1:].count("200") == 5 and statuses[1:].count("413") == 15
        assert (await client.get("/Basic/w")).status_code == 200
        transaction = {"resourceType": "Bundle", "type": "transaction", "entry": [other, *reads]}
        refused(await client.post("/", json=transaction, headers=JSON), "max_answer")
        assert (await client.get("/Basic/t")).status_code == 404


async def test_what_fits_into_no_answer_is_not_read_again_and_again(
    known: Knowledge, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of small size reads no more than twice what its answer may hold, and what runs beside."""
    async with serving(known, store=store_uri, max_answer=50_000) as client:
        await store_large(client, 1, 60_000)
        store = client.server.context.unrestricted
        read, sizes = type(store).read, []

        async def overhear(self: Any, *arguments: Any) -> Any:
            stored: Any = await read(self, *arguments)
            sizes.append(len(stored.raw or b""))
            return stored

        monkeypatch.setattr(type(store), "read", overhear)
        reads = [{"request": {"method": "GET", "url": "Basic/b0"}} for _ in range(200)]
        answer = await client.post("/", json={"resourceType": "Bundle", "type": "batch", "entry": reads}, headers=JSON)
        assert {entry["response"]["status"][:3] for entry in answer.json()["entry"]} == {"413"}
        assert 1 <= len(sizes) <= AT_ONCE


async def test_bodies_that_are_held_have_a_limit_and_are_worked_on_in_turn() -> None:
    bodies = Bodies(100)
    bodies.hold(60)
    with pytest.raises(Unavailable) as error:
        bodies.hold(50)
    assert dict(error.value.headers) == {"Retry-After": "5"}
    bodies.release(60)
    bodies.hold(100)
    await bodies.begin(AT_WORK * 3)
    others = [asyncio.create_task(bodies.begin(size)) for size in (AT_WORK // 2, AT_WORK // 2, 1)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in others)
    bodies.end(AT_WORK * 3)
    await asyncio.sleep(0)
    assert [each.done() for each in others] == [True, True, False]
    bodies.end(AT_WORK // 2)
    await others[2]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/Patient", "application/fhir+json"),
        ("/", "application/fhir+json"),
        ("/Binary", "application/json"),
    ],
)
async def test_a_body_has_a_number_of_values(known: Knowledge, url: str, kind: str) -> None:
    body = b'{"resourceType":"Bundle","type":"batch","entry":[' + b"[]," * (MOST_VALUES // 2) + b"1]}"
    async with serving(known, store="memory://") as client:
        refused(await client.post(url, content=body, headers={"content-type": kind}), "further values")
