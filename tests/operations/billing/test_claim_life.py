"""A claim from its making to its payment, over HTTP: split, sent, 999, 277CA, mended, sent again, 835; the books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.datetimes import DAY
from fhir_server.requests.request import Caller
from fhir_server.workers.message_log import close
from fhir_server.workers.table import WORKERS
from tests.conftest import Client
from tests.mappers.x12.test_x12_oracles import validate_by_pyx12
from tests.mappers.x12.test_x12_status import make_claim_status
from tests.operations.billing.claims_clinic import claims_clinic, make_library, put, read, read_state
from tests.operations.billing.test_transmit import count_deliveries, read_text, segments, transmit
from tests.operations.payments.money_clinic import read_balance
from tests.operations.payments.remittances import clp, make_835, post_all, svc
from tests.workers.teams import take_turn
from tests.workers.test_x12_acknowledgements import say_277ca, say_999
from tests.workers.x12_files import post, write_plan

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]
POS = "https://www.cms.gov/Medicare/Coding/place-of-service-codes"
PRICE = Decimal("120.00")


def make_two_places(claim: Tree) -> Tree:
    """The claim with two lines at two places of service, which are two claims."""
    items = [
        {
            **claim["item"][0],
            "id": f"L{n}",
            "sequence": n,
            "modifier": [{"coding": [{"code": "76"}]}],
            "quantity": {"value": 1},
            "unitPrice": {"value": float(PRICE), "currency": "USD"},
            "net": {"value": float(PRICE), "currency": "USD"},
            "locationCodeableConcept": {"coding": [{"system": POS, "code": place}]},
        }
        for n, place in enumerate(("11", "12"), 1)
    ]
    return {**claim, "item": items, "total": {"value": float(2 * PRICE), "currency": "USD"}}


@asynccontextmanager
async def clinic(known: Knowledge, folder: Path, uri: str = "memory://") -> AsyncIterator[tuple[Client, Tree]]:
    """One valid claim, and the partner `plan`, whose acknowledgements `x12_files` makes."""
    (folder / "out").mkdir()
    site = write_plan(folder, f'[transports.folder]\nout = "{folder}/out"\n')
    async with claims_clinic(known, uri, 1, profiles=site) as (client, (claim,)):
        yield client, claim


async def test_a_claim_from_its_making_to_its_payment(known: Knowledge, tmp_path: Path, store_uri: str) -> None:
    async with clinic(known, tmp_path, store_uri) as (client, claim):
        await put(client, make_two_places(claim))
        source, one, other = await transmit(client, "Claim/c00000")
        assert [each["state"] for each in (source, one, other)] == ["split", "sent", "sent"]
        text = await read_text(client, one["transmission"])
        number = segments(text, "ISA")[0][13]
        await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~", number=str(int(number))))
        assert [await read_state(client, each["reference"]) for each in (one, other)] == ["received", "received"]

        children = [await read(client, each["reference"]) for each in (one, other)]
        first, second = (each["identifier"][0]["value"] for each in children)
        answers = [
            make_claim_status(4, first, "STC*A2:20*20261120*WQ*120~"),
            make_claim_status(5, second, "STC*A7:562:85*20261120*U*120~"),
        ]
        await post(client, say_277ca(answers, trace=segments(text, "BHT")[0][3]))
        assert [await read_state(client, each["reference"]) for each in (one, other)] == ["accepted", "rejected"]
        (still,) = await transmit(client, one["reference"])
        assert still["transmission"] == one["transmission"] and still["state"] == "accepted"

        await put(client, {**await read(client, other["reference"]), "created": "2026-11-20"})
        assert await read_state(client, other["reference"]) == "draft"
        (again,) = await transmit(client, other["reference"])
        assert again["state"] == "sent" and again["transmission"] != other["transmission"]
        assert await count_deliveries(client) == 2

        assert (await read_balance(client, "a00000"))["balance"] == 2 * PRICE
        remittance = make_835("100", clp(first, "1", "120", "100", "CAS*CO*45*20")).replace(b"20260302", b"20261120")
        answer = await post(client, remittance)
        assert answer.status_code == 202, answer.text
        await post_all(client)
        assert await read_state(client, one["reference"]) == "closed", "120 less 100 paid and 20 written off"
        assert (await read_balance(client, "a00000"))["balance"] == PRICE


async def test_what_the_first_payer_leaves_goes_to_the_second(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    site = write_plan(tmp_path, f'[transports.folder]\nout = "{tmp_path}/out"\n')
    async with claims_clinic(known, "memory://", 12, profiles=site) as (client, claims):
        claim = next(each for each in claims if len(each["insurance"]) == 2)
        item = {key: value for key, value in claim["item"][0].items() if key not in ("unitPrice", "quantity")}
        price = {"value": float(PRICE), "currency": "USD"}
        await put(client, {**claim, "item": [{**item, "net": price}], "total": price})
        (first,) = await transmit(client, f"Claim/{claim['id']}")
        assert first["state"] == "sent", first
        number, code = claim["identifier"][0]["value"], item["productOrService"]["coding"][0]["code"]
        line = svc(item["id"], "120", "90", "CAS*CO*45*10", "CAS*PR*2*20", day=item["servicedDate"].replace("-", ""))
        paid = clp(number, "1", "120", "90") + line.replace("99213", code)
        await post(client, make_835("90", paid).replace(b"20260302", b"20261120"))
        await post_all(client)
        patient = claim["patient"]["reference"]
        drafts = (await client.get("Claim", params={"patient": patient, "status": "draft"})).json()["entry"]
        (draft,) = [each["resource"] for each in drafts]
        assert await read_state(client, f"Claim/{draft['id']}") == "draft"
        (second,) = await transmit(client, f"Claim/{draft['id']}")
        assert second["state"] == "sent", second
        text = await read_text(client, second["transmission"])
        # 2000B SBR01 is S for a second payer; 2320 AMT*D what the first paid, 2430 SVD and CAS how it decided the line
        assert [each[1] for each in segments(text, "SBR")] == ["S", "P"]
        assert ["AMT", "D", "90"] in segments(text, "AMT")
        assert ["CAS", "PR", "2", "20"] in segments(text, "CAS")
        assert validate_by_pyx12(text) == []


async def test_retention_removes_what_was_sent_and_answered_and_the_claim_goes_on(
    known: Knowledge, tmp_path: Path, store_uri: str
) -> None:
    (tmp_path / "out").mkdir()
    site = write_plan(tmp_path, f'retention_days = 30\n[transports.folder]\nout = "{tmp_path}/out"\n')
    async with claims_clinic(known, store_uri, 1, profiles=site) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        await WORKERS["deliveries"].step(await take_turn(client.server.context, "deliveries", "a", []))
        number = segments(await read_text(client, case["transmission"]), "ISA")[0][13]
        await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~", number=str(int(number))))
        assert await read_state(client, "Claim/c00000") == "received"
        later = replace(client.server.context, clock=lambda: client.server.context.clock() + 40 * DAY)
        await WORKERS["retention"].step(await take_turn(later, "retention", "a", []))
        assert (await client.get(case["transmission"])).status_code == 404
        assert await count_deliveries(client) == 0
        assert (await client.get("Task?code=message-intake&_total=accurate")).json()["total"] == 0
        children = make_claim_status(4, "T00000", "STC*A2:20*20261120*WQ*120~")
        await post(client, say_277ca([children]))
        assert await read_state(client, "Claim/c00000") == "accepted"


async def test_what_a_partner_does_not_answer_in_time_is_asked_about_once(
    known: Knowledge, tmp_path: Path, store_uri: str
) -> None:
    """`answer_days` 3: after four days without the 999 a Task for both claims, four days after it one for the 277CA."""
    (tmp_path / "out").mkdir()
    site = write_plan(tmp_path, f'[transports.folder]\nout = "{tmp_path}/out"\n', "answer_days = 3")
    async with claims_clinic(known, store_uri, 2, profiles=site) as (client, _):
        cases = await transmit(client, "Claim/c00000", "Claim/c00001")
        number = segments(await read_text(client, cases[0]["transmission"]), "ISA")[0][13]

        async def look(days: int) -> list[str]:
            later = replace(client.server.context, clock=lambda: client.server.context.clock() + days * DAY)
            await WORKERS["unanswered"].step(await take_turn(later, "unanswered", "a", []))
            found = (await client.get("Task?code=claim-status&status=requested")).json()
            return [each["resource"]["description"] for each in found.get("entry", ())]

        assert await look(2) == []
        for _ in range(2):
            (asked,) = await look(4)
            assert f"`plan` has sent no 999 for the 837P {number} in time" in asked
            assert "`Claim/c00000`" in asked and "`Claim/c00001`" in asked
        await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~", number=str(int(number))))
        assert await read_state(client, "Claim/c00000") == "received"
        first, second = sorted(await look(4), key=lambda each: "277CA" in each)
        assert first == asked and "no 277CA" in second
        children = make_claim_status(4, "T00000", "STC*A2:20*20261120*WQ*120~")
        await post(client, say_277ca([children]))
        assert len(await look(30)) == 2  # the other claim still waits, and was asked about


async def test_a_refused_delivery_is_closed_after_retention_has_removed_its_999(
    known: Knowledge, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    site = write_plan(tmp_path, f'retention_days = 30\n[transports.folder]\nout = "{tmp_path}/out"\n')
    async with claims_clinic(known, "memory://", 1, profiles=site) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        await WORKERS["deliveries"].step(await take_turn(client.server.context, "deliveries", "a", []))
        number = segments(await read_text(client, case["transmission"]), "ISA")[0][13]
        await post(client, say_999("AK2*837*0001*005010X222A1~IK5*R*5~", status="R", number=str(int(number))))
        assert await read_state(client, "Claim/c00000") == "rejected"
        later = replace(client.server.context, clock=lambda: client.server.context.clock() + 40 * DAY)
        await WORKERS["retention"].step(await take_turn(later, "retention", "a", []))
        id = case["transmission"].removeprefix("Task/")
        closed = await close(client.server.context, Caller("http://test/fhir"), id, "Sent by hand.")
        assert closed["status"] == "cancelled"


async def test_the_books_keep_the_charge_of_a_claim_that_is_split(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, claim):
        charges = [
            {
                "resourceType": "ChargeItem",
                "id": f"ch{n}",
                "status": "billable",
                "code": claim["item"][0]["productOrService"],
                "subject": claim["patient"],
                "occurrenceDateTime": "2026-11-10",
                "priceOverride": {"value": float(PRICE), "currency": "USD"},
            }
            for n in (1, 2)
        ]
        for each in charges:
            await put(client, each)
        made = make_two_places(claim)
        url = "https://fhir-server.example/StructureDefinition/claim-item-charge"
        for n, item in enumerate(made["item"], 1):
            item["extension"] = [{"url": url, "valueReference": {"reference": f"ChargeItem/ch{n}"}}]
        rule = {
            "id": "home",
            "because": "visits at home are the patient's",
            "when": [{"fact": "place.code", "in": ["12"]}],
            "then": {"action": "self-pay"},
        }
        await put(client, make_library("rules", "claim-split-rules", {"name": "riverbend", "rules": [rule]}))
        await put(client, made)
        before = await read_balance(client, "a00000")
        assert before["balance"] == 2 * PRICE
        cases = await transmit(client, "Claim/c00000")
        assert [each["state"] for each in cases] == ["split", "sent"]
        after = await read_balance(client, "a00000")
        assert after["balance"] == 2 * PRICE
        assert after["patient-balance"] == PRICE
        statuses = [(await read(client, f"ChargeItem/ch{n}"))["status"] for n in (1, 2)]
        assert statuses == ["billed", "billed"]


async def test_a_claim_that_is_edited_while_it_is_sent_goes_out_as_it_is_stored(
    known: Knowledge, tmp_path: Path, store_uri: str
) -> None:
    async with clinic(known, tmp_path, store_uri) as (client, claim):
        coverage = await read(client, claim["insurance"][0]["coverage"]["reference"])
        payer = (await read(client, coverage["payor"][0]["reference"]))["identifier"][0]["value"]
        settings = {"payer_id": payer, "rules": {"duplicate-claim": "off"}}
        await put(client, make_library("plan", "claim-payer-settings", settings))
        for number in range(6):
            one = {**claim, "id": f"e{number}", "identifier": []}
            del one["identifier"]
            await put(client, one)
            price = claim["item"][0]["net"]["value"] + 1 + number
            item = {
                **{key: value for key, value in claim["item"][0].items() if key != "unitPrice"},
                "net": {"value": round(price, 2), "currency": "USD"},
            }
            edited = {**one, "item": [item], "total": item["net"]}

            async def edit(edited: Tree = edited) -> int:
                return (await client.fhir("PUT", f"Claim/{edited['id']}", json=edited)).status_code

            status, (case,) = await asyncio.gather(edit(), transmit(client, f"Claim/e{number}"))
            stored = await read(client, f"Claim/e{number}")
            assert status in (200, 409, 422)
            assert case["state"] == "sent", case
            text = await read_text(client, case["transmission"])
            assert Decimal(segments(text, "CLM")[0][2]) == Decimal(str(stored["total"]["value"]))
            if status == 422:
                assert stored["total"] == claim["total"]
