"""Money that stayed unapplied is applied later: once, by the laws of an 835, by new entries, on each store."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.payments.money_clinic import bill, call, practice, read_balance, sentence
from tests.operations.payments.remittances import clp, find, make_835, send, svc, take
from tests.operations.payments.test_post_by_hand import POST, claim, eob, part

pytestmark = pytest.mark.anyio

D = Decimal
Tree = dict[str, Any]

UNKNOWN = clp("OTHER99", "1", "100", "60", icn="ICN7") + svc("A1L1", "100", "60", "CAS*CO*45*25", "CAS*PR*2*15")


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def any_store(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """A fresh store of each kind."""
    uris = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}
    return uris.get(request.param) or request.getfixturevalue("new_mongo_uri")()


async def read_task(client: Client) -> str:
    """The Task of what is unapplied."""
    (task,) = await find(client, "Task?code=unapplied-payment")
    return f"Task/{task['id']}"


async def read_unapplied(client: Client, day: str = "2026-03-02") -> Decimal:
    """What a day's summary says is unapplied."""
    answer = await client.fhir("GET", f"$financial-summary?start={day}&end={day}", headers={"accept": "text/csv"})
    return D(next(line for line in answer.text.splitlines() if line.startswith("unapplied,")).split(",")[1])


def typed(task: str, *claims: list[Tree], **more: Any) -> Tree:
    parts = [{"name": "task", "valueString": task}, *(part("claim", each) for each in claims)]
    return {"resourceType": "Parameters", "parameter": [*parts, *(part(name, value) for name, value in more.items())]}


async def test_a_detail_is_applied_to_the_claim_it_was_for(known: Knowledge, any_store: str) -> None:
    async with practice(known, any_store) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", UNKNOWN))
        task = await read_task(client)
        assert ((await read_balance(client, "a"))["balance"], await read_unapplied(client)) == (D(100), D(60))
        (remittance,) = await find(client, "PaymentReconciliation")

        made = await call(client, POST, task=task, request="Claim/a1")
        assert made.status_code == 201, made.text
        applied = made.json()
        amounts = [each["amount"]["value"] for each in applied["detail"]]
        assert (applied["paymentAmount"]["value"], amounts) == (0, [60, -60])
        assert applied["detail"][1]["predecessor"] == remittance["detail"][0]["identifier"]
        assert applied["paymentIssuer"] == remittance["paymentIssuer"] == {"reference": "Organization/payer1"}

        balance = await read_balance(client, "a")
        assert (balance["payments"], balance["adjustments"], balance["balance"]) == (60, 25, 15)
        assert (balance["patient-balance"], await read_unapplied(client)) == (D(15), D(0))
        assert [each["totalNet"]["value"] for each in await find(client, "Invoice")] == [15]
        (response,) = await find(client, "ClaimResponse")
        assert response["item"][0]["itemSequence"] == 1
        done = (await client.get(task)).json()
        assert done["status"] == "completed"
        assert done["output"][0]["valueReference"] == {"reference": f"PaymentReconciliation/{applied['id']}"}
        # the remittance itself is as it was
        assert (await client.get(f"PaymentReconciliation/{remittance['id']}")).json() == remittance


async def test_it_is_applied_once_whoever_asks(known: Knowledge, any_store: str) -> None:
    async with practice(known, any_store) as client:
        for number in ("A1", "A2"):
            await bill(client, "03-01", number, "100")
        await take(client, make_835("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40")))
        task = await read_task(client)
        asked = [call(client, POST, task=task, request=f"Claim/{id}") for id in ("a1", "a2") * 3]
        answers = await asyncio.gather(*asked)
        statuses = [each.status_code for each in answers]
        assert statuses.count(201) == 1 and sorted(statuses) == [200, 200, 201, 409, 409, 409]
        refused = next(each for each in answers if each.status_code == 409)
        assert "it can be applied once" in sentence(refused)
        assert len(await find(client, "ClaimResponse")) == 1
        assert (await read_balance(client, "a"))["balance"] == 100
        # the same set in another envelope is still the same
        again = await send(client, make_835("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40"), envelope=2), "2")
        assert again.state == "acknowledged"
        assert len(await find(client, "PaymentReconciliation")) == 2


async def test_one_detail_is_applied_to_two_claims_as_they_should_have_been_told(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await bill(client, "03-01", "B1", "90")
        # its line does not add up
        wrong = clp("A1", "1", "190", "130") + svc("A1L1", "190", "130", "CAS*CO*45*30")
        await take(client, make_835("130", wrong))
        task = await read_task(client)
        told = await call(client, POST, task=task, request="Claim/a1")
        assert (told.status_code, "30.00 missing" in sentence(told)) == (422, True)
        both = (claim("A1", "1", 100, 70, ("CO", "45", 30)), claim("B1", "1", 90, 60, ("PR", "1", 30)))
        made = await client.fhir("POST", POST, json=typed(task, *both, **{"posted-by": "Sam"}))
        assert made.status_code == 201, made.text
        assert [each["amount"]["value"] for each in made.json()["detail"]] == [70, 60, -130]
        assert [(await read_balance(client, each))["balance"] for each in "ab"] == [0, 30]
        assert await read_unapplied(client) == 0
        responses = await find(client, "ClaimResponse")
        assert {each["valueString"] for e in responses for each in e["extension"] if "posted-by" in each["url"]} == {
            "Sam"
        }


async def test_what_was_applied_to_the_wrong_claim_is_reversed(known: Knowledge) -> None:
    async with practice(known) as client:
        for number in ("A1", "A2"):
            await bill(client, "03-01", number, "100")
        await take(client, make_835("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40")))
        made = await call(client, POST, task=await read_task(client), request="Claim/a1")
        refused = await call(client, f"PaymentReconciliation/{made.json()['id']}/$reverse", key="k")
        assert (refused.status_code, "payer's own reversal" in sentence(refused)) == (422, True)
        moved = eob(
            0, claim("A1", "22", -100, -60, ("CO", "45", -40)), claim("A2", "1", 100, 60, ("CO", "45", 40)), trace="M"
        )
        answer = await client.fhir("POST", POST, json=moved)
        assert answer.status_code == 201, answer.text
        table = (await client.get("Account/a/$ledger", headers={"accept": "text/csv"})).text.splitlines()
        assert {line.split(",")[4]: line.split(",")[2] for line in table if ",payment," in line} == {
            "Claim/a1": "60.00", "Claim/a2": "-60.00",
        }  # fmt: skip
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_a_typed_detail_is_applied_as_it_is_typed_anew(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        posted = await client.fhir("POST", POST, json=eob(60, claim("X1", "1", 100, 60, ("CO", "45", 40))))
        assert posted.status_code == 201 and await read_unapplied(client) == 60
        task = await read_task(client)
        told = await call(client, POST, task=task, request="Claim/a1")
        assert (told.status_code, "name `claim` with its parts" in sentence(told)) == (422, True)
        made = await client.fhir("POST", POST, json=typed(task, claim("A1", "1", 100, 60, ("CO", "45", 40))))
        assert made.status_code == 201, made.text
        assert ((await read_balance(client, "a"))["balance"], await read_unapplied(client)) == (D(0), D(0))


GOOD = claim("A1", "1", 100, 60, ("CO", "45", 40))


@pytest.mark.parametrize(
    ("claims", "more", "status", "text"),
    [
        ((), {}, 400, "not both"),
        ((GOOD,), {"request": "Claim/a1"}, 400, "not both"),
        ((), {"request": "Patient/a"}, 400, "the Claim that it is for"),
        ((), {"request": "Claim/none"}, 404, "There is no `Claim/none`"),
        ((claim("A1", "1", 100, 50, ("CO", "45", 50)),), {}, 422, "paid 50.00, and 60.00 are unapplied"),
        ((claim("A1", "1", 100, 60, ("CO", "45", 30)),), {}, 422, "10.00 missing"),
        ((claim("A9", "1", 100, 60, ("CO", "45", 40)),), {}, 422, "No claim has the number `A9`"),
        ((claim("A1", "4", 100, 60, ("CO", "45", 40)),), {}, 422, "did not know the patient"),
        ((claim("A1", "22", 100, 60, ("CO", "45", 40)),), {}, 422, "names no payment that was posted"),
        (([part("control-number", "A1")],), {}, 400, "needs `status`"),
        ((GOOD,), {"reason": "courtesy"}, 400, "has no parameter `reason`"),
    ],
)
async def test_what_cannot_be_applied_says_why(
    known: Knowledge, claims: tuple[list[Tree], ...], more: Tree, status: int, text: str
) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40")))
        task = await read_task(client)
        refused = await client.fhir("POST", POST, json=typed(task, *claims, **more))
        assert (refused.status_code, text in sentence(refused)) == (status, True), refused.text
        assert len(await find(client, "PaymentReconciliation")) == 1 and await find(client, "ClaimResponse") == []
        assert (await client.get(task)).json()["status"] == "requested"


async def test_a_remittance_has_to_be_posted_before_its_details_are_applied(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await send(client, make_835("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40")))
        code = {"system": "https://fhir-server.example/CodeSystem/task", "code": "unapplied-payment"}
        task: Tree = {"resourceType": "Task", "id": "early", "status": "requested", "intent": "order"}
        task["code"] = {"coding": [code]}
        (draft,) = await find(client, "PaymentReconciliation")
        key = next(e["value"] for e in draft["identifier"] if e["system"].endswith("/remittance"))
        for value, text in ((f"{key}:0", "once its remittance is posted"), ("none:0", "There is no")):
            task["identifier"] = [
                {"system": "https://fhir-server.example/identifier/task", "value": f"unapplied-payment:{value}"}
            ]
            await client.fhir("PUT", "Task/early", json=task)
            refused = await call(client, POST, task="Task/early", request="Claim/a1")
            assert (refused.status_code in (404, 422), text in sentence(refused)) == (True, True), refused.text
