"""`X-Provenance`: a Provenance about the one resource that a request writes, in the same transaction."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.security.test_tokens import act_as, guarding

pytestmark = pytest.mark.anyio

TOLD: dict[str, Any] = {
    "resourceType": "Provenance",
    "recorded": "2026-11-23T08:00:00Z",
    "agent": [{"who": {"display": "Entered from paper"}}],
}
HEADERS = {"x-provenance": json.dumps(TOLD)}
ADA = {"resourceType": "Patient", "id": "ada", "active": True}


async def list_targets(client: Client, headers: dict[str, str] | None = None) -> list[str]:
    found = (await client.get("Provenance", headers=headers or {})).json().get("entry", [])
    return sorted(target["reference"] for entry in found for target in entry["resource"]["target"])


async def test_each_write_has_its_provenance(client: Client) -> None:
    made = await client.fhir("POST", "Patient", json=ADA, headers=HEADERS)
    assert made.status_code == 201
    first = f"Patient/{made.json()['id']}"
    assert await list_targets(client) == [first]
    # an update as create, an update, a patch, a conditional update and a delete
    for method, url, body in (
        ("PUT", "Patient/ada", ADA),
        ("PUT", "Patient/ada", {**ADA, "active": False}),
        ("PATCH", "Patient/ada", [{"op": "replace", "path": "/active", "value": True}]),
        ("PUT", "Patient?_id=ada", {**ADA, "gender": "female"}),
    ):
        kind = {"content-type": f"application/{'json-patch' if method == 'PATCH' else 'fhir'}+json"}
        answer = await client.fhir(method, url, content=json.dumps(body), headers={**HEADERS, **kind})
        assert answer.is_success and answer.json()["resourceType"] == "Patient", answer.text
    assert (await client.fhir("DELETE", "Patient/ada", headers=HEADERS)).status_code == 204
    assert await list_targets(client) == sorted([first, *["Patient/ada"] * 5])


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("{", "no resource"),
        ("[]", "X-Provenance"),
        (json.dumps(ADA), "must be a Provenance"),
        (json.dumps({**TOLD, "target": [{"reference": "Patient/bo"}]}), "Leave `target` out"),
        (json.dumps({**TOLD, "agent": []}), "agent"),
        (json.dumps({**TOLD, "recorded": "yesterday"}), "recorded"),
        (json.dumps({**TOLD, "text": "x" * 9000}), "is the most"),
    ],
)
async def test_a_wrong_one_is_refused_and_nothing_is_written(client: Client, header: str, word: str) -> None:
    answer = await client.put("Patient/ada", json=ADA, headers={"x-provenance": header})
    assert answer.status_code == 400 and word in answer.text, answer.text
    assert (await client.get("Patient/ada")).status_code == 404


async def test_a_write_that_fails_leaves_no_provenance(client: Client) -> None:
    await client.put("Patient/ada", json=ADA)
    stale = await client.put("Patient/ada", json=ADA, headers={**HEADERS, "if-match": 'W/"7"'})
    assert stale.status_code == 412
    wrong = await client.put("Patient/ada", json={**ADA, "gender": 1}, headers=HEADERS)
    assert wrong.status_code == 400 and wrong.json()["issue"][0]["expression"] == ["Patient.gender"]
    assert await list_targets(client) == []


async def test_what_it_does_not_go_with(client: Client) -> None:
    bundle = {"resourceType": "Bundle", "type": "transaction"}
    assert "as an entry" in (await client.fhir("POST", "", json=bundle, headers=HEADERS)).text
    several = await client.fhir("DELETE", "Patient?active=true", headers=HEADERS)
    assert several.status_code == 400


async def test_a_token_needs_the_scope_for_it(known: Knowledge, store_uri: str) -> None:
    async with guarding(known, store_uri) as client:
        without = await act_as(client, "user/Patient.cruds")
        refused = await client.put("Patient/ada", json=ADA, headers={**without, **HEADERS})
        assert refused.status_code == 403 and "Provenance.c" in refused.text
        allowed = await act_as(client, "user/Patient.cruds user/Provenance.cs")
        assert (await client.put("Patient/ada", json=ADA, headers={**allowed, **HEADERS})).status_code == 200
        assert await list_targets(client, allowed) == ["Patient/ada"]
