"""835s through the intake and the worker: each posts once, balances add up, what follows exists once (traps B1–B30)."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.app import Knowledge
from mappers.billing import codes, follow_up, posting
from mappers.billing.fields import make_control_number
from tests.conftest import Client
from tests.operations.payments.money_clinic import bill, call, practice, read_balance
from tests.operations.payments.remittances import clp, find, list_tasks, make_835, post_all, send, svc, take

pytestmark = pytest.mark.anyio

D = Decimal
Tree = dict[str, Any]


async def read_payment(client: Client) -> Tree:
    (found,) = await find(client, "PaymentReconciliation")
    return found


async def test_an_835_posts_by_lines_and_the_patient_gets_an_invoice(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100", "50")
        lines = svc("A1L1", "100", "60", "CAS*CO*45*20", "CAS*PR*2*20") + svc("A1L2", "50", "50")
        await send(client, make_835("110", clp("A1", "1", "150", "110") + lines))
        draft = await read_payment(client)
        assert (draft["status"], draft["outcome"], await find(client, "ClaimResponse")) == ("draft", "queued", [])
        assert (await read_balance(client, "a"))["balance"] == 150
        assert await post_all(client) == 1
        posted = await read_payment(client)
        assert (posted["status"], posted["outcome"]) == ("active", "complete")
        assert posted["paymentIssuer"] == {"reference": "Organization/payer1"}
        assert [each["amount"]["value"] for each in posted["detail"]] == [110]
        (response,) = await find(client, "ClaimResponse")
        assert response["status"] == "active"
        assert posted["detail"][0]["response"] == {"reference": f"ClaimResponse/{response['id']}"}
        balance = await read_balance(client, "a")
        assert (balance["payments"], balance["adjustments"], balance["balance"]) == (110, 20, 20)
        assert balance["patient-balance"] == 20
        (invoice,) = await find(client, "Invoice")
        assert (invoice["status"], invoice["totalNet"]["value"]) == ("issued", 20)
        paid = await call(client, "Patient/a/$pay", amount=20, request=f"Invoice/{invoice['id']}", key="k")
        assert paid.status_code == 201, paid.text
        assert (await find(client, "Invoice"))[0]["status"] == "balanced"
        assert (await read_balance(client, "a"))["balance"] == 0


async def test_b1_a_set_posts_once_however_it_comes(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        claim = clp("A1", "1", "100", "60", "CAS*CO*45*40")
        await take(client, make_835("60", claim))
        for number in ("1", "2"):  # again, and in another envelope
            again = await send(client, make_835("60", claim, envelope=int(number)), number)
            assert again.state == "acknowledged" and await post_all(client) == 0
        assert await list_tasks(client) == {}
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*253*40"), envelope=3), "3")
        await take(client, make_835("50", clp("A1", "1", "100", "50", "CAS*CO*45*50"), envelope=4), "4")
        assert len(await find(client, "PaymentReconciliation")) == 1
        assert "was posted before with other content" in (await list_tasks(client))["remittance"]
        assert len(await find(client, "Task?code=remittance")) == 2
        assert (await read_balance(client, "a"))["balance"] == 0


async def test_b1_many_processes_that_take_a_set_at_once_post_it_once(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        await bill(client, "03-01", "B1", "90")
        one, two = clp("A1", "1", "100", "60", "CAS*CO*45*40"), clp("B1", "1", "90", "50", "CAS*CO*45*40")
        # overlapping and unequal: the same set in three envelopes, and two others with the same trace number
        texts = [make_835("60", one, envelope=n) for n in (1, 2, 3)]
        texts += [make_835("110", one + two, envelope=4), make_835("50", two, envelope=5)]
        await asyncio.gather(*(send(client, text, str(n)) for n, text in enumerate(texts)))
        await post_all(client)
        posted = await read_payment(client)
        amount = D(str(posted["paymentAmount"]["value"]))
        total = sum([(await read_balance(client, each))["balance"] for each in "ab"], D(0))
        assert 190 - total == {D(60): 100, D(110): 190, D(50): 90}[amount]
        others = {D(60): 2, D(110): 4, D(50): 4}[amount]
        assert 2 <= len(await find(client, "Task?code=remittance")) <= others


async def test_b3_a_denial_writes_nothing_off_and_opens_a_task(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "90")
        await take(client, make_835("0", clp("A1", "1", "90", "0", "CAS*CO*16*90")))
        balance = await read_balance(client, "a")
        assert (balance["adjustments"], balance["Organization/payer1"], balance["patient-balance"]) == (0, 90, 0)
        assert "90.00 denied (CO-16)" in (await list_tasks(client))["denial"]
        assert await find(client, "Invoice") == []


async def test_b4_what_is_paid_with_zero_is_moved_to_the_patient(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "90")
        await take(client, make_835("0", clp("A1", "1", "90", "0", "CAS*PR*1*90")))
        assert (await read_balance(client, "a"))["patient-balance"] == 90
        assert (await find(client, "Invoice"))[0]["totalNet"]["value"] == 90


async def test_b6_reversal_and_correction_stay_two_entries(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        both = clp("A1", "22", "-100", "-60", "CAS*CO*45*-40") + clp("A1", "1", "100", "40", "CAS*CO*45*60")
        await take(client, make_835("-20", both, trace="T2"), "2")
        second = next(each for each in await find(client, "PaymentReconciliation") if len(each["detail"]) == 2)
        assert [each["amount"]["value"] for each in second["detail"]] == [-60, 40]
        first = next(each for each in await find(client, "PaymentReconciliation") if len(each["detail"]) == 1)
        assert second["detail"][0]["predecessor"] == first["detail"][0]["identifier"]
        assert (await read_balance(client, "a"))["balance"] == 0
        await take(client, make_835("-60", clp("A1", "22", "-100", "-60", "CAS*CO*45*-40"), trace="T3"), "3")
        assert "names no payment that was posted" in (await list_tasks(client))["unapplied-payment"]


async def test_b7_money_that_is_held_back_nets_to_zero_over_files(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        reversal = clp("A1", "22", "-100", "-60", "CAS*CO*45*-40")
        await take(client, make_835("0", reversal, trace="T2", plb="PLB*1700000007*20261231*FB:ICN3*-60~"), "2")
        assert (await read_balance(client, "a"))["balance"] == 100
        paid = clp("A1", "1", "100", "100", icn="ICN3")
        await take(client, make_835("40", paid, trace="T3", plb="PLB*1700000007*20261231*FB:ICN3*60~"), "3")
        assert (await read_balance(client, "a"))["balance"] == 0
        assert await list_tasks(client) == {}


@pytest.mark.parametrize("sign", ["CLP02", "NM1*TT", "remark"])
async def test_b11_a_claim_that_was_forwarded_is_waited_for(known: Knowledge, sign: str) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", payers=2)
        further = {"NM1*TT": "NM1*TT*2*PLAN TWO*****PI*90002", "remark": "MOA***MA18"}.get(sign)
        status = "19" if sign == "CLP02" else "1"
        parts = ["CAS*PR*2*30", *([further] if further else [])]
        await take(client, make_835("70", clp("A1", status, "100", "70", *parts)))
        assert len(await find(client, "Claim")) == 1 and await find(client, "Invoice") == []
        assert "Wait 45 days" in (await list_tasks(client))["crossover"]
        balance = await read_balance(client, "a")
        assert (balance["balance"], balance["patient-balance"]) == (30, 0)


async def test_a_secondary_claim_has_what_the_first_payer_said(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100", payers=2)
        await take(client, make_835("70", clp("A1", "1", "100", "70", "CAS*PR*2*30")))
        claims = await find(client, "Claim")
        (second,) = [each for each in claims if each["id"] != "a1"]
        (response,) = await find(client, "ClaimResponse")
        focal = next(each for each in second["insurance"] if each["focal"])
        assert (second["status"], focal["sequence"]) == ("draft", 2)
        assert second["insurance"][0]["claimResponse"] == {"reference": f"ClaimResponse/{response['id']}"}
        assert await find(client, "Invoice") == []
        assert (await read_balance(client, "a"))["Organization/payer2"] == 30
        number = second["identifier"][0]["value"]
        text = make_835("25", clp(number, "2", "100", "25", "CAS*OA*23*70", "CAS*PR*2*5"), trace="T2", payer="90002")
        await take(client, text, "2")
        balance = await read_balance(client, "a")
        assert (balance["balance"], balance["patient-balance"]) == (5, 5)


async def test_b18_the_beginning_of_a_number_is_a_candidate_and_never_a_match(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1234567890123456", "100")
        await take(client, make_835("60", clp("A1234567890123", "1", "100", "60", "CAS*CO*45*40")))
        task = (await list_tasks(client))["unapplied-payment"]
        assert "It may be `Claim/a1234567890123456`" in task and "60.00 stay unapplied" in task
        posted = await read_payment(client)
        assert [each["amount"]["value"] for each in posted["detail"]] == [60]
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_b25_a_claim_without_lines_is_posted_at_its_level(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "120", "80")
        await take(client, make_835("150", clp("A1", "1", "200", "150", "CAS*CO*45*50")))
        table = (await client.get("Account/a/$ledger", headers={"accept": "text/csv"})).text.splitlines()
        assert [line for line in table if ",payment," in line] == [
            "2026-03-02,payment,-150.00,50.00,Claim/a1,,Organization/payer1,"
        ]


async def test_b30_an_invoice_is_less_what_was_paid_at_the_desk(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        desk = (await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="copay")).json()
        await take(client, make_835("50", clp("A1", "1", "100", "50", "CAS*PR*3*30**2*20")))
        assert [each["totalNet"]["value"] for each in await find(client, "Invoice")] == [20]
        assert (await read_balance(client, "a"))["balance"] == 20
        # the check bounces: what the desk had is owed after all
        back = await call(client, f"PaymentReconciliation/{desk['id']}/$reverse", key="bounced")
        assert back.status_code == 201, back.text
        assert sorted(each["totalNet"]["value"] for each in await find(client, "Invoice")) == [20, 30]
        assert (await read_balance(client, "a"))["patient-balance"] == 50


async def test_the_three_laws(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await bill(client, "03-01", "B1", "90")
        good = clp("A1", "1", "100", "60", "CAS*CO*45*40")
        wrong_line = clp("B1", "1", "90", "50") + svc("B1L1", "90", "50", "CAS*CO*45*30")
        await take(client, make_835("111", good + wrong_line, trace="T1"))
        assert await find(client, "PaymentReconciliation") == []
        assert "1.00 too much. Nothing was posted" in (await list_tasks(client))["remittance"]
        await take(client, make_835("110", good + wrong_line, trace="T2"), "2")
        posted = await read_payment(client)
        assert [each["amount"]["value"] for each in posted["detail"]] == [60, 50]
        assert "10.00 missing" in (await list_tasks(client))["unapplied-payment"]
        assert [(await read_balance(client, each))["balance"] for each in "ab"] == [0, 90]


BAD = {
    "another practice": ("60", clp("OTHER99", "1", "100", "60", "CAS*CO*45*40"), "", "unapplied-payment", "No claim"),
    "reversal alone": ("-60", clp("A1", "22", "-100", "-60", "CAS*CO*45*-40"), "", "unapplied-payment", "no payment"),
    "negative": ("-5", clp("A1", "1", "100", "-5", "CAS*CO*45*105"), "", "unapplied-payment", "without a reversal"),
    "not known": ("0", clp("A1", "4", "100", "0", "CAS*CO*31*100"), "", "unapplied-payment", "did not know"),
    "not theirs": ("0", clp("A1", "23", "100", "0", "CAS*CO*109*100"), "", "unapplied-payment", "not its own"),
    "no number": ("x", clp("A1", "1", "100", "60", "CAS*CO*45*40"), "", "remittance", "Nothing was posted"),
    "PLB alone": ("-7.5", "", "PLB*1700000007*20261231*WO:REF1*7.5~", "", ""),
}


@pytest.mark.parametrize("kind", BAD)
async def test_bad_input_is_a_task_and_nothing_is_half_posted(known: Knowledge, kind: str) -> None:
    amount, claims, plb, task, sentence = BAD[kind]
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835(amount, claims, plb=plb))
        tasks = await list_tasks(client)
        assert (set(tasks), sentence in "".join(tasks.values())) == ({task} - {""}, True)
        assert (await read_balance(client, "a"))["balance"] == 100
        for posted in await find(client, "PaymentReconciliation"):
            total = sum(D(str(each["amount"]["value"])) for each in posted.get("detail", ()))
            assert total == D(str(posted["paymentAmount"]["value"])) == D(amount)


async def test_money_of_another_currency_posts_nothing(known: Knowledge) -> None:
    """CUR02 behind TRN: the books are in US dollars."""
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        text = make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")).decode()
        count = text.partition("~SE*")[2].partition("*")[0]
        text = text.replace("~DTM*405", "~CUR*PR*EUR~DTM*405").replace(f"~SE*{count}*", f"~SE*{int(count) + 1}*")
        await take(client, text.encode())
        assert await find(client, "PaymentReconciliation") == await find(client, "ClaimResponse") == []
        assert "EUR" in (await list_tasks(client))["remittance"]
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_a_remittance_that_is_older_than_the_claim_is_a_task(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-20", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        assert "older than the claim's first service" in (await list_tasks(client))["unapplied-payment"]


async def read_state(client: Client, claim: str) -> str:
    (task,) = await find(client, f"Task?focus={claim}&code=claim")
    return str(task["businessStatus"]["coding"][0]["code"])


async def test_what_is_posted_is_adjudicated(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", payers=2)
        assert await read_state(client, "Claim/a1") == "draft"
        await take(client, make_835("70", clp("A1", "1", "100", "70", "CAS*PR*2*30")))
        (second,) = [each for each in await find(client, "Claim") if each["id"] != "a1"]
        assert await read_state(client, "Claim/a1") == "adjudicated"
        assert await read_state(client, f"Claim/{second['id']}") == "draft"


@pytest.mark.parametrize("fault", ["refused", "unforeseen"])
async def test_what_follows_and_fails_stops_neither_the_others_nor_the_next_remittance(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", payers=2)
        await bill(client, "03-01", "B1", "90")
        if fault == "refused":
            # the number that the claim to the second payer has to get is taken
            number = {"system": codes.PATIENT_CONTROL_NUMBER, "value": make_control_number("A1", "payer", "2")}
            await bill(client, "03-01", "B2", "7", identifier=[number])
        else:
            follow = follow_up.follow_posting

            def fail(account: Any, settings: Any) -> Any:
                if account.claim["id"] == "a1":
                    raise KeyError("a secret")
                return follow(account, settings)

            monkeypatch.setattr("fhir_server.workers.posting.follow.follow_posting", fail)
        claims = clp("A1", "1", "100", "70", "CAS*PR*2*30") + clp("B1", "1", "90", "50", "CAS*PR*1*40")
        await take(client, make_835("120", claims))
        posted = await read_payment(client)
        assert (posted["status"], posted["outcome"]) == ("active", "complete")
        assert [each["status"] for each in await find(client, "ClaimResponse")] == ["active"] * 2
        assert [each["totalNet"]["value"] for each in await find(client, "Invoice")] == [40]
        (review,) = await find(client, "Task?code=posting-review")
        sentence = "has the patient control number" if fault == "refused" else "A fault of ours; the log has it under"
        assert review["focus"]["reference"] == "Claim/a1" and sentence in review["description"]
        assert "secret" not in review["description"]
        assert (await read_balance(client, "b"))["patient-balance"] == 40


async def test_a_draft_that_fails_unforeseen_is_cancelled_and_stops_no_other(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await bill(client, "03-01", "B1", "90")
        post = posting.post_claims

        def fail(remittance: Any, *others: Any) -> Any:
            if remittance.trace == "T1":
                raise KeyError("a secret")
            return post(remittance, *others)

        monkeypatch.setattr("fhir_server.workers.posting.remittances.post_claims", fail)
        await send(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        await send(client, make_835("50", clp("B1", "1", "90", "50", "CAS*CO*45*40"), trace="T2"), "2")
        await post_all(client)
        payments = await find(client, "PaymentReconciliation")
        assert sorted((each["status"], each["outcome"]) for each in payments) == [
            ("active", "complete"),
            ("cancelled", "error"),
        ]
        assert "could not be posted: A fault of ours" in (await list_tasks(client))["remittance"]
        assert [(await read_balance(client, each))["balance"] for each in "ab"] == [100, 0]
