"""`$everything` of patients and encounters (https://hl7.org/fhir/R4/patient-operation-everything.html)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

PATIENT = {"reference": "Patient/p"}
CODE = {"text": "x"}
RESOURCES: tuple[dict[str, Any], ...] = (
    {"resourceType": "Organization", "id": "clinic", "name": "Clinic"},
    {"resourceType": "Organization", "id": "unrelated", "name": "Unrelated"},
    {"resourceType": "Practitioner", "id": "dr"},
    {"resourceType": "Location", "id": "room"},
    {"resourceType": "Binary", "id": "scan", "contentType": "text/plain", "data": "eA=="},
    {"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": "Organization/clinic"}},
    {"resourceType": "Patient", "id": "other"},
    {
        "resourceType": "Encounter",
        "id": "e",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": PATIENT,
        "period": {"start": "2026-03-01", "end": "2026-03-02"},
        "location": [{"location": {"reference": "Location/room"}}],
    },
    {
        "resourceType": "Observation",
        "id": "early",
        "status": "final",
        "code": CODE,
        "subject": PATIENT,
        "effectiveDateTime": "2020-05-05",
        "performer": [{"reference": "Practitioner/dr"}],
    },
    {
        "resourceType": "Observation",
        "id": "late",
        "status": "final",
        "code": CODE,
        "subject": PATIENT,
        "encounter": {"reference": "Encounter/e"},
        "effectiveDateTime": "2026-03-01T10:00:00Z",
    },
    {"resourceType": "Observation", "id": "undated", "status": "final", "code": CODE, "subject": PATIENT},
    {
        "resourceType": "Observation",
        "id": "others",
        "status": "final",
        "code": CODE,
        "subject": {"reference": "Patient/other"},
    },
    {
        "resourceType": "DocumentReference",
        "id": "doc",
        "status": "current",
        "subject": PATIENT,
        "content": [{"attachment": {"url": "Binary/scan"}}],
    },
)
COMPARTMENT = {
    *("Patient/p", "Encounter/e", "Observation/early", "Observation/late", "Observation/undated"),
    "DocumentReference/doc",
}
REFERRED = {"Organization/clinic", "Practitioner/dr", "Location/room", "Binary/scan"}


@pytest.fixture
async def ward(client: Client) -> Client:
    for resource in RESOURCES:
        if resource["id"] == "late":
            await asyncio.sleep(0.003)  # `_since` counts milliseconds: what is written from here on is later
        made = await client.fhir("PUT", f"/{resource['resourceType']}/{resource['id']}", json=resource)
        assert made.status_code == 201, made.text
    return client


def found(bundle: dict[str, Any], mode: str) -> list[str]:
    entries = [entry for entry in bundle.get("entry", ()) if entry["search"]["mode"] == mode]
    return [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in entries]


async def ask(client: Client, url: str) -> dict[str, Any]:
    response = await client.fhir("GET", url)
    assert response.status_code == 200, response.text
    bundle: dict[str, Any] = response.json()
    assert bundle["type"] == "searchset"
    return bundle


async def test_the_compartment_and_what_it_refers_to(ward: Client) -> None:
    bundle = await ask(ward, "/Patient/p/$everything")
    assert set(found(bundle, "match")) == COMPARTMENT
    assert set(found(bundle, "include")) == REFERRED
    assert bundle["total"] == len(COMPARTMENT)
    assert [link["relation"] for link in bundle["link"]] == ["self"]


async def test_care_dates_limit_what_has_one(ward: Client) -> None:
    """Resources without a care date stay: nothing says that the care was at another time."""
    bundle = await ask(ward, "/Patient/p/$everything?start=2026-01-01&end=2026-03-01")
    assert set(found(bundle, "match")) == COMPARTMENT - {"Observation/early"}
    before = await ask(ward, "/Patient/p/$everything?end=2020")
    assert set(found(before, "match")) == COMPARTMENT - {"Observation/late", "Encounter/e"}


async def test_types(ward: Client) -> None:
    bundle = await ask(ward, "/Patient/p/$everything?_type=Observation,Encounter")
    assert found(bundle, "match") == ["Encounter/e", "Observation/early", "Observation/late", "Observation/undated"]
    assert found(bundle, "include") == []
    several = await ask(ward, "/Patient/p/$everything?_type=Practitioner&_type=Patient")
    assert (found(several, "match"), found(several, "include")) == (["Patient/p"], ["Practitioner/dr"])


async def test_since(ward: Client) -> None:
    stamp = (await ward.fhir("GET", "/Observation/late")).json()["meta"]["lastUpdated"]
    bundle = await ask(ward, f"/Patient/p/$everything?_since={stamp}")
    assert set(found(bundle, "match")) == {"Observation/late", "Observation/undated", "DocumentReference/doc"}
    assert found(bundle, "include") == []


async def test_pages_hold_each_match_once(ward: Client) -> None:
    bundle = await ask(ward, "/Patient/p/$everything?_count=2")
    matches, included = found(bundle, "match"), set(found(bundle, "include"))
    for _ in range(2):
        assert "total" not in bundle
        following = {link["relation"]: link["url"] for link in bundle["link"]}["next"]
        bundle = await ask(ward, following)
        matches += found(bundle, "match")
        included |= set(found(bundle, "include"))
    assert {link["relation"] for link in bundle["link"]} == {"self"}
    assert len(matches) == len(COMPARTMENT) and set(matches) == COMPARTMENT
    assert included == REFERRED


async def test_all_patients(ward: Client) -> None:
    bundle = await ask(ward, "/Patient/$everything")
    assert set(found(bundle, "match")) == COMPARTMENT | {"Patient/other", "Observation/others"}
    assert set(found(bundle, "include")) == REFERRED


async def test_an_encounter(ward: Client) -> None:
    bundle = await ask(ward, "/Encounter/e/$everything")
    assert found(bundle, "match") == ["Encounter/e", "Observation/late"]
    assert set(found(bundle, "include")) == {"Patient/p", "Location/room"}


async def test_parameters_in_a_body(ward: Client) -> None:
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "_type", "valueCode": "Observation"}, {"name": "start", "valueDate": "2026-01-01"}],
    }
    response = await ward.fhir("POST", "/Patient/p/$everything", json=body)
    assert found(response.json(), "match") == ["Observation/late", "Observation/undated"]


@pytest.mark.parametrize(
    ("url", "status", "sentence"),
    [
        ("/Patient/none/$everything", 404, "`Patient/none` does not exist on this server."),
        ("/Patient/p/$everything?_count=0", 400, "`_count` must be a whole number of at least 1, not `0`."),
        ("/Patient/p/$everything?start=soon", 400, "`start=soon` cannot be read"),
        ("/Patient/p/$everything?_type=Pig", 400, "`_type` names `Pig`"),
        ("/Patient/p/$everything?code=1", 400, "`$everything` has no parameter `code`"),
        ("/Encounter/$everything", 404, "`$everything` is called on `Patient/$everything` or"),
        ("/Practitioner/dr/$everything", 404, "`$everything` is called on"),
    ],
)
async def test_what_is_refused(ward: Client, url: str, status: int, sentence: str) -> None:
    response = await ward.fhir("GET", url)
    assert response.status_code == status
    assert response.json()["issue"][0]["diagnostics"].startswith(sentence)


async def test_a_deleted_patient_is_gone(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    await client.fhir("DELETE", "/Patient/p")
    assert (await client.fhir("GET", "/Patient/p/$everything")).status_code == 410


async def test_more_than_one_bundle_holds_needs_pages(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, max_included=2) as client:
        for id in ("p", "q", "r"):
            await client.fhir("PUT", f"/Patient/{id}", json={"resourceType": "Patient", "id": id})
        refused = await client.fhir("GET", "/Patient/$everything")
        assert refused.status_code == 413
        assert "`_count`" in refused.json()["issue"][0]["diagnostics"]
        assert found(await ask(client, "/Patient/$everything?_count=2"), "match") == ["Patient/p", "Patient/q"]


async def test_only_the_types_that_have_it_list_it(client: Client) -> None:
    (rest,) = (await client.fhir("GET", "/metadata")).json()["rest"]
    listed = {
        each["type"]: operation["definition"]
        for each in rest["resource"]
        for operation in each["operation"]
        if operation["name"] == "everything"
    }
    assert listed == {
        type: f"http://hl7.org/fhir/OperationDefinition/{type}-everything" for type in ("Encounter", "Patient")
    }
