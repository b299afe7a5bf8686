"""A claim closes at a balance of zero and opens again when there is one (docs/billing.md); each sum is by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.payments.money_clinic import bill, call, practice, read_balance
from tests.operations.payments.remittances import clp, find, make_835, take

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with practice(known, store_uri) as client:
        yield client


async def states(client: Client) -> dict[str, str]:
    """By claim, the state of its Task; the Task says in `status` whether anything is to be done."""
    tasks = await find(client, "Task?code=claim")
    for each in tasks:
        closed = each["businessStatus"]["coding"][0]["code"] == "closed"
        assert (each["status"] == "completed") is closed
    return {each["focus"]["reference"]: each["businessStatus"]["coding"][0]["code"] for each in tasks}


async def test_paid_in_full_then_taken_back_then_paid_anew(client: Client) -> None:
    """100 − 60 paid − 40 off = 0; + 60 + 40 = 100; − 70 − 30 = 0."""
    await bill(client, "03-01", "A1", "100")
    await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
    assert await states(client) == {"Claim/a1": "closed"}
    await take(client, make_835("-60", clp("A1", "22", "-100", "-60", "CAS*CO*45*-40"), trace="T2"), "2")
    assert await states(client) == {"Claim/a1": "adjudicated"}
    await take(client, make_835("70", clp("A1", "1", "100", "70", "CAS*CO*45*30"), trace="T3"), "3")
    assert await states(client) == {"Claim/a1": "closed"}
    assert (await read_balance(client, "a"))["balance"] == 0


async def test_the_patients_share_is_open_until_it_is_paid_and_again_when_it_is_refunded(client: Client) -> None:
    """100 − 60 − 15 = 25 are invoiced; 10 at the desk leave an Invoice of 15, which is paid; 5 are given back."""
    await bill(client, "03-01", "A1", "100")
    await call(client, "Patient/a/$pay", amount=10, request="Claim/a1", key="desk")
    assert (await states(client))["Claim/a1"] == "draft"
    await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*15", "CAS*PR*2*25")))
    (invoice,) = await find(client, "Invoice")
    assert invoice["totalNet"]["value"] == 15 and (await states(client))["Claim/a1"] == "adjudicated"
    paid = await call(client, "Patient/a/$pay", amount=15, request=f"Invoice/{invoice['id']}", key="k1")
    assert (await states(client))["Claim/a1"] == "closed"
    refund = await call(client, f"PaymentReconciliation/{paid.json()['id']}/$refund", amount=5, key="k2")
    assert refund.status_code == 201, refund.text
    assert (await states(client))["Claim/a1"] == "adjudicated"
    assert (await read_balance(client, "a"))["balance"] == 5


async def test_a_denial_is_open_until_it_is_written_off_and_again_when_that_is_taken_back(client: Client) -> None:
    await bill(client, "03-01", "A1", "90")
    await take(client, make_835("0", clp("A1", "1", "90", "0", "CAS*CO*16*90")))
    assert await states(client) == {"Claim/a1": "adjudicated"}
    off = await call(client, "Claim/a1/$adjust", amount=90, reason="courtesy", key="k1")
    assert off.status_code == 201 and await states(client) == {"Claim/a1": "closed"}
    await call(client, f"PaymentReconciliation/{off.json()['id']}/$reverse", key="k2")
    assert await states(client) == {"Claim/a1": "adjudicated"}


async def test_claims_to_two_payers_have_one_balance(client: Client) -> None:
    """The first payer: 100 − 60 − 15 = 25, to the second, which pays 25: OA-23 75 stands for what the first one did."""
    await bill(client, "03-01", "A1", "100", payers=2)
    await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*15", "CAS*PR*2*25")))
    (second,) = [each for each in await find(client, "Claim") if each.get("related")]
    reference, number = f"Claim/{second['id']}", second["identifier"][0]["value"]
    assert await states(client) == {"Claim/a1": "adjudicated", reference: "draft"}
    text = make_835("25", clp(number, "2", "100", "25", "CAS*OA*23*75"), trace="T2", payer="90002")
    await take(client, text, "2")
    assert await states(client) == {"Claim/a1": "closed", reference: "closed"}
    back = clp("A1", "22", "-100", "-60", "CAS*CO*45*-15", "CAS*PR*2*-25")
    await take(client, make_835("-60", back, trace="T3"), "3")
    assert await states(client) == {"Claim/a1": "adjudicated", reference: "adjudicated"}


async def test_what_is_paid_too_much_is_no_balance_of_zero(client: Client) -> None:
    """100 − 100 − 7 = −7: a credit that somebody must give back."""
    await bill(client, "03-01", "A1", "100")
    await call(client, "Patient/a/$pay", amount=7, request="Claim/a1", key="desk")
    await take(client, make_835("100", clp("A1", "1", "100", "100")))
    assert await states(client) == {"Claim/a1": "adjudicated"}
