"""`$activate`: the checks are made, and a draft becomes active once, whoever else activates at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fhir_server.app import Knowledge
from fhir_server.operations.prescribing import surroundings
from tests.conftest import Client, serving
from tests.mappers.prescribing.prescriptions import Tree, allergy, concept, prescription, schedule
from tests.operations.prescribing.prescribing_clinic import ask, checks, count_active, open_practice, read
from tests.operations.scheduling.booking_clinic import entries, store

pytestmark = pytest.mark.anyio


async def test_a_draft_becomes_active_and_a_repeat_changes_nothing(client: Client) -> None:
    await open_practice(client, prescription())
    first = await ask(client, "MedicationRequest/rx/$activate")
    assert (first.status_code, checks(first)) == (200, [])
    stored = await read(client, "rx")
    assert (stored["status"], stored["meta"]["versionId"]) == ("active", "2")
    assert stored["authoredOn"]
    assert first.json()["parameter"][0] == {"name": "return", "resource": stored}
    again = await ask(client, "MedicationRequest/rx/$activate")
    assert (again.status_code, (await read(client, "rx"))["meta"]["versionId"]) == (200, "2")
    assert "nothing was checked" in again.text
    (provenance,) = await entries(client, "Provenance?target=MedicationRequest/rx")
    assert provenance["activity"]["text"] == "activate" and "reason" not in provenance


async def test_numbers_stay_as_they_are_written(client: Client) -> None:
    await open_practice(client)
    body = (
        '{"resourceType": "MedicationRequest", "id": "rx", "status": "draft", "intent": "order", "authoredOn": '
        '"2026-03-01", "subject": {"reference": "Patient/ada"}, "requester": {"reference": "Practitioner/pine"}, '
        '"medicationCodeableConcept": {"text": "x"}, "dosageInstruction": [{"doseAndRate": [{"doseQuantity": {"value": '
        '1.50}}]}], "dispenseRequest": {"quantity": {"value": 3.0}, "expectedSupplyDuration": {"value": 30, "code": '
        '"d", "system": "http://unitsofmeasure.org"}}}'
    )
    await client.fhir("PUT", "MedicationRequest/rx", content=body, headers={"content-type": "application/fhir+json"})
    answer = await ask(client, "MedicationRequest/rx/$activate")
    assert checks(answer) == [("warning", "medicine")]
    assert '"value":1.50' in answer.text.replace(" ", "") and '"value":3.0' in answer.text.replace(" ", "")
    assert (await read(client, "rx"))["authoredOn"] == "2026-03-01"


async def test_what_the_checks_refuse_stays_a_draft(client: Client) -> None:
    await open_practice(
        client,
        prescription(dosageInstruction=[{"patientInstruction": "with food"}], extension=[schedule("II")]),
        dea="",
    )
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert (refused.status_code, checks(refused)) == (422, [("error", "schedule"), ("error", "dose")])
    overridden = await ask(client, "MedicationRequest/rx/$activate", override=["allergy", "duplicate"], reason="x")
    assert overridden.status_code == 422
    assert (await read(client, "rx"))["meta"]["versionId"] == "1"
    assert await entries(client, "Provenance") == []


async def test_an_allergy_by_an_ingredient_of_a_stored_medication(client: Client) -> None:
    """The Medication refers to a Substance, whose code the allergy has."""
    substance = {"resourceType": "Substance", "id": "s", "code": concept("7980")}
    drug = {"resourceType": "Medication", "id": "m", "ingredient": [{"itemReference": {"reference": "Substance/s"}}]}
    request = prescription(medicationReference={"reference": "Medication/m"})
    del request["medicationCodeableConcept"]
    await open_practice(client, substance, drug, request, allergy("a", "7980"))
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert checks(refused)[0] == ("error", "allergy")
    assert "`AllergyIntolerance/a`" in refused.text


async def test_an_override_needs_a_reason_and_is_recorded(client: Client) -> None:
    await open_practice(client, prescription(), prescription("old", status="active"), allergy("a", "314076"))
    bare = await ask(client, "MedicationRequest/rx/$activate", override="duplicate")
    assert (bare.status_code, bare.json()["issue"][0]["expression"]) == (400, ["reason"])
    unknown = await ask(client, "MedicationRequest/rx/$activate", override="dose", reason="x")
    assert (unknown.status_code, unknown.json()["issue"][0]["expression"]) == (400, ["override"])
    half = await ask(client, "MedicationRequest/rx/$activate", override="duplicate", reason="both are wanted")
    assert (half.status_code, checks(half)) == (422, [("error", "allergy"), ("warning", "duplicate")])
    both = await ask(client, "MedicationRequest/rx/$activate", override=["duplicate", "allergy"], reason="was mild")
    assert (both.status_code, checks(both)) == (200, [("warning", "allergy"), ("warning", "duplicate")])
    (provenance,) = await entries(client, "Provenance?target=MedicationRequest/rx")
    (reason,) = provenance["reason"]
    assert reason["text"] == "was mild"
    assert [each["code"] for each in reason["coding"]] == ["allergy", "duplicate"]


async def test_a_dry_run_tells_and_writes_nothing(client: Client) -> None:
    await open_practice(client, prescription(), prescription("old", status="active", extension=[schedule("X")]))
    tried = await ask(client, "MedicationRequest/rx/$activate", dry_run=True)
    assert (tried.status_code, tried.json()["resourceType"]) == (200, "OperationOutcome")
    assert checks(tried) == [("error", "duplicate")]
    assert (await read(client, "rx"))["status"] == "draft" and await entries(client, "Provenance") == []
    await store(client, [allergy("late", "314076")])
    active = await ask(client, "MedicationRequest/old/$activate", dry_run=True)
    assert checks(active) == [("error", "schedule"), ("error", "allergy")]


async def test_the_schedule_may_come_from_medication_knowledge(client: Client) -> None:
    known_of = {
        "resourceType": "MedicationKnowledge",
        "id": "k",
        "code": concept("314076"),
        "regulatory": [
            {"regulatoryAuthority": {"display": "DEA"}, "schedule": [{"schedule": concept("C48675", "urn:oid:2.16")}]}
        ],
    }
    await open_practice(client, prescription(), known_of, dea="")
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert checks(refused) == [("error", "schedule")]


async def test_a_role_stands_for_its_practitioner(client: Client) -> None:
    role = {"resourceType": "PractitionerRole", "id": "r", "practitioner": {"reference": "Practitioner/pine"}}
    await open_practice(client, role, prescription(requester={"reference": "PractitionerRole/r"}))
    assert (await ask(client, "MedicationRequest/rx/$activate")).status_code == 200


@pytest.mark.parametrize("status", ["completed", "stopped", "cancelled", "entered-in-error"])
async def test_what_has_ended_is_not_activated(client: Client, status: str) -> None:
    await open_practice(client, prescription(status=status))
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert refused.status_code == 422 and f"`{status}`" in refused.text
    assert (await ask(client, "MedicationRequest/none/$activate")).status_code == 404


async def test_a_renewal_completes_what_it_renews(client: Client) -> None:
    """Else each renewal in force would be a duplicate of the one before it."""
    renewal = prescription("new", priorPrescription={"reference": "MedicationRequest/rx"})
    await open_practice(client, prescription(status="active"), renewal)
    done = await ask(client, "MedicationRequest/new/$activate")
    assert (done.status_code, checks(done)) == (200, [("information", "duplicate")])
    assert ((await read(client, "rx"))["status"], (await read(client, "new"))["status"]) == ("completed", "active")


async def test_who_and_what_is_elsewhere_is_not_taken_for_what_is_here(client: Client) -> None:
    """A patient of another server has no allergies here, and a prescription of another server is none of ours."""
    elsewhere = "https://elsewhere.example/fhir"
    renewal = prescription("new", priorPrescription={"reference": f"{elsewhere}/MedicationRequest/rx"})
    foreign = prescription("foreign", subject={"reference": f"{elsewhere}/Patient/ada"})
    await open_practice(client, prescription(status="active"), renewal, foreign)
    assert checks(await ask(client, "MedicationRequest/new/$activate")) == [("error", "duplicate")]
    assert checks(await ask(client, "MedicationRequest/foreign/$activate")) == [("error", "patient")]


async def test_plain_writes_and_bundles_are_stored_as_sent(client: Client) -> None:
    await open_practice(client, prescription(status="active"))
    double = prescription("double", status="active", requester={"display": "somebody"})
    del double["dosageInstruction"]
    entry = {"resource": double, "request": {"method": "PUT", "url": "MedicationRequest/double"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert (await client.fhir("POST", "", json=bundle)).status_code == 200
    assert await count_active(client) == 2


async def test_what_is_compared_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "MOST_OTHERS", 2)
    monkeypatch.setattr(surroundings, "MOST_REFERENCES", 2)
    drugs = [{"resourceType": "Medication", "id": f"m{number}"} for number in range(3)]
    mixture = {"resourceType": "Medication", "id": "mix", "ingredient": [
        {"itemReference": {"reference": f"Medication/m{number}"}} for number in range(3)
    ]}  # fmt: skip
    wide = prescription("wide", medicationReference={"reference": "Medication/mix"})
    del wide["medicationCodeableConcept"]
    codings = [{"system": "urn:x", "code": f"{number}"} for number in range(101)]
    many = prescription("many", medicationCodeableConcept={"coding": codings})
    await open_practice(client, *drugs, mixture, wide, many, prescription())
    for id in ("wide", "many"):
        refused = await ask(client, f"MedicationRequest/{id}/$activate")
        assert (refused.status_code, refused.json()["issue"][0]["code"]) == (422, "too-costly")
    await store(client, [allergy(f"a{number}", "1") for number in range(3)])
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert refused.status_code == 413 and "`AllergyIntolerance`" in refused.text


async def test_several_drafts_of_one_drug_at_once_give_one_prescription(client: Client) -> None:
    """Eight drafts that differ in how much and how long, each activated twice at once."""
    drafts = [_draft(number) for number in range(8)]
    await open_practice(client, *drafts)
    urls = [f"MedicationRequest/{each['id']}/$activate" for each in drafts] * 2
    answers = await asyncio.gather(*(ask(client, url) for url in urls))
    statuses = Counter(each.status_code for each in answers)
    assert set(statuses) <= {200, 422} and 1 <= statuses[200] <= 2
    (active,) = await entries(client, "MedicationRequest?status=active")
    assert len(await entries(client, f"Provenance?target=MedicationRequest/{active['id']}")) == 1
    assert len(await entries(client, "Provenance")) == 1
    for each in answers:
        if each.status_code == 422:
            assert ("error", "duplicate") in checks(each)


async def test_activations_of_other_patients_and_drugs_do_not_stop_each_other(client: Client) -> None:
    drafts = [prescription(f"d{number}", str(number)) for number in range(4)]
    drafts += [prescription(f"b{number}", "1", subject={"reference": "Patient/ben"}) for number in range(3)]
    await open_practice(client, *drafts)
    answers = await asyncio.gather(*(ask(client, f"MedicationRequest/{each['id']}/$activate") for each in drafts))
    assert Counter(each.status_code for each in answers) == {200: 5, 422: 2}
    assert (await count_active(client), await count_active(client, "ben")) == (4, 1)


async def test_an_allergy_that_is_stored_meanwhile_counts(known: Knowledge, store_uri: str) -> None:
    """Whichever comes first: an active prescription was checked on what was stored before it."""
    async with serving(known, store=store_uri) as client:
        await open_practice(client, *(prescription(f"d{number}", str(number)) for number in range(6)))
        await asyncio.gather(
            *(ask(client, f"MedicationRequest/d{number}/$activate") for number in range(6)),
            *(store(client, [allergy(f"a{number}", str(number))]) for number in range(6)),
        )
        for number in range(6):
            versions = (await client.fhir("GET", f"MedicationRequest/d{number}/_history")).json()["entry"]
            if len(versions) == 2:
                allergic = (await client.fhir("GET", f"AllergyIntolerance/a{number}")).json()
                assert versions[0]["resource"]["meta"]["lastUpdated"] <= allergic["meta"]["lastUpdated"]


def _draft(number: int) -> Tree:
    dispense = {
        "quantity": {"value": 10 + number},
        "expectedSupplyDuration": {"value": 5 + number, "system": "http://unitsofmeasure.org", "code": "d"},
    }
    return prescription(f"draft-{number}", dispenseRequest=dispense)
