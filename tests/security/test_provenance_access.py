"""A Provenance is as visible as the least visible of its targets: versions, deletions and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.security.static_tokens import StaticToken, create_token
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000
LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
GRANTS = {
    "all": (
        "system/*.cruds system/*.cruds?_security=http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R "
        "system/Provenance.cruds?target:missing=false"
    ),
    "clinic": "user/*.cruds",
    "auditor": "user/Provenance.cruds?target:missing=false",
    "ada": "patient/*.rs",
}


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    """A server with two observations, the second labelled, and a Provenance that has been about each and both."""
    seams = Seams(clock=lambda: START, definitions=None)
    settings: dict[str, Any] = {"authentication": "on", "audit_folder": "", "references": "allow"}
    async with serving(known, seams, store=any_store_uri, **settings) as client:
        for name, scopes in GRANTS.items():
            patient = "ada" if scopes.startswith("patient/") else ""
            token = StaticToken(name, scopes, "", patient, START, START * 2)
            secret = await create_token(client.server.context.unrestricted, token, {})
            client.headers[f"x-{name}"] = secret
        await put(client, {"resourceType": "Patient", "id": "ada"})
        await put(client, make_observation("open"))
        await put(client, make_observation("secret") | {"meta": {"security": [LABEL]}})
        yield client


def make_observation(id: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/ada"},
    }


def make_provenance(*targets: str) -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "id": "origin",
        "target": [{"reference": target} for target in targets],
        "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"who": {"display": "somebody"}}],
    }


def act_as(client: Client, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {client.headers[f'x-{name}']}"}


async def put(client: Client, resource: dict[str, Any], name: str = "all") -> int:
    url = f"{resource['resourceType']}/{resource['id']}"
    return (await client.put(url, json=resource, headers=act_as(client, name))).status_code


async def read(client: Client, url: str, name: str) -> int:
    return (await client.get(url, headers=act_as(client, name))).status_code


async def count(client: Client, url: str, name: str) -> int:
    answer = await client.get(url, headers=act_as(client, name))
    assert answer.status_code == 200, answer.text
    return int(answer.json().get("total", len(answer.json().get("entry", ()))))


async def test_every_target_has_to_be_visible(client: Client) -> None:
    for targets, seen in (
        (("Patient/ada", "Observation/open"), 1),
        (("Patient/ada", "Observation/secret"), 0),
        (("Observation/secret",), 0),
        (("Patient/ada", "Observation/gone"), 0),
        (("Patient/ada", "http://other.example/Observation/open"), 0),
        (("Patient/ada", "Observation/open/_history/1"), 1),
    ):
        assert await put(client, make_provenance(*targets)) in (200, 201)
        for name in ("clinic", "ada") if "Patient/ada" in targets else ("clinic",):
            assert await count(client, "Provenance?_summary=count", name) == seen, (targets, name)
            assert await read(client, "Provenance/origin", name) == (200 if seen else 404), (targets, name)
            assert await count(client, "Observation?_has:Provenance:target:recorded=2026", name) == (
                seen if targets[-1].startswith("Observation") else 0
            )
        assert await count(client, "Provenance?_summary=count", "auditor") == 1
        assert await read(client, "Provenance/origin", "auditor") == 200


async def test_each_version_is_judged_by_its_own_targets(client: Client) -> None:
    for target in ("Observation/secret", "Observation/open", "Observation/secret"):
        await put(client, make_provenance("Patient/ada", target))
    await client.delete("Provenance/origin", headers=act_as(client, "all"))
    for name in ("clinic", "ada"):
        statuses = [await read(client, f"Provenance/origin/_history/{number}", name) for number in (1, 2, 3, 4)]
        assert statuses == [404, 200, 404, 404], name
        for url in ("Provenance/origin/_history", "Provenance/_history"):
            answer = await client.get(url, headers=act_as(client, name))
            found = [entry["resource"]["meta"]["versionId"] for entry in answer.json().get("entry", ())]
            assert found == ["2"], (name, url)
    await put(client, make_provenance("Patient/ada", "Observation/open"))
    await client.delete("Provenance/origin", headers=act_as(client, "all"))
    assert await read(client, "Provenance/origin/_history/6", "clinic") == 410


async def test_the_deletion_of_a_target_hides_it(client: Client) -> None:
    await put(client, make_provenance("Patient/ada", "Observation/open"))
    assert await read(client, "Provenance/origin", "ada") == 200
    await client.delete("Observation/open", headers=act_as(client, "all"))
    assert await read(client, "Provenance/origin", "ada") == 404
    assert await count(client, "Provenance?patient=ada", "clinic") == 0


async def test_a_target_that_an_identifier_names_hides_it(client: Client) -> None:
    provenance = make_provenance("Observation/open")
    await put(client, {**provenance, "target": [*provenance["target"], {"identifier": {"value": "Bo's"}}]})
    assert await read(client, "Provenance/origin", "clinic") == 404
    assert await count(client, "Provenance", "clinic") == 0
    await put(client, {**provenance, "target": [{"display": "Bo's"}]})
    assert await read(client, "Provenance/origin", "clinic") == 404


async def test_what_is_hidden_is_not_changed(client: Client) -> None:
    hidden, shown = make_provenance("Observation/secret"), make_provenance("Observation/open")
    await put(client, hidden)
    assert await put(client, shown, "clinic") == 403
    patch = [{"op": "replace", "path": "/recorded", "value": "2027-01-01T00:00:00Z"}]
    headers = {**act_as(client, "clinic"), "content-type": "application/json-patch+json"}
    assert (await client.patch("Provenance/origin", json=patch, headers=headers)).status_code == 403
    assert (await client.delete("Provenance/origin", headers=act_as(client, "clinic"))).status_code == 403
    absent = await client.delete("Provenance/absent", headers=act_as(client, "clinic"))
    assert absent.status_code == 204
    answer = await client.delete("Provenance?recorded=2026", headers=act_as(client, "clinic"))
    assert answer.status_code == 204
    assert await read(client, "Provenance/origin", "all") == 200
    await put(client, shown)
    assert await put(client, {**shown, "recorded": "2027-01-01T00:00:00Z"}, "clinic") == 200
