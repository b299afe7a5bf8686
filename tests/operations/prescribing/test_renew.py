"""`$renew` makes one draft that continues a prescription and answers the refill requests; `$discontinue` ends one."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.conftest import Client
from tests.mappers.prescribing.prescriptions import Tree, prescription
from tests.operations.prescribing.prescribing_clinic import ask, open_practice, read
from tests.operations.scheduling.booking_clinic import entries, store

pytestmark = pytest.mark.anyio

TASK = "https://fhir-server.example/CodeSystem/task"


def refill(id: str, status: str = "requested", focus: str = "rx") -> Tree:
    """What a patient or pharmacy asks for."""
    return {
        "resourceType": "Task",
        "id": id,
        "status": status,
        "intent": "order",
        "code": {"coding": [{"system": TASK, "code": "refill-request"}]},
        "focus": {"reference": f"MedicationRequest/{focus}"},
        "for": {"reference": "Patient/ada"},
    }


async def test_a_renewal_is_a_draft_of_the_same_that_names_its_prior(client: Client) -> None:
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}
    prior = prescription(
        status="completed",
        meta={"security": [label], "tag": [{"code": "old"}]},
        identifier=[{"system": "urn:rx", "value": "1"}],
        authoredOn="2025-01-01",
        statusReason={"text": "taken"},
    )
    prior["dispenseRequest"] |= {"validityPeriod": {"end": "2025-02-01"}, "numberOfRepeatsAllowed": 2}
    await open_practice(client, prior)
    made = await ask(client, "MedicationRequest/rx/$renew")
    draft = made.json()
    assert (made.status_code, draft["status"]) == (201, "draft")
    assert made.headers["location"].endswith(f"MedicationRequest/{draft['id']}/_history/1")
    assert draft["priorPrescription"] == {"reference": "MedicationRequest/rx"}
    assert draft["authoredOn"] > "2025-01-01" and draft["meta"]["security"] == [label]
    for name in ("identifier", "statusReason", "tag"):
        assert name not in draft and name not in draft["meta"]
    for name in ("medicationCodeableConcept", "subject", "requester", "dosageInstruction"):
        assert draft[name] == prior[name]
    del prior["dispenseRequest"]["validityPeriod"]
    assert draft["dispenseRequest"] == prior["dispenseRequest"]
    (provenance,) = await entries(client, f"Provenance?target=MedicationRequest/{draft['id']}")
    assert provenance["activity"]["text"] == "renew"


async def test_what_only_the_prior_refers_to_is_not_contained_in_the_renewal(client: Client) -> None:
    """Invariant dom-3: what is contained is referred to. The server enforces it."""
    drug = {"resourceType": "Medication", "id": "m", "ingredient": [{"itemReference": {"reference": "#s"}}]}
    substance = {"resourceType": "Substance", "id": "s", "code": {"text": "salt"}}
    issue = {"resourceType": "DetectedIssue", "id": "i", "status": "final"}
    prior = prescription(
        status="active",
        contained=[drug, substance, issue],
        medicationReference={"reference": "#m"},
        detectedIssue=[{"reference": "#i"}],
    )
    del prior["medicationCodeableConcept"]
    await open_practice(client, prior)
    made = await ask(client, "MedicationRequest/rx/$renew")
    assert made.status_code == 201, made.text
    assert [each["id"] for each in made.json()["contained"]] == ["m", "s"]


async def test_a_repeat_answers_with_the_draft_and_the_next_renewal_is_another(client: Client) -> None:
    await open_practice(client, prescription(status="active"))
    first = await ask(client, "MedicationRequest/rx/$renew")
    again = await ask(client, "MedicationRequest/rx/$renew")
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(await entries(client, "Provenance")) == 1
    await ask(client, f"MedicationRequest/{first.json()['id']}/$activate")
    other = await ask(client, "MedicationRequest/rx/$renew")
    assert other.status_code == 201 and other.json()["id"] != first.json()["id"]
    await ask(client, f"MedicationRequest/{other.json()['id']}/$discontinue", reason="one was enough")
    assert (await ask(client, "MedicationRequest/rx/$renew")).status_code == 201


async def test_a_renewal_answers_the_refill_requests_that_are_open(client: Client) -> None:
    asked = [refill("one"), refill("two", "in-progress"), refill("no", "rejected"), refill("else", focus="other")]
    await open_practice(client, prescription(status="active"), prescription("other", "9", status="active"), *asked)
    draft = (await ask(client, "MedicationRequest/rx/$renew", reason="asked for")).json()
    tasks = {each["id"]: each for each in await entries(client, "Task?code=refill-request")}
    assert {id: each["status"] for id, each in tasks.items()} == {
        "one": "completed",
        "two": "completed",
        "no": "rejected",
        "else": "requested",
    }
    (output,) = tasks["one"]["output"]
    assert output["valueReference"] == {"reference": f"MedicationRequest/{draft['id']}"}
    await store(client, [refill("three")])
    again = await ask(client, "MedicationRequest/rx/$renew")
    assert (again.status_code, again.json()["meta"]["versionId"]) == (200, "1")
    assert [each["id"] for each in await entries(client, "Task?code=refill-request&status=requested")] == ["else"]


async def test_requests_and_answers_are_found_by_the_searches_of_the_page(client: Client) -> None:
    await open_practice(client, prescription(status="active"), refill("one"), refill("no", "rejected"))
    for query, expected in (
        ("Task?code=refill-request&status=requested", ["one"]),
        ("Task?code=refill-request&patient=Patient/ada&status=rejected", ["no"]),
        ("Task?focus=MedicationRequest/rx&_sort=_id", ["no", "one"]),
    ):
        answer = await client.fhir("GET", query)
        assert [each["resource"]["id"] for each in answer.json()["entry"]] == expected
        link = next(each["url"] for each in answer.json()["link"] if each["relation"] == "self")
        assert link.endswith(query)


async def test_many_renewals_at_once_make_one_draft(client: Client) -> None:
    """Twelve at once who name different prescribers, while refill requests come in."""
    people = [{"resourceType": "Practitioner", "id": f"p{number}"} for number in range(12)]
    await open_practice(client, prescription(status="active"), *people, *(refill(f"t{number}") for number in range(3)))
    answers = await asyncio.gather(
        *(ask(client, "MedicationRequest/rx/$renew", requester=f"Practitioner/p{number}") for number in range(12)),
        *(store(client, [refill(f"late{number}")]) for number in range(3)),
    )
    renewed = [each for each in answers if each is not None]
    assert Counter(each.status_code for each in renewed) == {201: 1, 200: 11}
    (draft,) = await entries(client, "MedicationRequest?status=draft")
    assert {each.json()["id"] for each in renewed} == {draft["id"]}
    done = await entries(client, "Task?status=completed")
    assert {f"t{number}" for number in range(3)} <= {each["id"] for each in done}
    assert all(len(each["output"]) == 1 for each in done)


@pytest.mark.parametrize("status", ["draft", "stopped", "cancelled", "entered-in-error"])
async def test_what_is_not_renewed(client: Client, status: str) -> None:
    await open_practice(client, prescription(status=status))
    refused = await ask(client, "MedicationRequest/rx/$renew")
    assert refused.status_code == 422 and f"`{status}`" in refused.text
    assert (await ask(client, "MedicationRequest/none/$renew")).status_code == 404


async def test_a_requester_is_a_prescriber_who_is_here(client: Client) -> None:
    await open_practice(client, prescription(status="active"))
    for reference, status in (("Patient/ada", 400), ("Practitioner/nobody", 422), ("Practitioner/pine", 201)):
        assert (await ask(client, "MedicationRequest/rx/$renew", requester=reference)).status_code == status


@pytest.mark.parametrize(("status", "end"), [("draft", "cancelled"), ("active", "stopped"), ("on-hold", "stopped")])
async def test_discontinuing_ends_it_with_the_reason(client: Client, status: str, end: str) -> None:
    await open_practice(client, prescription(status=status))
    done = await ask(client, "MedicationRequest/rx/$discontinue", reason="a rash")
    assert (done.status_code, done.json()["status"]) == (200, end)
    assert done.json()["statusReason"] == {"text": "a rash"}
    again = await ask(client, "MedicationRequest/rx/$discontinue", reason="told twice")
    assert (again.status_code, again.json()) == (200, done.json())
    (provenance,) = await entries(client, "Provenance?target=MedicationRequest/rx")
    assert provenance["reason"] == [{"text": "a rash"}]


async def test_a_chosen_end_and_a_coded_reason(client: Client) -> None:
    code = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/medicationrequest-status-reason", "code": "sddi"}]
    }
    await open_practice(client, prescription(status="active"))
    body = {"resourceType": "Parameters", "parameter": [
        {"name": "reason", "valueCodeableConcept": code}, {"name": "status", "valueCode": "cancelled"}
    ]}  # fmt: skip
    done = await client.fhir("POST", "MedicationRequest/rx/$discontinue", json=body)
    assert (done.status_code, done.json()["status"], done.json()["statusReason"]) == (200, "cancelled", code)
    other = await ask(client, "MedicationRequest/rx/$discontinue", reason="x", status="stopped")
    assert other.status_code == 422
    assert (await ask(client, "MedicationRequest/rx/$discontinue", reason="x", status="on-hold")).status_code == 400


async def test_what_cannot_be_discontinued(client: Client) -> None:
    await open_practice(client, prescription(status="completed"), prescription("new"))
    assert (await ask(client, "MedicationRequest/rx/$discontinue", reason="x")).status_code == 422
    bare = await ask(client, "MedicationRequest/new/$discontinue")
    assert (bare.status_code, bare.json()["issue"][0]["expression"]) == (400, ["reason"])
    assert (await read(client, "new"))["status"] == "draft"


async def test_activated_and_discontinued_at_once(client: Client) -> None:
    """Whichever comes first, the draft ends once: cancelled, or active and then stopped."""
    drafts = [prescription(f"d{number}", str(number)) for number in range(8)]
    await open_practice(client, *drafts)
    calls = [
        call
        for each in drafts
        for call in (
            ask(client, f"MedicationRequest/{each['id']}/$activate"),
            ask(client, f"MedicationRequest/{each['id']}/$discontinue", reason="not wanted"),
        )
    ]
    answers = await asyncio.gather(*calls)
    for number, (activated, discontinued) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        assert discontinued.status_code == 200
        end = (await read(client, f"d{number}"))["status"]
        assert end == {200: "stopped", 422: "cancelled"}[activated.status_code]
