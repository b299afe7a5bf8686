"""The Task of a claim from the day it is made, over HTTP: its states, what is refused, what is left alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Conflict, NotFound
from fhir_server.requests.request import Caller
from fhir_server.workers.claim_tasks import move_claim
from fhir_server.workers.posting.writes import put as write
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import STATES, ClaimState, make_task_id, move_task
from tests.conftest import Client
from tests.operations.payments.money_clinic import bill, practice, sentence

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]
STATE = "https://fhir-server.example/CodeSystem/claim-state"
NUMBER = "https://fhir-server.example/identifier/patient-control-number"


def claim(id: str = "c", **more: Any) -> Tree:
    """A draft claim of one line for patient a."""
    return {
        "resourceType": "Claim",
        "id": id,
        "status": "draft",
        "use": "claim",
        "type": {"coding": [{"code": "professional"}]},
        "patient": {"reference": "Patient/a"},
        "created": "2026-03-01",
        "provider": {"reference": "Organization/us"},
        "priority": {"coding": [{"code": "normal"}]},
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "Plan 1"}}],
        "item": [{"sequence": 1, "productOrService": {"coding": [{"code": "99213"}]}}],
        **more,
    }


def identified(number: str) -> list[Tree]:
    return [{"system": NUMBER, "value": number}]


async def put(client: Client, resource: Tree) -> Tree:
    answer = await client.fhir("PUT", f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()  # type: ignore[no-any-return]


async def read_task(client: Client, id: str = "c") -> Tree:
    answer = await client.fhir("GET", f"Task/{make_task_id(f'Claim/{id}')}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def read_state(client: Client, id: str = "c") -> str:
    return (await read_task(client, id))["businessStatus"]["coding"][0]["code"]  # type: ignore[no-any-return]


async def set_state(client: Client, state: ClaimState, id: str = "c") -> None:
    """The state as the operations of the server write it, whatever it was before."""
    task = await read_task(client, id)

    async def decide(_: State) -> Decision[None]:
        return Decision(None, (write(move_task(task, state, "2026-03-02T12:00:00Z")),))

    await decide_and_commit(client.server.context, Caller(base="http://test/fhir"), decide)


async def test_a_draft_has_its_task_from_the_day_it_is_made(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await put(client, claim())
        task = await read_task(client)
        assert task["focus"] == {"reference": "Claim/c"} and task["for"] == {"reference": "Patient/a"}
        assert task["businessStatus"]["coding"] == [{"system": STATE, "code": "draft"}]
        posted = (await client.post("Claim", json=claim())).json()
        assert await read_state(client, posted["id"]) == "draft"
        found = (await client.get("Task", params={"business-status": f"{STATE}|draft"})).json()
        assert len(found["entry"]) == 2
        assert {link["relation"] for link in found["link"]} >= {"self"}


async def test_histories_from_elsewhere_get_no_task(known: Knowledge) -> None:
    async with practice(known) as client:
        await put(client, claim("active", status="active"))
        await put(client, claim("asked", use="preauthorization"))
        assert (await client.get("Task?_total=accurate")).json()["total"] == 0
        await bill(client, "03-01", "A1", "100")
        assert await read_state(client, "a1") == "draft"


async def test_an_edit_takes_the_judgement_back_and_a_cancellation_closes(known: Knowledge) -> None:
    async with practice(known) as client:
        await put(client, claim())
        await set_state(client, "ready")
        await put(client, claim())
        assert await read_state(client) == "ready"
        await put(client, claim(created="2026-03-02"))
        assert await read_state(client) == "draft"
        await put(client, claim(status="cancelled"))
        assert await read_state(client) == "closed"
        assert (await read_task(client))["status"] == "completed"


@pytest.mark.parametrize("state", [state for state, row in STATES.items() if not row.editable])
async def test_what_was_sent_is_neither_edited_nor_deleted(known: Knowledge, state: ClaimState) -> None:
    async with practice(known) as client:
        await put(client, claim())
        await set_state(client, state)
        edits = [
            await client.fhir("PUT", "Claim/c", json=claim(created="2026-03-02")),
            await client.fhir("PATCH", "Claim/c", json=[{"op": "replace", "path": "/status", "value": "cancelled"}],
                              headers={"Content-Type": "application/json-patch+json"}),
        ]  # fmt: skip
        for answer in edits:
            assert answer.status_code == 422, answer.text
            assert f"in the state `{state}` and is not edited" in sentence(answer)
            assert all(f"`{each}`" in sentence(answer) for each in STATES[state].next)
        deleted = await client.fhir("DELETE", "Claim/c")
        assert deleted.status_code == (204 if state == "closed" else 422), deleted.text
        merged = await client.fhir("PUT", "Claim/c", json=claim(patient={"reference": "Patient/b"}))
        assert merged.status_code in (200, 201), merged.text


async def test_the_task_of_a_claim_that_is_deleted_is_closed_and_may_go(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await put(client, claim(identifier=identified("A1B2")))
        task = f"Task/{make_task_id('Claim/c')}"
        assert (await client.fhir("DELETE", task)).status_code == 422
        assert (await client.fhir("DELETE", "Claim/c")).status_code == 204
        left = await read_task(client)
        assert left["businessStatus"]["coding"][0]["code"] == "closed"
        assert left["focus"]["identifier"]["value"] == "A1B2"
        await put(client, claim())
        assert await read_state(client) == "draft"
        await client.fhir("DELETE", "Claim/c")
        assert (await client.fhir("DELETE", task)).status_code == 204


async def test_a_patient_control_number_is_of_one_claim_for_ever(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await put(client, claim(identifier=identified("A1B2")))
        again = await client.fhir("PUT", "Claim/d", json=claim("d", identifier=identified("A1B2")))
        assert again.status_code == 422 and "`Claim/c` has the patient control number `A1B2`" in sentence(again)
        changed = await client.fhir("PUT", "Claim/c", json=claim(identifier=identified("Z9")))
        assert changed.status_code == 422 and "`A1B2` for ever" in sentence(changed)
        await put(client, claim("d"))
        later = await client.fhir("PUT", "Claim/d", json=claim("d", identifier=identified("A1B2")))
        assert later.status_code == 422
        entry = {"resource": claim(identifier=identified("N1")), "request": {"method": "POST", "url": "Claim"}}
        both = await client.fhir(
            "POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry, entry]}
        )
        assert both.status_code == 422, both.text


async def test_a_person_moves_the_task_by_the_table(known: Knowledge) -> None:
    async with practice(known) as client:
        await put(client, claim())
        for before, to in itertools.product(STATES, STATES):
            await set_state(client, before)
            task = await read_task(client)
            task["businessStatus"]["coding"][0]["code"] = to
            answer = await client.fhir("PUT", f"Task/{task['id']}", json=task)
            if to == before or (to in STATES[before].next and to not in ("ready", "split", "sent")):
                assert answer.status_code == 200, answer.text
                assert (await read_task(client))["status"] == STATES[to].status
            else:
                assert answer.status_code == 409, (before, to, answer.text)
                assert f"`{before}` and cannot become `{to}`" in sentence(answer)


async def test_the_task_of_a_claim_is_made_with_it_alone(known: Knowledge) -> None:
    async with practice(known) as client:
        await put(client, claim())
        task = await read_task(client)
        other = await client.fhir("PUT", "Task/other", json={**task, "id": "other"})
        assert other.status_code == 422 and "made with the Claim" in sentence(other)
        moved = await client.fhir("PUT", f"Task/{task['id']}", json={**task, "focus": {"reference": "Claim/d"}})
        assert moved.status_code == 422 and "`focus`" in sentence(moved)
        plain = {"resourceType": "Task", "id": "plain", "status": "requested", "intent": "order"}
        await put(client, plain)
        own = {**task, "id": make_task_id("Claim/e"), "focus": {"reference": "Claim/e"}}
        bundle = [
            {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
            for each in (claim("e"), own)
        ]
        restored = await client.fhir(
            "POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": bundle}
        )
        assert restored.status_code == 200, restored.text


async def test_acknowledgements_move_a_claim_by_number_and_never_back(known: Knowledge) -> None:
    async with practice(known) as client:
        await put(client, claim(identifier=identified("A1B2")))

        async def tell(to: ClaimState, who: str = "a1b2 ") -> None:
            async def decide(state: State) -> Decision[None]:
                return Decision(None, await move_claim(state, who, to, f"Told {to}."))

            await decide_and_commit(client.server.context, Caller(base="http://test/fhir"), decide)

        with pytest.raises(Conflict, match="`draft` and cannot become `accepted`; from there it can become `ready`"):
            await tell("accepted")
        await set_state(client, "sent")
        await tell("accepted")
        await tell("received")
        task = await read_task(client)
        assert (await read_state(client), task["statusReason"]["text"]) == ("accepted", "Told accepted.")
        await tell("rejected", "Claim/c")
        assert await read_state(client) == "rejected"
        with pytest.raises(NotFound, match="`NONE`"):
            await tell("accepted", "NONE")
