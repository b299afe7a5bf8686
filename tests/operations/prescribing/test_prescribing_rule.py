"""`FHIR_PRESCRIBING=enforce`: plain writes and bundles are held to the checks; `$new-rx` tells what is active."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.operations.prescribing.rule import prescription_rule
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.writes.rules import Change
from fhir_server.writes.state import State
from tests.conftest import Client, serving
from tests.mappers.prescribing.prescriptions import Tree, allergy, practitioner, prescription
from tests.operations.prescribing.prescribing_clinic import ask, count_active, open_practice, read

pytestmark = pytest.mark.anyio


@pytest.fixture
async def strict(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with serving(known, store=store_uri, prescribing="enforce") as client:
        yield client


async def put(client: Client, resource: Tree) -> int:
    return (await client.fhir("PUT", f"MedicationRequest/{resource['id']}", json=resource)).status_code


async def test_what_becomes_active_is_checked_at_every_door(strict: Client) -> None:
    await open_practice(strict, prescription("first", status="active"), allergy("a", "77"))
    refused = await strict.fhir("PUT", "MedicationRequest/rx", json=prescription(status="active"))
    assert refused.status_code == 422 and "`MedicationRequest/first`" in refused.text
    assert await put(strict, prescription("rx", "77", status="active")) == 422
    assert await put(strict, prescription()) == 201  # a draft is not checked
    patch = [{"op": "replace", "path": "/status", "value": "active"}]
    headers = {"content-type": "application/json-patch+json"}
    assert (await strict.fhir("PATCH", "MedicationRequest/rx", json=patch, headers=headers)).status_code == 422
    entry = {"resource": prescription(status="active"), "request": {"method": "PUT", "url": "MedicationRequest/rx"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    in_bundle = await strict.fhir("POST", "", json=bundle)
    assert in_bundle.status_code == 422
    assert in_bundle.json()["issue"][0]["expression"][0].startswith("Bundle.entry[0].resource")
    overridden = await ask(strict, "MedicationRequest/rx/$activate", override="duplicate", reason="both")
    assert overridden.status_code == 200


async def test_two_of_one_drug_in_a_bundle_and_one_in_the_place_of_another(strict: Client) -> None:
    await open_practice(strict)

    async def send(*resources: Tree) -> int:
        entries = [
            {"resource": each, "request": {"method": "PUT", "url": f"MedicationRequest/{each['id']}"}}
            for each in resources
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        return (await strict.fhir("POST", "", json=bundle)).status_code

    assert await send(prescription("one", status="active"), prescription("two", status="active")) == 422
    assert await send(prescription("one", status="active")) == 200
    assert await send(prescription("one", status="stopped"), prescription("two", status="active")) == 200


async def test_the_life_cycle_and_what_is_not_checked_again(strict: Client) -> None:
    await open_practice(strict, prescription(status="active"))
    await strict.fhir("PUT", "AllergyIntolerance/late", json=allergy("late", "314076"))
    assert await put(strict, prescription(status="active", note=[{"text": "taken well"}])) == 200
    changed = prescription(status="active", dosageInstruction=[{"text": "2 tablets"}])
    assert await put(strict, changed) == 422  # what the checks look at has changed
    assert await put(strict, prescription(status="completed")) == 200
    assert await put(strict, prescription(status="active")) == 422
    assert await put(strict, prescription(status="entered-in-error")) == 200


async def test_plain_writes_at_once_give_one_active_prescription(strict: Client) -> None:
    """Plain writes, drafts that are activated, and transactions meet in one rule; all differ."""
    await open_practice(strict, *(prescription(f"d{number}") for number in range(4)))
    plain = [prescription(f"p{number}", status="active", note=[{"text": f"number {number}"}]) for number in range(4)]
    answers = await asyncio.gather(
        *(put(strict, each) for each in plain),
        *(_activate(strict, f"d{number}") for number in range(4)),
    )
    counts = Counter(answers)
    assert counts[422] == 7 and counts[200] + counts[201] == 1
    assert await count_active(strict) == 1


async def test_by_default_the_type_has_no_rule_and_pays_for_none(client: Client, strict: Client) -> None:
    assert "MedicationRequest" not in client.server.context.rules
    assert "MedicationRequest" in strict.server.context.rules
    assert client.server.context.rules.keys() == strict.server.context.rules.keys() - {"MedicationRequest"}


async def test_what_a_partners_message_tells_is_stored_as_it_tells_it(strict: Client) -> None:
    """It was prescribed elsewhere; the same write by anybody else is refused."""
    await open_practice(strict, prescription("first", status="active"))
    context, change = (
        strict.server.context,
        Change("PUT", "MedicationRequest", "rx", None, prescription(status="active")),
    )
    for partner, refused in (("lab", False), ("", True)):
        caller = Caller("http://test/fhir", Principal("somebody", partner=partner))
        ruling = await prescription_rule(State(context, caller), change)
        assert any(each.severity == "error" for each in ruling.issues) == refused


async def _activate(client: Client, id: str) -> int:
    return (await ask(client, f"MedicationRequest/{id}/$activate")).status_code


def told(**more: Any) -> list[Tree]:
    """Names and a date of birth, which a pharmacy needs."""
    people = [
        {
            "resourceType": "Patient",
            "id": "ada",
            "birthDate": "1980-02-03",
            "name": [{"family": "Oak", "given": ["Ada"]}],
        },
        {**practitioner(), "name": [{"family": "Pine"}]},
    ]
    concept = {"text": "lisinopril 10 mg", "coding": [{"system": "urn:drugs", "code": "1"}]}
    return [*people, prescription(**{"status": "active", "medicationCodeableConcept": concept, **more})]


async def test_new_rx_tells_what_is_active(client: Client) -> None:
    await open_practice(client, *told())
    answer = await client.fhir("GET", "MedicationRequest/rx/$new-rx")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()["Message"]["Body"]["NewRx"]
    assert body["MedicationPrescribed"]["DrugDescription"] == "lisinopril 10 mg"
    assert answer.json()["Message"]["Header"] == {"PrescriberOrderNumber": "rx"}
    assert (await read(client, "rx"))["meta"]["versionId"] == "1"


async def test_new_rx_refuses_what_a_pharmacy_could_not_fill(client: Client) -> None:
    await open_practice(client, prescription("bare", status="active"), *told(status="draft"))
    draft = await client.fhir("GET", "MedicationRequest/rx/$new-rx")
    assert draft.status_code == 422 and "`draft`" in draft.text
    await client.fhir("PUT", "Patient/ada", json={"resourceType": "Patient", "id": "ada"})
    bare = await client.fhir("GET", "MedicationRequest/bare/$new-rx")
    wrong = [each["expression"][0] for each in bare.json()["issue"]]
    assert (bare.status_code, wrong[0]) == (422, "MedicationRequest.subject")
    assert (await client.fhir("GET", "MedicationRequest/none/$new-rx")).status_code == 404
    assert (await client.fhir("GET", "MedicationRequest/rx/$new-rx?x=1")).status_code == 400
