"""patch over HTTP; the patch algorithms have their own tests in tests/fhir."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

JSON_PATCH = {"Content-Type": "application/json-patch+json"}


async def fill(client: Client) -> None:
    text = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},'
        b'"valueQuantity":{"value":1.10,"unit":"mg"}}'
    )
    await client.fhir("PUT", "/Observation/o", content=text, headers={"Content-Type": "application/fhir+json"})


def parameters(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": list(parts)}]}


async def test_json_patch_keeps_numbers_as_written(client: Client) -> None:
    await fill(client)
    patch = [
        {"op": "test", "path": "/status", "value": "final"},
        {"op": "replace", "path": "/status", "value": "amended"},
        {"op": "replace", "path": "/valueQuantity/unit", "value": "g"},
    ]
    response = await client.fhir("PATCH", "/Observation/o", json=patch, headers=JSON_PATCH)
    assert (response.status_code, response.headers["etag"]) == (200, 'W/"2"')
    assert response.json()["status"] == "amended"
    assert b"1.10" in response.content


async def test_a_patch_that_changes_nothing_makes_no_version(client: Client) -> None:
    await fill(client)
    patch = [{"op": "replace", "path": "/status", "value": "final"}]
    response = await client.fhir("PATCH", "/Observation/o", json=patch, headers=JSON_PATCH)
    assert (response.status_code, response.headers["etag"]) == (200, 'W/"1"')


async def test_fhirpath_patch(client: Client) -> None:
    await fill(client)
    body = parameters(
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Observation"},
        {"name": "name", "valueString": "note"},
        {"name": "value", "valueAnnotation": {"text": "seen"}},
    )
    response = await client.fhir(
        "PATCH", "/Observation/o", json=body, headers={"Content-Type": "application/fhir+json"}
    )
    assert response.status_code == 200, response.text
    assert response.json()["note"] == [{"text": "seen"}]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ([{"op": "test", "path": "/status", "value": "amended"}], JSON_PATCH, 422),
        ([{"op": "remove", "path": "/nothing"}], JSON_PATCH, 422),
        ([{"op": "fly", "path": "/status"}], JSON_PATCH, 400),
        ({"op": "remove"}, JSON_PATCH, 400),
        ([{"op": "replace", "path": "/id", "value": "other"}], JSON_PATCH, 422),
        ([{"op": "replace", "path": "/status", "value": "nonsense"}], JSON_PATCH, 400),
        ([], {"Content-Type": "text/plain"}, 415),
        ([{"resourceType": "Parameters"}], {"Content-Type": "application/fhir+json"}, 400),
        ({"resourceType": "Patient"}, {"Content-Type": "application/fhir+json"}, 422),
    ],
)
async def test_patches_that_cannot_be(client: Client, body: Any, headers: dict[str, str], status: int) -> None:
    await fill(client)
    response = await client.fhir("PATCH", "/Observation/o", json=body, headers=headers)
    assert response.status_code == status, response.text
    assert (await client.fhir("GET", "/Observation/o")).headers["etag"] == 'W/"1"'


async def test_patch_of_what_is_not_there(client: Client) -> None:
    await fill(client)
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    assert (await client.fhir("PATCH", "/Observation/none", json=patch, headers=JSON_PATCH)).status_code == 404
    await client.fhir("DELETE", "/Observation/o")
    assert (await client.fhir("PATCH", "/Observation/o", json=patch, headers=JSON_PATCH)).status_code == 410


async def test_patch_with_if_match(client: Client) -> None:
    await fill(client)
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    stale = await client.fhir("PATCH", "/Observation/o", json=patch, headers={**JSON_PATCH, "If-Match": 'W/"3"'})
    assert stale.status_code == 412
