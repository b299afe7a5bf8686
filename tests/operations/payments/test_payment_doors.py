"""Money by hand over HTTP: pay, refund, reverse, adjust; what posting made stays; ledger and balance."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.operations.payments.money_clinic import (
    POSTING_DATE,
    REMITTANCE,
    bill,
    call,
    practice,
    read_balance,
    sentence,
)
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

D = Decimal
Tree = dict[str, Any]


def extension(resource: Tree, url: str) -> Any:
    return next(
        value for each in resource["extension"] if each["url"] == url for key, value in each.items() if key != "url"
    )


async def test_a_payment_is_posted_on_the_day_of_the_clock_and_once_for_its_key(
    known: Knowledge, store_uri: str
) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        paid = await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k1", method="card")
        assert paid.status_code == 201, paid.text
        made = paid.json()
        assert (made["status"], made["paymentAmount"]) == ("active", {"value": 30.0, "currency": "USD"})
        assert extension(made, POSTING_DATE) == "2026-03-02"
        again = await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k1")
        assert (again.status_code, again.json()["id"]) == (200, made["id"])
        other = await call(client, "Patient/a/$pay", amount=31, request="Claim/a1", key="k1")
        assert other.status_code == 409 and "of 30.00 on `Claim/a1`. Use a new key" in sentence(other)
        await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k2")
        assert (await read_balance(client, "a"))["balance"] == 40


@pytest.mark.parametrize(
    ("values", "status", "text"),
    [
        ({"amount": -30}, 422, "A payment is above 0"),
        ({"amount": 0}, 422, "A payment is above 0"),
        ({"amount": 1.005}, 400, "at most two places"),
        ({"amount": "many"}, 400, "at most two places"),
        ({"amount": 1e300}, 400, "at most two places"),
        ({"key": ""}, 400, "needs a `key`"),
        ({"request": "Patient/a"}, 422, "on an Appointment, Encounter, Claim or Invoice"),
        ({"request": "Claim/none"}, 404, "There is no `Claim/none`"),
        ({"request": "Claim/b1"}, 422, "`Claim/b1` is of `Patient/b`, not of `Patient/a`"),
    ],
)
async def test_a_payment_that_makes_no_sense_says_why(known: Knowledge, values: Tree, status: int, text: str) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await bill(client, "03-01", "B1", "100")
        refused = await call(client, "Patient/a/$pay", **({"amount": 30, "request": "Claim/a1", "key": "k"} | values))
        assert refused.status_code == status, refused.text
        assert text in sentence(refused)
        assert (await client.get("PaymentReconciliation?_total=accurate")).json()["total"] == 0


async def test_refunds_leave_nothing_below_zero_however_many_come_at_once(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        id = (await call(client, "Patient/a/$pay", amount=20, request="Claim/a1", key="k")).json()["id"]
        too_much = await call(client, f"PaymentReconciliation/{id}/$refund", amount=25, key="r")
        assert too_much.status_code == 422 and "20.00 of the payment are left" in sentence(too_much)
        # of unequal overlapping refunds any may come first, but never more than 20 goes back
        amounts = (7, 8, 9, 6, 7)
        answers = await asyncio.gather(
            *(
                call(client, f"PaymentReconciliation/{id}/$refund", amount=amount, key=f"r{n}")
                for n, amount in enumerate(amounts)
            )
        )
        given = sum(amount for amount, each in zip(amounts, answers, strict=True) if each.status_code == 201)
        assert {each.status_code for each in answers} == {201, 422} and 13 < given <= 20
        assert (await read_balance(client, "a"))["balance"] == 80 + given
        back = await call(client, f"PaymentReconciliation/{id}/$reverse", key="all")
        assert back.status_code == (201 if given < 20 else 422)
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_what_is_written_off_is_at_most_what_is_open(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        url = "Claim/a1/$adjust"
        for reason, status in (("", 400), ("because", 400)):
            refused = await call(client, url, amount=5, key="k", reason=reason)
            assert refused.status_code == status and "`small-balance`" in sentence(refused)
        too_much = await call(client, url, amount=100.01, key="k", reason="bad-debt")
        assert too_much.status_code == 422 and "100.00 of the claim are open" in sentence(too_much)
        answers = await asyncio.gather(
            *(call(client, url, amount=amount, key=f"k{amount}", reason="courtesy") for amount in (60, 70, 80))
        )
        assert sorted(each.status_code for each in answers) == [201, 422, 422]
        made = next(each.json() for each in answers if each.status_code == 201)
        assert made["paymentAmount"]["value"] == 0
        adjusted = D(str(made["detail"][0]["amount"]["value"]))
        assert (await read_balance(client, "a"))["adjustments"] == adjusted
        no_refund = await call(client, f"PaymentReconciliation/{made['id']}/$refund", amount=1, key="r")
        assert no_refund.status_code == 422 and "`$reverse` takes an adjustment back" in sentence(no_refund)
        back = await call(client, f"PaymentReconciliation/{made['id']}/$reverse", key="r")
        assert back.status_code == 201, back.text
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_what_posting_made_is_not_edited_at_any_door(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        made = (await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k")).json()
        url = f"PaymentReconciliation/{made['id']}"
        cheaper = {**made, "paymentAmount": {"value": 3, "currency": "USD"}}
        patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
        doors = [
            await client.put(url, json=cheaper),
            await client.patch(url, json=patch, headers={"content-type": "application/json-patch+json"}),
            await client.delete(url),
            await client.put(f"PaymentReconciliation?identifier={REMITTANCE}|Patient/a/$pay/k", json=cheaper),
            await client.delete(f"PaymentReconciliation?identifier={REMITTANCE}|Patient/a/$pay/k"),
        ]
        for refused in doors:
            assert refused.status_code == 422 and "`PaymentReconciliation/id/$reverse`" in sentence(refused)
        assert (await client.get(url)).json() == made


async def test_only_posting_makes_what_the_ledger_counts(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        made = (await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k")).json()
        forged = {name: value for name, value in made.items() if name not in ("id", "identifier")}
        refused = await client.post("PaymentReconciliation", json=forged)
        assert refused.status_code == 422 and "Leave them out" in sentence(refused)
        foreign = {**forged, "extension": []}
        del foreign["extension"]
        assert (await client.post("PaymentReconciliation", json=foreign)).status_code == 201
        assert (await read_balance(client, "a"))["balance"] == 70


async def test_a_charge_to_be_billed_gets_its_day_and_one_that_is_not_gets_none(known: Knowledge) -> None:
    async with practice(known, clock=Clock("2026-03-02T02:00:00Z"), time_zone="America/Chicago") as client:
        charge = {
            "resourceType": "ChargeItem",
            "code": {"coding": [{"code": "99213"}]},
            "subject": {"reference": "Patient/a"},
            "priceOverride": {"value": 100, "currency": "USD"},
        }
        planned = (await client.post("ChargeItem", json={**charge, "status": "planned"})).json()
        billable = (await client.post("ChargeItem", json={**charge, "status": "billable"})).json()
        assert "enteredDate" not in planned and billable["enteredDate"] == "2026-03-01"
        told = (
            await client.post("ChargeItem", json={**charge, "status": "billed", "enteredDate": "2026-02-01"})
        ).json()
        assert told["enteredDate"] == "2026-02-01"
        without = {name: value for name, value in told.items() if name != "enteredDate"}
        kept = await client.put(f"ChargeItem/{told['id']}", json=without)
        assert kept.json()["enteredDate"] == "2026-02-01"


async def test_a_charge_has_the_price_of_the_list_when_it_is_entered(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        code = {"coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": "99213"}]}

        def listed(amount: float) -> Tree:
            component = {"type": "base", "amount": {"value": amount, "currency": "USD"}}
            common = {"id": "p", "url": "http://clinic.example/p", "status": "active", "code": code}
            return {
                "resourceType": "ChargeItemDefinition",
                **common,
                "propertyGroup": [{"priceComponent": [component]}],
            }

        await client.put("ChargeItemDefinition/p", json=listed(47.5))
        charge = {"resourceType": "ChargeItem", "status": "billable", "code": code, "quantity": {"value": 2}}
        charge |= {"subject": {"reference": "Patient/a"}}
        by_code = (await client.post("ChargeItem", json=charge)).json()
        by_url = (await client.post("ChargeItem", json={**charge, "definitionCanonical": [listed(1)["url"]]})).json()
        assert by_code["priceOverride"] == by_url["priceOverride"] == {"value": 95.0, "currency": "USD"}
        assert (await read_balance(client, "a"))["charges"] == 190
        # the list changes: what was charged does not, until the charge itself does
        await client.put("ChargeItemDefinition/p", json=listed(50))
        left_out = {name: value for name, value in by_code.items() if name != "priceOverride"}
        url = f"ChargeItem/{by_code['id']}"
        assert (await client.put(url, json=left_out)).json()["priceOverride"]["value"] == 95
        more = await client.put(url, json={**left_out, "quantity": {"value": 3}})
        assert more.json()["priceOverride"]["value"] == 150
        told = {**charge, "priceOverride": {"value": 7, "currency": "USD"}}
        assert (await client.post("ChargeItem", json=told)).json()["priceOverride"]["value"] == 7
        unknown = {**charge, "code": {"coding": [{"code": "X"}]}}
        assert "priceOverride" not in (await client.post("ChargeItem", json=unknown)).json()


async def test_the_ledger_is_the_same_for_a_day_whenever_it_is_asked(known: Knowledge, store_uri: str) -> None:
    clock = Clock("2026-03-02T12:00:00Z")
    async with practice(known, store_uri, clock) as client:
        await bill(client, "03-01", "A1", "100", "50")
        await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k")
        early = (await client.get("Account/a/$ledger?date=2026-03-02")).json()
        clock.set("2026-03-05T12:00:00Z")
        await call(client, "Claim/a1/$adjust", amount=20, reason="courtesy", key="k")
        assert (await client.get("Account/a/$ledger?date=2026-03-02")).json() == early
        table = await client.get("Account/a/$ledger", headers={"accept": "text/csv"})
        assert table.headers["content-type"].startswith("text/csv")
        assert table.text.splitlines() == [
            "date,kind,amount,balance,claim,line,payer,reason",
            "2026-03-01,charge,100.00,100.00,Claim/a1,ChargeItem/a11,,",
            "2026-03-01,charge,50.00,150.00,Claim/a1,ChargeItem/a12,,",
            "2026-03-02,payment,-30.00,120.00,Claim/a1,,patient,",
            "2026-03-05,adjustment,-20.00,100.00,Claim/a1,,patient,courtesy",
        ]
        assert (await client.get("Account/b/$ledger")).json()["parameter"][-1]["valueMoney"]["value"] == 0
        assert (await client.get("Account/$ledger?claim=Claim/a1")).json()["parameter"][-1]["valueMoney"][
            "value"
        ] == 100
        assert (await client.fhir("GET", "Account/$ledger")).status_code == 400
        assert (await client.fhir("GET", "Account/none/$ledger")).status_code == 404
        assert (await client.fhir("GET", "Account/a/$ledger?date=soon")).status_code == 400


async def test_what_is_paid_at_the_desk_counts_for_the_claim_of_the_visit(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        visit = {"resourceType": "Encounter", "id": "v", "status": "finished", "class": {"code": "AMB"}}
        await client.put("Encounter/v", json={**visit, "subject": {"reference": "Patient/a"}})
        await call(client, "Patient/a/$pay", amount=30, request="Encounter/v", key="k")
        before = await read_balance(client, "a")
        assert (before["charges"], before["payments"], before["balance"]) == (0, 30, -30)
        await bill(client, "03-02", "A1", "100")
        claim = (await client.get("Claim/a1")).json()
        claim["item"][0]["encounter"] = [{"reference": "Encounter/v"}]
        assert (await client.put("Claim/a1", json=claim)).status_code == 200
        found = (await client.get("Account/$ledger?claim=Claim/a1")).json()["parameter"][-1]
        assert found["valueMoney"]["value"] == 70


@pytest.mark.parametrize("url", ["Account/a/$ledger", "Account/a/$statement", "Patient/a/$balance"])
async def test_what_would_read_too_much_says_so(known: Knowledge, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for module in ("ledger", "statement"):
        # the package's names are the operations themselves
        monkeypatch.setattr(sys.modules[f"fhir_server.operations.payments.{module}"], "MOST_READ", 2)
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "1", "2", "3")
        refused = await client.fhir("GET", url)
        assert refused.status_code == 413 and "More than 2 resources of type `ChargeItem`" in sentence(refused)


async def test_what_gives_money_back_stands_after_the_payment_of_that_day(known: Knowledge, store_uri: str) -> None:
    clock = Clock("2026-03-02T12:00:00Z")
    async with practice(known, store_uri, clock) as client:
        await bill(client, "03-01", "A1", "100")
        for n in range(4):
            clock.set(f"2026-03-02T12:0{n}:00Z")
            paid = await call(client, "Patient/a/$pay", amount=10 + n, request="Claim/a1", key=f"k{n}")
            clock.set(f"2026-03-02T12:0{n}:30Z")
            await call(client, f"PaymentReconciliation/{paid.json()['id']}/$refund", amount=1 + n, key="r")
        table = (await client.get("Account/a/$ledger", headers={"accept": "text/csv"})).text.splitlines()[2:]
        assert [line.split(",")[1:3] for line in table if line] == [
            row for n in range(4) for row in (["payment", f"-{10 + n}.00"], ["refund", f"{1 + n}.00"])
        ]
