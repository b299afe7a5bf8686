"""Conditional create, update, patch and delete: https://hl7.org/fhir/R4/http.html#cond-update and its neighbours."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.store.operations import Transaction, Write
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(empty_client: Client) -> Client:
    """These tests look at everything that is stored."""
    return empty_client


def patient(number: str, **more: object) -> dict[str, object]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "https://clinic.example/mrn", "value": number}],
        **more,
    }


async def test_conditional_create(client: Client) -> None:
    condition = {"If-None-Exist": "identifier=https://clinic.example/mrn|1"}
    first = await client.fhir("POST", "/Patient", json=patient("1"), headers=condition)
    second = await client.fhir("POST", "/Patient", json=patient("1"), headers=condition)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.headers["location"] == first.headers["location"]
    await client.fhir("POST", "/Patient", json=patient("1"))
    assert (await client.fhir("POST", "/Patient", json=patient("1"), headers=condition)).status_code == 412


@pytest.mark.parametrize(
    ("criteria", "status"),
    [("", 412), ("nonsense=1", 400), ("name:fuzzy=x", 400), ("_count=1&identifier=1", 400), ("birthdate=zz1", 400)],
)
async def test_criteria_are_strict(client: Client, criteria: str, status: int) -> None:
    headers = {"If-None-Exist": criteria, "Prefer": "handling=lenient"}
    assert (await client.fhir("POST", "/Patient", json=patient("1"), headers=headers)).status_code == status


async def test_conditional_update(client: Client) -> None:
    url = "/Patient?identifier=1"
    made = await client.fhir("PUT", url, json=patient("1"))
    assert made.status_code == 201
    changed = await client.fhir("PUT", url, json=patient("1", active=True))
    assert (changed.status_code, changed.json()["id"]) == (200, made.json()["id"])
    other = await client.fhir("PUT", url, json=patient("1", id="someone-else"))
    assert other.status_code == 400
    own = await client.fhir("PUT", "/Patient?identifier=2", json=patient("2", id="chosen"))
    assert (own.status_code, own.json()["id"]) == (201, "chosen")
    for no_id in (5, None, {"value": "x"}):  # not ignored either: without a match the id in the body is the new one
        wrong = await client.fhir("PUT", "/Patient?identifier=4", json=patient("4", id=no_id))
        assert (wrong.status_code, wrong.json()["issue"][0]["expression"]) == (400, ["Patient.id"])
    taken = await client.fhir("PUT", "/Patient?identifier=3", json=patient("3", id="chosen"))
    assert taken.status_code == 409
    await client.fhir("POST", "/Patient", json=patient("1"))
    assert (await client.fhir("PUT", url, json=patient("1"))).status_code == 412
    assert (await client.fhir("PUT", "/Patient", json=patient("1"))).status_code == 412


async def test_conditional_patch(client: Client) -> None:
    patch = [{"op": "add", "path": "/active", "value": True}]
    headers = {"Content-Type": "application/json-patch+json"}
    assert (await client.fhir("PATCH", "/Patient?identifier=1", json=patch, headers=headers)).status_code == 404
    await client.fhir("POST", "/Patient", json=patient("1"))
    done = await client.fhir("PATCH", "/Patient?identifier=1", json=patch, headers=headers)
    assert (done.status_code, done.json()["active"]) == (200, True)
    await client.fhir("POST", "/Patient", json=patient("1"))
    assert (await client.fhir("PATCH", "/Patient?identifier=1", json=patch, headers=headers)).status_code == 412


async def test_conditional_delete_of_one(client: Client) -> None:
    assert (await client.fhir("DELETE", "/Patient?identifier=1")).status_code == 204
    await client.fhir("PUT", "/Patient/a", json=patient("1", id="a"))
    await client.fhir("PUT", "/Patient/b", json=patient("1", id="b"))
    assert (await client.fhir("DELETE", "/Patient?identifier=1")).status_code == 412
    assert (await client.fhir("DELETE", "/Patient?identifier=1&_id=a")).status_code == 204
    assert (await client.fhir("GET", "/Patient/a")).status_code == 410
    assert (await client.fhir("GET", "/Patient/b")).status_code == 200
    assert (await client.fhir("DELETE", "/Patient")).status_code == 412


async def test_conditional_delete_of_several(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, conditional_delete="multiple") as client:
        for id in "abc":
            await client.fhir("PUT", f"/Patient/{id}", json=patient("1" if id != "c" else "2", id=id))
        assert (await client.fhir("DELETE", "/Patient?identifier=1")).status_code == 204
        assert [(await client.fhir("GET", f"/Patient/{id}")).status_code for id in "abc"] == [410, 410, 200]


async def test_64_identical_conditional_creates_make_one(client: Client) -> None:
    headers = {"If-None-Exist": "identifier=1"}
    answers = await asyncio.gather(
        *(client.fhir("POST", "/Patient", json=patient("1"), headers=headers) for _ in range(64))
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 63}
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert (await client.fhir("GET", "/Patient?identifier=1")).json()["total"] == 1


async def test_64_conditional_updates_make_one_resource(client: Client) -> None:
    answers = await asyncio.gather(
        *(
            client.fhir("PUT", "/Patient?identifier=1", json=patient("1", birthDate=f"19{number:02d}-01-01"))
            for number in range(64)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 63}
    found = (await client.fhir("GET", "/Patient?identifier=1")).json()
    assert found["total"] == 1
    assert found["entry"][0]["resource"]["meta"]["versionId"] == "64"


async def test_64_updates_with_one_if_match_have_one_winner(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json=patient("1", id="p"))
    answers = await asyncio.gather(
        *(
            client.fhir(
                "PUT",
                "/Patient/p",
                json=patient("1", id="p", birthDate=f"19{number:02d}-01-01"),
                headers={"If-Match": 'W/"1"'},
            )
            for number in range(64)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 63}
    assert (await client.fhir("GET", "/Patient/p")).headers["etag"] == 'W/"2"'


async def test_32_patches_of_one_resource_all_take_effect(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json=patient("1", id="p"))
    answers = await asyncio.gather(
        *(
            client.fhir(
                "PATCH",
                "/Patient/p",
                json=[{"op": "add", "path": "/identifier/-", "value": {"value": str(number)}}],
                headers={"Content-Type": "application/json-patch+json"},
            )
            for number in range(32)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    final = (await client.fhir("GET", "/Patient/p")).json()
    assert {each["value"] for each in final["identifier"]} == {"1", *map(str, range(32))}
    assert final["meta"]["versionId"] == "33"


@pytest.mark.parametrize(
    ("criteria", "status"),
    [
        ("identifier=https://clinic.example/a?b|1", 201),
        ("Patient?identifier=1", 201),
        ("?identifier=1", 201),
        ("http://test/fhir/Patient?identifier=1", 201),
        ("Observation?identifier=1", 400),
        ("identifier=%ff", 400),
        ("", 412),
        ("Patient?", 412),
    ],
)
async def test_forms_of_if_none_exist(client: Client, criteria: str, status: int) -> None:
    response = await client.fhir("POST", "/Patient", json=patient("1"), headers={"If-None-Exist": criteria})
    assert response.status_code == status, response.text


async def test_a_question_mark_in_the_criteria_is_part_of_the_value(client: Client) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "https://clinic.example/a?b", "value": "1"}]}
    condition = {"If-None-Exist": "identifier=https://clinic.example/a?b|1"}
    statuses = [(await client.fhir("POST", "/Patient", json=body, headers=condition)).status_code for _ in range(2)]
    assert statuses == [201, 200]


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("POST", "/Patient", {"If-Match": 'W/"1"'}),
        ("POST", "/Patient", {"If-None-Match": "*"}),
        ("PUT", "/Patient/p", {"If-None-Exist": "identifier=1"}),
        ("DELETE", "/Patient/p", {"If-None-Exist": "identifier=1"}),
        ("DELETE", "/Patient/p", {"If-None-Match": "*"}),
        ("POST", "/Patient?identfier=1", {}),
        ("PUT", "/Patient/p?identifier=1", {}),
        ("DELETE", "/Patient/p?_cascade=delete", {}),
        ("POST", "/", {"If-None-Exist": "identifier=1"}),
        ("POST", "/", {"If-Match": 'W/"1"'}),
        ("POST", "/?identifier=1", {}),
    ],
)
async def test_what_a_write_does_not_take_is_refused(
    client: Client, method: str, url: str, headers: dict[str, str]
) -> None:
    """Nothing is silently ignored: a precondition that does not count would deceive the client."""
    body: dict[str, object] = {"resourceType": "Patient", "id": "p"}
    if url.startswith("/?") or url == "/":
        entry = {"resource": body, "request": {"method": "POST", "url": "Patient"}}
        body = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    response = await client.fhir(method, url, json=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["issue"][0]["code"] == "not-supported"
    assert (await client.fhir("GET", "/_history")).json()["total"] == 0


async def test_conditional_create_whose_match_is_deleted_meanwhile(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The match is gone when its version is read: the request is planned again and creates."""
    await client.fhir("PUT", "/Patient/a", json={**patient("1"), "id": "a"})
    store = client.server.context.unrestricted
    search = store.search

    async def then_deleted(query: Any) -> Any:
        page = await search(query)
        if page.matches:
            await store.transact(Transaction(writes=(Write("DELETE", "Patient", "a"),)))
        return page

    monkeypatch.setattr(type(store), "search", lambda self, query: then_deleted(query))
    made = await client.fhir("POST", "/Patient", json=patient("1"), headers={"If-None-Exist": "identifier=1"})
    assert made.status_code == 201
    assert made.json()["identifier"][0]["value"] == "1"
