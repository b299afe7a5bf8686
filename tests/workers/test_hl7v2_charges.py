"""DFT through the message log: charges, their undoing, and money that waits to be posted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import (
    choose_store,
    code,
    msh,
    north,
    pid,
    resources,
    segment,
    take,
    visit,
    with_partners,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path), invariants="enforce") as client:
        with_partners(client, north())
        yield client


def dft(kind: str, number: str, control: str = "", **fields: str) -> str:
    """A message with one FT1 of a kind (FT1-6) and number (FT1-2)."""
    minute = len(control)
    head = (
        msh("DFT^P03", control or f"{kind}{number}", f"2024030512{minute:02d}00-0600") + pid(f18="ACC9") + visit("V7")
    )
    told = {"f1": "1", "f2": number, "f4": "20240305", "f6": kind, "f25": "99213^Office visit^C4", **fields}
    return head + segment("FT1", **told)


async def tasks(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """Code and resource of each Task beside those of the message log."""
    found = [(each["code"]["coding"][0]["code"], each) for each in await resources(client, "Task")]
    return [each for each in found if each[0] != "message-intake"]


async def charge(client: Client) -> dict[str, Any]:
    (found,) = await resources(client, "ChargeItem")
    return found


async def test_a_charge_becomes_a_billable_charge_item_and_its_credit_undoes_it(client: Client) -> None:
    assert code(await take(client, dft("CG", "T1", f10="2", f12="60.25&USD"))) == "AA"
    item = await charge(client)
    assert (item["status"], item["code"]["coding"][0]["code"]) == ("billable", "99213")
    price = {name: item["priceOverride"][name] for name in ("value", "currency")}
    assert (item["quantity"]["value"], price) == (2, {"value": 120.5, "currency": "USD"})
    assert item["context"]["reference"].startswith("Encounter/") and item["account"]
    assert code(await take(client, dft("CD", "T2", "credit", f31="T1"))) == "AA"
    assert (await charge(client))["status"] == "entered-in-error"
    assert await tasks(client) == []


async def test_a_credit_of_a_billed_charge_is_a_task_and_changes_nothing(client: Client) -> None:
    await take(client, dft("CG", "T1"))
    item = {**await charge(client), "status": "billed"}
    answer = await client.fhir("PUT", f"ChargeItem/{item['id']}", json=item)
    assert answer.status_code == 200, answer.text
    billed = answer.json()
    received = await take(client, dft("CD", "T1", "credit"))
    assert code(received) == "AA" and b"billed already" in received.acknowledgement
    assert await charge(client) == billed
    ((name, task),) = await tasks(client)
    assert (name, task["focus"]["reference"]) == ("credit-of-billed-charge", f"ChargeItem/{item['id']}")
    assert task["status"] == "requested"


async def test_a_credit_of_a_charge_that_is_not_known_is_a_task(client: Client) -> None:
    assert code(await take(client, dft("CD", "T9"))) == "AA"
    assert await resources(client, "ChargeItem") == []
    ((name, _),) = await tasks(client)
    assert name == "credit-not-applied"


@pytest.mark.parametrize(("kind", "amount"), [("PY", "25.10"), ("AJ", "-5.00")])
async def test_payments_and_adjustments_wait_in_a_task_until_they_are_posted(
    client: Client, kind: str, amount: str
) -> None:
    text = dft(kind, "T5", f11=f"{amount}&USD", f31="T1")
    assert code(await take(client, text)) == "AA"
    assert [await resources(client, each) for each in ("ChargeItem", "PaymentReconciliation", "PaymentNotice")] == [
        []
    ] * 3
    ((name, task),) = await tasks(client)
    assert (name, task["status"]) == ("payment-not-posted", "requested")
    told = {each["type"]["text"]: each for each in task["input"]}
    assert told["amount"]["valueMoney"] == {"value": float(amount), "currency": "USD"}
    assert (told["transaction type"]["valueString"], told["charge"]["valueString"]) == (kind, "T1")
    (intake,) = await resources(client, "Task?code=message-intake")
    binary = await client.fhir("GET", intake["input"][0]["valueReference"]["reference"], headers={"Accept": "*/*"})
    assert binary.content == text.encode(), "the payment is kept with its message"
    await take(client, dft(kind, "T5", "again", f11=f"{amount}&USD", f31="T1"))
    assert len(await tasks(client)) == 1, "the same transaction is listed once"


async def test_a_charge_that_is_billed_is_not_changed_by_a_later_message(client: Client) -> None:
    await take(client, dft("CG", "T1", f11="10&USD"))
    item = {**await charge(client), "status": "billed"}
    await client.fhir("PUT", f"ChargeItem/{item['id']}", json=item)
    before = await charge(client)
    received = await take(client, dft("CG", "T1", "dearer", f11="90&USD"))
    assert code(received) == "AA" and b"|W|" in received.acknowledgement
    assert await charge(client) == before


@pytest.mark.parametrize(
    ("text", "condition"),
    [(dft("XX", "T1"), "103"), (dft("CG", "T1", f25=""), "101"), (msh("DFT^P03") + pid(), "100")],
)
async def test_what_is_no_charge_is_refused(client: Client, text: str, condition: str) -> None:
    received = await take(client, text)
    assert code(received) == "AE" and f"|{condition}^".encode() in received.acknowledgement
    assert await resources(client, "ChargeItem") == []


async def test_a_charge_meets_the_one_that_was_made_from_a_procedure(client: Client) -> None:
    """The same encounter, code, modifiers and day: it is kept, not billed, and a person compares the two."""
    await take(client, dft("CG", "T1", f25="93000^^C4"))
    first = await charge(client)
    procedure = {"system": "https://fhir-server.example/identifier/charge-of-procedure", "value": "Procedure/p"}
    made = {
        "resourceType": "ChargeItem",
        "id": "made",
        "identifier": [procedure],
        "status": "billed",
        "code": {"coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": "99213"}]},
        "subject": first["subject"],
        "context": first["context"],
        "occurrenceDateTime": "2024-03-05",
    }
    assert (await client.put("ChargeItem/made", json=made)).status_code == 201
    assert code(await take(client, dft("CG", "T2", "late"))) == "AA"
    (late,) = [each for each in await resources(client, "ChargeItem") if each["status"] == "not-billable"]
    assert late["code"]["coding"][0]["code"] == "99213" and late["id"] != "made"
    ((name, task),) = await tasks(client)
    assert (name, task["focus"]) == ("charge-review", {"reference": "ChargeItem/made"})
