"""`$meta`, `$meta-add`, `$meta-delete` and `$purge`."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

TAG = {"system": "https://clinic.example/tags", "code": "vip"}


def parameters(meta: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


def meta_of(response: Any) -> dict[str, Any]:
    (parameter,) = response.json()["parameter"]
    assert parameter["name"] == "return"
    meta: dict[str, Any] = parameter["valueMeta"]
    return meta


async def test_meta_add_and_delete(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    added = await client.fhir(
        "POST", "/Patient/p/$meta-add", json=parameters({"tag": [TAG], "profile": ["http://x/p"]})
    )
    assert added.status_code == 200, added.text
    assert meta_of(added)["tag"] == [TAG]
    again = await client.fhir("POST", "/Patient/p/$meta-add", json=parameters({"tag": [{**TAG, "display": "VIP"}]}))
    assert meta_of(again)["tag"] == [TAG]
    assert again.headers["etag"] == 'W/"2"'
    assert (await client.fhir("GET", "/Patient?_tag=vip")).json()["total"] == 1
    assert meta_of(await client.fhir("GET", "/Patient/p/$meta"))["profile"] == ["http://x/p"]
    assert "tag" not in meta_of(await client.fhir("GET", "/Patient/p/_history/1/$meta"))
    removed = await client.fhir("POST", "/Patient/p/$meta-delete", json=parameters({"tag": [TAG]}))
    assert "tag" not in meta_of(removed)
    assert (await client.fhir("GET", "/Patient?_tag=vip")).json()["total"] == 0


async def test_meta_add_adds_once_what_is_given_twice(client: Client) -> None:
    # the tags of a resource are a set by system and code
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    given = {"tag": [TAG, TAG], "versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}
    added = await client.fhir("POST", "/Patient/p/$meta-add", json=parameters(given))
    assert meta_of(added)["tag"] == [TAG]


@pytest.mark.parametrize("url", ["$meta?tag=vip", "_history/1/$meta?x=1", "$meta-add?tag=vip", "$meta-delete?tag=vip"])
async def test_the_meta_operations_have_no_parameters_in_the_url(client: Client, url: str) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    response = await client.fhir("POST", f"/Patient/p/{url}", json=parameters({"tag": [TAG]}))
    assert response.status_code == 400
    assert "has no parameter" in response.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"resourceType": "Patient"},
        {"resourceType": "Parameters"},
        parameters({"tag": "vip"}),
        # what cannot be added is not passed over in silence
        parameters({"tag": [TAG], "source": "urn:x"}),
        parameters({"tag": [TAG], "extension": [{"url": "urn:x", "valueString": "x"}]}),
        {
            "resourceType": "Parameters",
            "parameter": [*parameters({"tag": [TAG]})["parameter"], {"name": "tags", "valueString": "x"}],
        },
    ],
)
async def test_meta_bad_bodies(client: Client, body: dict[str, Any]) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    assert (await client.fhir("POST", "/Patient/p/$meta-add", json=body)).status_code == 400
    assert (await client.fhir("GET", "/Patient/p")).headers["etag"] == 'W/"1"'


async def test_meta_of_what_is_not_there(client: Client) -> None:
    assert (await client.fhir("GET", "/Patient/none/$meta")).status_code == 404
    body = parameters({"tag": [TAG]})
    assert (await client.fhir("POST", "/Patient/none/$meta-add", json=body)).status_code == 404
    assert (await client.fhir("DELETE", "/Patient/none/$meta")).status_code == 405


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_purge_takes_nothing_that_came_meanwhile(
    known: Knowledge, store_uri: str, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """fault S3: what was answered with 201 between the purge's reading and its commit stays, and so does its target."""
    patient, observation = "/Patient/p", "/Observation/o"
    async with serving(known, store=store_uri, purge=True) as client:
        await client.fhir("PUT", patient, json={"resourceType": "Patient", "id": "p"})
        if deleted:
            await client.fhir("DELETE", patient)
        store = client.server.context.unrestricted
        transact = store.transact
        answered = []

        async def write_before(transaction: Transaction) -> Committed:
            monkeypatch.setattr(store, "transact", transact)
            answered.append(await client.fhir("PUT", patient, json={"resourceType": "Patient", "id": "p"}))
            body = {
                "resourceType": "Observation",
                "id": "o",
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": "Patient/p"},
            }
            answered.append(await client.fhir("PUT", observation, json=body))
            return await transact(transaction)

        monkeypatch.setattr(store, "transact", write_before)
        assert (await client.fhir("POST", f"{patient}/$purge")).status_code == 409
        assert [each.status_code for each in answered] == [201 if deleted else 200, 201]
        assert [(await client.fhir("GET", url)).status_code for url in (patient, observation)] == [200, 200]
        found = await client.fhir("GET", "/Observation?subject:Patient._id=p")
        assert [link["url"] for link in found.json()["link"] if link["relation"] == "self"]
        assert found.json()["total"] == 1


async def test_purge(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, purge=True) as client:
        await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
        observation = {
            "resourceType": "Observation",
            "id": "o",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/p"},
        }
        provenance = {
            "resourceType": "Provenance",
            "id": "why",
            "target": [{"reference": "Patient/p"}],
            "recorded": "2026-11-23T08:00:00Z",
            "agent": [{"who": {"display": "x"}}],
        }
        await client.fhir("PUT", "/Observation/o", json=observation)
        await client.fhir("PUT", "/Provenance/why", json=provenance)  # stands in no way, as with DELETE
        assert (await client.fhir("POST", "/Patient/p/$purge")).status_code == 409
        stale = {"If-Match": 'W/"9"'}
        assert (await client.fhir("POST", "/Observation/o/$purge", headers=stale)).status_code == 400
        assert (await client.fhir("POST", "/Observation/o/$purge?history=false")).status_code == 400
        assert (await client.fhir("GET", "/Patient/p")).status_code == 200
        for url in ("/Observation/o", "/Patient/p"):
            assert (await client.fhir("POST", f"{url}/$purge")).status_code == 200
            assert (await client.fhir("GET", url)).status_code == 404
            assert (await client.fhir("GET", f"{url}/_history")).status_code == 404
        assert (await client.fhir("GET", "/Patient?_id=p")).json()["total"] == 0
        assert (await client.fhir("POST", "/Patient/p/$purge")).status_code == 404
        made = await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
        assert made.headers["etag"] == 'W/"1"'
