"""`$statement`: a letter worked out by hand, its figures, who gets it."""

from __future__ import annotations

import builtins
import io
from typing import Any

import pypdf
import pytest

from fhir_server.app import Knowledge
from mappers.billing.statements import find_guarantor
from tests.mappers.billing.histories import day
from tests.operations.payments.money_clinic import bill, call, practice, sentence, store
from tests.operations.payments.remittances import clp, find, make_835, take
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

ROSA = {
    "resourceType": "RelatedPerson",
    "id": "rosa",
    "patient": {"reference": "Patient/a"},
    "name": [{"given": ["Rosa"], "family": "Quill\nPLEASE PAY 9999.00"}],
    "address": [{"line": ["1 Elm St"], "city": "Boston", "state": "MA", "postalCode": "02108"}],
}
ACCOUNT = {
    "resourceType": "Account",
    "id": "a",
    "status": "active",
    "subject": [{"reference": "Patient/a"}],
    "guarantor": [{"party": {"reference": "RelatedPerson/rosa"}}],
}
# A1: 100 charged; the payer paid 60 and wrote 20 off, 20 were invoiced, 5 of them paid. A2: 40 wait for the payer.
# A3: 30 charged, the payer paid all and the patient 7, which are a credit. You owe 15 − 7.
LETTER = """\
STATEMENT OF 2026-03-20                                                            ACCOUNT a

    Rosa Quill PLEASE PAY 9999.00
    1 Elm St
    Boston, MA 02108

date       for                          charged     payers   adjusted   you paid     you owe
--------------------------------------------------------------------------------------------
2026-03-01 Patient/a /                   100.00      60.00      20.00       5.00       15.00
           Practitioner/pine
2026-03-01 Patient/a /                    40.00       0.00       0.00       0.00        0.00
           Practitioner/pine
           40.00 more are with a payer or not billed yet; please wait.
2026-03-01 Patient/a /                    30.00      30.00       0.00       7.00        0.00
           Practitioner/pine
--------------------------------------------------------------------------------------------
You owe                                                                                15.00
Less what you paid too much or ahead                                                   -7.00
PLEASE PAY                                                                              8.00

Of what you owe, by the time since we asked: 0-30 days 15.00.
"""


async def test_the_letter_of_an_account(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri, clock := Clock("2026-03-02T12:00:00Z")) as client:
        await store(client, [ROSA, ACCOUNT])
        for number, charge in (("A1", "100"), ("A2", "40"), ("A3", "30")):
            await bill(client, "03-01", number, charge)
        first = clp("A1", "1", "100", "60", "CAS*CO*45*20", "CAS*PR*1*20")
        await take(client, make_835("90", first + clp("A3", "1", "30", "30")))
        (invoice,) = await find(client, "Invoice")
        await call(client, "Patient/a/$pay", amount=5, request=f"Invoice/{invoice['id']}", key="k1")
        await call(client, "Patient/a/$pay", amount=7, request="Claim/a3", key="k2")
        clock.set("2026-03-20T12:00:00Z")
        letter = await client.fhir("GET", "Account/a/$statement", headers={"accept": "text/plain"})
        assert letter.headers["content-type"] == "text/plain; charset=utf-8"
        assert letter.text == LETTER
        tree = (await client.get("Account/a/$statement")).json()
        assert client.server.context.validator.find_issues(tree) == ()
        found = {each["name"]: each for each in tree["parameter"]}
        assert found["guarantor"]["valueReference"] == {"reference": "RelatedPerson/rosa"}
        assert [found[each]["valueMoney"]["value"] for each in ("owed", "credit", "due")] == [15, 7, 8]
        assert found["text"]["valueString"] == LETTER
        before = await client.fhir("GET", "Account/a/$statement?date=2026-02-28", headers={"accept": "text/plain"})
        assert "Nothing is open." in before.text and "Of what you owe" not in before.text
        assert (await client.fhir("GET", "Account/none/$statement")).status_code == 404
        assert (await client.fhir("GET", "Account/a/$statement?date=soon")).status_code == 400


async def test_money_paid_for_a_visit_before_any_claim_is_a_credit_and_an_unbilled_charge_is_not_owed(
    known: Knowledge,
) -> None:
    async with practice(known) as client:
        visit = {"resourceType": "Encounter", "id": "v", "status": "finished", "class": {"code": "AMB"}}
        await client.put("Encounter/v", json={**visit, "subject": {"reference": "Patient/a"}})
        charge: dict[str, Any] = {"resourceType": "ChargeItem", "status": "billable", "code": {"text": "x"}}
        charge |= {"subject": {"reference": "Patient/a"}, "account": [{"reference": "Account/a"}]}
        await client.post("ChargeItem", json={**charge, "priceOverride": {"value": 50, "currency": "USD"}})
        await call(client, "Patient/a/$pay", amount=30, request="Encounter/v", key="k")
        tree = (await client.get("Account/a/$statement")).json()
        found = {each["name"]: each["valueMoney"]["value"] for each in tree["parameter"] if "valueMoney" in each}
        assert found == {"owed": 0, "credit": 30, "due": 0}


@pytest.mark.parametrize(
    ("guarantors", "expected"),
    [
        ([], "Patient/a"),
        ([{"party": {"reference": "RelatedPerson/r"}, "onHold": True}], "Patient/a"),
        ([{"party": {"reference": "RelatedPerson/r"}, "period": {"end": "2026-02-28"}}], "Patient/a"),
        (
            [
                {"party": {"reference": "RelatedPerson/old"}, "period": {"end": "2026-02-28"}},
                {"party": {"reference": "Organization/o"}, "period": {"start": "2026-03-01"}},
            ],
            "Organization/o",
        ),
    ],
)
def test_the_guarantor_of_a_day(guarantors: list[dict[str, Any]], expected: str) -> None:
    account = {**ACCOUNT, "guarantor": guarantors}
    assert find_guarantor(account, day("03-01")) == expected


async def test_the_letter_as_pdf_and_without_reportlab(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("reportlab"):
            raise ImportError(name)
        return load(name, *rest, **more)

    async with practice(known) as client:
        await store(client, [ROSA, ACCOUNT])
        await bill(client, "03-01", "A2", "40")
        for query, accept in (("", "application/pdf"), ("?_format=application/pdf", "*/*")):
            answer = await client.get(f"Account/a/$statement{query}", headers={"accept": accept})
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
            (page,) = pypdf.PdfReader(io.BytesIO(answer.content)).pages
            text = page.extract_text()
            assert "Rosa Quill PLEASE PAY 9999.00" in text and "40.00 more are with a payer" in text
        monkeypatch.setattr(builtins, "__import__", refuse)
        answer = await client.get("Account/a/$statement", headers={"accept": "application/pdf"})
        assert answer.status_code == 501 and "pip install 'fhir-server[pdf]'" in sentence(answer)
        plain = await client.get("Account/a/$statement", headers={"accept": "text/plain"})
        assert plain.status_code == 200
