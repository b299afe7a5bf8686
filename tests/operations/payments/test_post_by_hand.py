"""`$post`: a typed EOB passes the laws of an 835, and the 835 that comes after it is a question for a person."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers.posting.intake import read_sets, to_remittance
from mappers.billing.remittance import ClaimPayment, PaymentLine, Remittance
from mappers.billing.remittance_parameters import parameters_to_remittance, remittance_to_parameters
from tests.operations.payments.money_clinic import bill, call, plain, practice, read_balance, sentence, store
from tests.operations.payments.remittances import clp, find, list_tasks, make_835, svc, take

pytestmark = pytest.mark.anyio

D = Decimal
Tree = dict[str, Any]


def part(name: str, value: Any) -> Tree:
    if isinstance(value, list):
        return {"name": name, "part": value}
    if not isinstance(value, str):
        return {"name": name, "valueDecimal": value}
    return {"name": name, "valueDate" if name == "date" else "valueString": value}


def eob(amount: float, *claims: list[Tree], trace: str = "T1", **more: Any) -> Tree:
    head = [part("trace", trace), part("payer-number", "90001"), part("amount", amount), part("date", "2026-03-02")]
    head += [part("payee", "1700000007"), *(part(name, value) for name, value in more.items())]
    return {"resourceType": "Parameters", "parameter": [*head, *(part("claim", each) for each in claims)]}


def claim(number: str, status: str, charge: float, paid: float, *adjustments: tuple[str, str, float]) -> list[Tree]:
    found = [part("control-number", number), part("status", status), part("charge", charge), part("paid", paid)]
    for group, reason, amount in adjustments:
        found.append(part("adjustment", [part("group", group), part("reason", reason), part("amount", amount)]))
    return found


POST = "PaymentReconciliation/$post"


async def test_b26_a_typed_eob_posts_and_the_835_that_comes_then_is_a_task(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "90")
        typed = eob(0, claim("A1", "1", 90, 0, ("CO", "16", 90)), **{"posted-by": "Sam"})
        posted = await client.fhir("POST", POST, json=typed)
        assert posted.status_code == 201, posted.text
        assert (posted.json()["status"], posted.json()["outcome"]) == ("active", "complete")
        again = await client.fhir("POST", POST, json=typed)
        assert (again.status_code, again.json()["id"]) == (200, posted.json()["id"])
        assert "90.00 denied (CO-16)" in (await list_tasks(client))["denial"]
        await take(client, make_835("0", clp("A1", "1", "90", "0", "CAS*CO*16*90")))
        assert "already posted by hand, by Sam" in (await list_tasks(client))["remittance"]
        await take(client, make_835("0", clp("A1", "1", "90", "0", "CAS*CO*16*90"), trace="T9"), "2")
        assert "already posted by hand, by Sam" in (await list_tasks(client))["unapplied-payment"]
        assert (await read_balance(client, "a"))["balance"] == 90


async def test_the_same_eob_many_times_at_once_posts_once(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        first = eob(60, claim("A1", "1", 100, 60, ("CO", "45", 40)))
        changed = eob(50, claim("A1", "1", 100, 50, ("CO", "45", 50)))
        answers = await asyncio.gather(*(client.fhir("POST", POST, json=each) for each in (first, changed) * 3))
        statuses = [each.status_code for each in answers]
        assert statuses.count(201) == 1 and set(statuses) == {200, 201, 409}
        assert "posted before with other content" in sentence(next(e for e in answers if e.status_code == 409))
        assert (await read_balance(client, "a"))["balance"] == 0
        assert len(await find(client, "PaymentReconciliation")) == len(await find(client, "ClaimResponse")) == 1


async def test_what_was_typed_and_reversed_may_be_paid_again(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        assert (await client.fhir("POST", POST, json=eob(60, claim("A1", "1", 100, 60, ("CO", "45", 40))))).is_success
        back = clp("A1", "22", "-100", "-60", "CAS*CO*45*-40", icn="")
        await take(client, make_835("0", back + clp("A1", "1", "100", "60", "CAS*PR*2*40"), trace="T2"))
        assert "unapplied-payment" not in await list_tasks(client)
        balance = await read_balance(client, "a")
        assert (balance["balance"], balance["patient-balance"], balance["payments"]) == (40, 40, 60)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (eob(61, claim("A1", "1", 100, 60, ("CO", "45", 40))), 422, "1.00 too much"),
        (eob(60, claim("A1", "1", 100, 60, ("CO", "45", 40)), currency="EUR"), 422, "in EUR"),
        (eob(60, claim("A1", "1", 100, 60, ("CO", "45", 40)), colour="red"), 400, "has no part `colour`"),
        (eob(60, [part("control-number", "A1")]), 400, "needs `status`"),
        (eob(1.005), 400, "at most two places"),
        (eob(0, *[claim("A1", "1", 0, 0)] * 201), 422, "at most 200 claims"),
        ({"resourceType": "Patient"}, 400, "has to be a Parameters resource"),
        ({"resourceType": "Parameters"}, 400, "needs `trace`"),
    ],
)
async def test_an_eob_that_makes_no_sense_says_why(known: Knowledge, body: Tree, status: int, text: str) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        refused = await client.fhir("POST", POST, json=body)
        assert refused.status_code == status, refused.text
        assert text in sentence(refused)
        assert await find(client, "PaymentReconciliation") == await find(client, "ClaimResponse") == []


def test_what_the_reader_makes_is_read_back_from_parameters() -> None:
    lines = svc("A1L1", "100", "60", "CAS*CO*45*20", "CAS*PR*2*20") + svc("A1L2", "50", "50.5", "CAS*OA*94*-0.5")
    text = make_835("103", clp("A1", "1", "150", "110.5", "MOA***MA18") + lines, plb="PLB*1*20261231*WO:R*7.5~")
    (received,) = read_sets(text)
    remittance = to_remittance(received)
    assert remittance is not None and remittance.amount == 103
    assert parameters_to_remittance(plain(remittance_to_parameters(remittance))["parameter"]) == remittance


def test_amounts_that_are_written_with_other_places_are_the_same_remittance() -> None:
    def make(charge: str) -> Remittance:
        line = PaymentLine("99213", D(charge), D(charge))
        return Remittance(
            "T", "9", D(charge), None, claims=(ClaimPayment("A", "1", D(charge), D(charge), lines=(line,)),)
        )

    assert make("100").make_digest() == make("100.00").make_digest() != make("101").make_digest()


def waiting(kind: str, amount: float, id: str = "t") -> Tree:
    """The Task that an FT1 with PY or AJ leaves (docs/messages/dft.md)."""
    return {
        "resourceType": "Task",
        "id": id,
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": "https://fhir-server.example/CodeSystem/task", "code": "payment-not-posted"}]},
        "for": {"reference": "Patient/a"},
        "input": [
            {"type": {"text": "amount"}, "valueMoney": {"value": amount, "currency": "USD"}},
            {"type": {"text": "transaction type"}, "valueString": kind},
        ],
    }


URL = "PaymentReconciliation/$post"


async def test_money_that_hl7_v2_left_waiting_is_posted_once(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        await store(client, [waiting("PY", 30), waiting("AJ", 10, "u")])
        # by three at once: one posts it
        answers = await asyncio.gather(*(call(client, URL, task="Task/t", request="Claim/a1") for _ in range(3)))
        assert sorted(each.status_code for each in answers) == [200, 200, 201]
        made = answers[0].json()
        assert {each.json()["id"] for each in answers} == {made["id"]} and made["paymentAmount"]["value"] == 30
        off = await call(client, URL, task="Task/u", request="Claim/a1", reason="courtesy")
        assert off.status_code == 201, off.text
        balance = await read_balance(client, "a")
        assert (balance["payments"], balance["adjustments"], balance["balance"]) == (30, 10, 60)
        task = (await client.get("Task/t")).json()
        assert task["status"] == "completed"
        assert task["output"][0]["valueReference"] == {"reference": f"PaymentReconciliation/{made['id']}"}


@pytest.mark.parametrize(
    ("task", "values", "status", "text"),
    [
        (waiting("PY", 30), {"request": ""}, 400, "needs `task` and `request`"),
        (waiting("PY", -30), {}, 422, "A payment is above 0"),
        (waiting("PY", 30), {"request": "Claim/b1"}, 422, "`Claim/b1` is of `Patient/b`"),
        (waiting("PY", 30), {"task": "Task/none"}, 404, "There is no `Task/none`"),
        (waiting("AJ", 30), {}, 400, "`reason` says why"),
        (waiting("AJ", 300), {"reason": "courtesy"}, 422, "100.00 of the claim are open"),
        ({**waiting("PY", 30), "status": "cancelled"}, {}, 422, "is `cancelled`"),
        ({**waiting("PY", 30), "code": {"text": "x"}}, {}, 422, "is no Task `payment-not-posted`"),
        (waiting("PY", 30), {"amount": 20}, 400, "has no parameter `amount`"),
    ],
)
async def test_a_task_that_cannot_be_posted_says_why(
    known: Knowledge, task: Tree, values: Tree, status: int, text: str
) -> None:
    async with practice(known) as client:
        for number in ("A1", "B1"):
            await bill(client, "03-01", number, "100")
        await store(client, [task])
        refused = await call(client, URL, **({"task": "Task/t", "request": "Claim/a1"} | values))
        assert (refused.status_code, text in sentence(refused)) == (status, True), refused.text
        assert (await client.get("PaymentReconciliation?_total=accurate")).json()["total"] == 0
