"""Refill requests: their life cycle, what answers them, and `$renew` of the Task itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.merges import announce_merge
from tests.conftest import Client, serving
from tests.mappers.prescribing.prescriptions import Tree, allergy, prescription
from tests.operations.prescribing.prescribing_clinic import ask, checks, open_practice
from tests.operations.prescribing.test_renew import TASK, refill
from tests.operations.scheduling.booking_clinic import entries, store
from tests.workers.hl7v2_messages import choose_store

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return choose_store(request, tmp_path)


@pytest.fixture
async def strict(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with serving(known, store=store_uri, prescribing="enforce") as client:
        yield client


async def put(client: Client, task: Tree) -> tuple[int, str]:
    """The status of a write of a Task, and the sentence that refuses it."""
    answer = await client.fhir("PUT", f"Task/{task['id']}", json=task)
    body = answer.json()
    return answer.status_code, body["issue"][0]["diagnostics"] if body["resourceType"] == "OperationOutcome" else ""


def answered(task: Tree, renewal: str) -> Tree:
    concept = {"coding": [{"system": TASK, "code": "renewal"}]}
    output = {"type": concept, "valueReference": {"reference": f"MedicationRequest/{renewal}"}}
    return {**task, "status": "completed", "output": [output]}


async def test_a_request_keeps_to_its_life_cycle(strict: Client) -> None:
    await open_practice(strict, prescription(status="completed"))
    assert (await put(strict, refill("t")))[0] == 201
    assert (await put(strict, refill("t", "in-progress")))[0] == 200
    status, text = await put(strict, refill("t", "requested"))
    assert status == 422 and text.startswith("A refill request that is `in-progress` cannot become `requested`;")
    status, text = await put(strict, refill("t", "rejected"))
    assert (status, text) == (422, "Say in `statusReason` why more of the drug is refused.")
    assert (await put(strict, {**refill("t", "rejected"), "statusReason": {"text": "see me first"}}))[0] == 200
    status, text = await put(strict, refill("t", "accepted"))
    assert status == 422 and text.endswith("allowed: `entered-in-error`.")


async def test_an_answer_names_the_prescription_that_renews_the_one_asked_for(strict: Client) -> None:
    other = prescription("other", status="completed")
    new = prescription("new", priorPrescription={"reference": "MedicationRequest/rx"})
    await open_practice(strict, prescription(status="completed"), other, new)
    await put(strict, refill("t"))
    status, text = await put(strict, refill("t", "completed"))
    assert status == 422 and "is completed by `$renew`, or names the new MedicationRequest" in text
    status, text = await put(strict, answered(refill("t"), "other"))
    assert (status, text) == (
        422,
        "`MedicationRequest/other` does not name `MedicationRequest/rx` as `priorPrescription`.",
    )
    assert (await put(strict, answered(refill("t"), "new")))[0] == 200


async def test_a_request_is_about_a_prescription_of_its_patient_and_stays_so(strict: Client) -> None:
    await open_practice(strict, prescription(status="active"), prescription("other", "9", status="active"))
    status, text = await put(strict, {**refill("t"), "focus": {"reference": "Patient/ada"}})
    assert (status, text.startswith("A refill request is about a MedicationRequest of this server.")) == (422, True)
    status, text = await put(strict, {**refill("t"), "for": {"reference": "Patient/ben"}})
    assert (status, text) == (422, "The prescription in `focus` is another patient's than the one in `for`.")
    await put(strict, refill("t"))
    status, text = await put(strict, refill("t", focus="other"))
    assert (status, text.startswith("A refill request stays about its prescription.")) == (422, True)
    status, text = await put(strict, {**refill("t"), "code": {"text": "call back"}})
    assert (status, text) == (422, "A refill request stays one. Cancel it, and write another Task.")
    own = {"reference": "http://test/fhir/Patient/ada"}
    assert (await put(strict, {**refill("t", "received"), "for": own}))[0] == 200
    assert (await put(strict, {**refill("u"), "code": {"text": "call back"}, "focus": {"display": "x"}}))[0] == 201


async def test_by_default_a_request_is_stored_as_it_is_sent(client: Client) -> None:
    await open_practice(client, prescription(status="active"))
    assert (await put(client, refill("t", "completed")))[0] == 201


async def test_the_task_itself_is_renewed(client: Client) -> None:
    await open_practice(client, prescription(status="active"), refill("one"), refill("two"))
    made = await ask(client, "Task/one/$renew", reason="asked for")
    assert (made.status_code, made.json()["status"]) == (201, "draft")
    assert made.json()["priorPrescription"] == {"reference": "MedicationRequest/rx"}
    tasks = await entries(client, "Task?code=refill-request")
    assert {each["status"] for each in tasks} == {"completed"}
    again = await ask(client, "Task/one/$renew")
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert len(await entries(client, "MedicationRequest?status=draft")) == 1


async def test_what_is_no_open_refill_request_is_not_renewed(client: Client) -> None:
    reason = {"statusReason": {"text": "no"}}
    others = [{**refill("no", "rejected"), **reason}, {**refill("call"), "code": {"text": "call back"}}]
    await open_practice(client, prescription(status="active"), prescription("end", "9", status="stopped"), *others)
    await store(client, [refill("late", focus="end")])
    for id, status, text in (
        ("no", 422, "`Task/no` is `rejected`: it was answered."),
        ("call", 422, "`Task/call` is no refill request"),
        ("late", 422, "`MedicationRequest/end` is `stopped`"),
        ("none", 404, "`Task/none` does not exist on this server."),
    ):
        answer = await ask(client, f"Task/{id}/$renew")
        assert (answer.status_code, text in answer.text) == (status, True), answer.text


async def test_who_renews_and_who_refuses_at_once_do_not_both_answer(strict: Client) -> None:
    """Four renew two Tasks of one prescription while four refuse them: each Task has one answer, one draft is made."""
    await open_practice(strict, prescription(status="active"), refill("one"), refill("two"))
    refused = {"statusReason": {"text": "see me first"}}
    names = ("one", "two")
    renewals = asyncio.gather(*(ask(strict, f"Task/{name}/$renew") for name in names * 2))
    refusals = asyncio.gather(*(put(strict, {**refill(name, "rejected"), **refused}) for name in names * 2))
    made, written = await renewals, await refusals
    assert {each.status_code for each in made} <= {200, 201, 422}
    assert {status for status, _ in written} <= {200, 422}
    tasks = {each["id"]: each for each in await entries(strict, "Task?code=refill-request")}
    for task in tasks.values():
        assert (task["status"] == "completed") == ("output" in task)
        assert (task["status"] == "rejected") == ("statusReason" in task)
    assert Counter(each.status_code for each in made)[201] <= 1
    assert len(await entries(strict, "MedicationRequest?status=draft")) <= 1


async def test_while_patients_are_merged_the_allergies_of_both_count(client: Client) -> None:
    """The references of the prior are moved one after the other: until then they are the prior's."""
    merge = {
        "resourceType": "Task",
        "id": "move",
        "status": "in-progress",
        "intent": "order",
        "code": {"coding": [{"system": TASK, "code": "repoint-references"}]},
        "focus": {"reference": "Patient/ben"},
        "for": {"reference": "Patient/ada"},
    }
    own = prescription("first", "314076", status="active", subject={"reference": "Patient/ben"})
    prior = allergy("a", "314076", patient={"reference": "Patient/ben"})
    await open_practice(client, prescription(), own, prior, merge)
    assert (await ask(client, "MedicationRequest/rx/$activate", dry_run=True)).status_code == 200
    assert checks(await ask(client, "MedicationRequest/rx/$activate", dry_run=True)) == []
    await announce_merge(client.server.context)
    refused = await ask(client, "MedicationRequest/rx/$activate")
    assert refused.status_code == 422
    assert checks(refused) == [("error", "allergy"), ("error", "duplicate")]
    await store(client, [{**merge, "status": "completed"}, {**prior, "patient": {"reference": "Patient/ada"}}])
    assert checks(await ask(client, "MedicationRequest/rx/$activate")) == [("error", "allergy")]
