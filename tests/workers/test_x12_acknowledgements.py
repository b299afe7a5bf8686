"""999, TA1, 277CA and 277 reach the delivery and the claims that they are about (005010X231A1, 005010X214, X212)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.workers.claim_tasks import move_claim, read_claim
from fhir_server.workers.message_deliveries import Delivery, make_delivery
from fhir_server.workers.message_states import MessageState, move_task
from fhir_server.workers.message_tasks import put
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import make_output
from mappers.x12.claim_to_837p import write_837p
from mappers.x12.writer import ControlNumbers
from tests.conftest import Client, serving
from tests.mappers.x12.test_x12_status import make_claim_status
from tests.mappers.x12.x12_claims import PARTNER, make_skeleton, make_source
from tests.workers.x12_files import X12, file, group, post, wrap, write_plan

pytestmark = pytest.mark.anyio

NUMBERS = ("PCN1", "PCN2", "PCN3")
CALLER = Caller("http://test/fhir")


def make_837() -> str:
    """An interchange 000000007 of one set with three claims."""
    claims = [make_skeleton() for _ in NUMBERS]
    for claim, number in zip(claims, NUMBERS, strict=True):
        claim["identifier"][0]["value"] = number
    numbers = ControlNumbers(7, 7, datetime(2026, 1, 15, 12, 0))
    return write_837p([make_source(each) for each in claims], PARTNER, numbers, lambda place: "0001").text


@pytest.fixture
async def client(known: Knowledge, store_uri: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=store_uri, profiles=write_plan(tmp_path), references="allow") as client:
        await send_claims(client)
        yield client


async def send_claims(client: Client) -> None:
    """Three claims as `$transmit` leaves them: Tasks `sent`, one delivery that the transport has taken."""
    for number in NUMBERS:
        claim = {
            "resourceType": "Claim",
            "id": number,
            "identifier": [
                {"system": "https://fhir-server.example/identifier/patient-control-number", "value": number}
            ],
            "status": "active",
            "type": {"coding": [{"code": "professional"}]},
            "use": "claim",
            "patient": {"reference": "Patient/1"},
            "created": "2026-01-15",
            "insurer": {"reference": "Organization/payer"},
            "provider": {"reference": "Organization/clinic"},
            "priority": {"coding": [{"code": "normal"}]},
            "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": "Coverage/1"}}],
        }
        assert (await client.put(f"Claim/{number}", json=claim)).status_code == 201
    text = make_837()

    async def decide(state: State) -> Decision[None]:
        moves = [action for number in NUMBERS for action in await move_claim(state, number, "sent")]
        delivery = Delivery("plan", "x12", "folder", "", 0, text[90:99], text.encode(), X12)
        binary, task = await make_delivery(state, delivery)
        assert task.text is not None
        sent = task.text.tree
        steps: tuple[MessageState, ...] = ("claimed", "sent-unanswered", "acknowledged")
        for step in steps:
            sent = move_task(sent, step, 0)
        return Decision(None, (*moves, binary, put(sent)))

    await decide_and_commit(client.server.context, CALLER, decide)


async def find(client: Client, search: str) -> list[dict[str, Any]]:
    answer = (await client.fhir("GET", search)).json()
    return [each["resource"] for each in answer.get("entry", ())]


async def read_states(client: Client) -> list[str]:
    """The states of the three claims."""
    found = []
    for number in NUMBERS:
        (task,) = await find(
            client, f"Task?focus=Claim/{number}&code=https://fhir-server.example/CodeSystem/task|claim"
        )
        found.append(task["businessStatus"]["coding"][0]["code"])
    return found


async def read_delivery(client: Client) -> dict[str, Any]:
    (task,) = await find(client, "Task?code=message-delivery")
    return task


def say_999(*answers: str, status: str = "A", number: str = "7") -> str:
    """A 999 to the group of that number."""
    said = f"AK1*HC*{number}*005010X222A1~{''.join(answers)}AK9*{status}*1*1*1~"
    return file(group(wrap("999", "0001", said, "005010X231A1"), code="FA", version="005010X231A1"))


def say_277ca(claims: Sequence[str], batch: str = "STC*A1:19:PR*20260116*WQ*150~", trace: str = "000000007000") -> str:
    """A 277CA about the batch 000000007000."""
    body = (
        "BHT*0085*08*277X214*20260116*0905*TH~HL*1**20*1~NM1*PR*2*ACME*****PI*12345~TRN*1*RECEIPT~"
        "DTP*050*D8*20260115~DTP*009*D8*20260116~HL*2*1*21*1~NM1*41*2*CLINIC*****46*S1~"
        f"TRN*2*{trace}~{batch}HL*3*2*19*1~NM1*85*2*GOOD CLINIC*****XX*1700000007~TRN*1*0~{''.join(claims)}"
    )
    return file(group(wrap("277", "0001", body, "005010X214"), code="HN", version="005010X214"))


async def test_a_999_that_accepts_makes_the_claims_received(client: Client) -> None:
    answer = await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~"))
    assert answer.status_code == 204
    assert await read_states(client) == ["received"] * 3
    delivery = await read_delivery(client)
    assert delivery["businessStatus"]["coding"][0]["code"] == "acknowledged"
    (message,) = await find(client, "Task?code=message-intake")
    assert delivery["output"][-1]["valueReference"]["reference"] == f"Task/{message['id']}"


async def test_a_999_that_rejects_tells_each_claim_its_own_faults(client: Client) -> None:
    """IK3 counts segments from ST (005010X231A1): the CLM of the second claim has the fault."""
    sent = make_837().split("~")
    place = next(n for n, each in enumerate(sent) if each.startswith("CLM*PCN2")) - 1
    fault = f"IK3*CLM*{place}*2300*8~IK4*5:1**7*99~"
    await post(client, say_999(f"AK2*837*0001*005010X222A1~{fault}IK5*R*5~", status="R"))
    assert await read_states(client) == ["rejected"] * 3
    (mine,) = await find(client, "Task?focus=Claim/PCN2&business-status=rejected")
    assert "CLM05-1 `99` in loop 2300 has a code that is not allowed" in mine["statusReason"]["text"]
    assert mine["contained"][0]["issue"][0]["expression"] == ["2300/CLM/05-1"]
    (other,) = await find(client, "Task?focus=Claim/PCN1&business-status=rejected")
    assert "of other claims" in other["statusReason"]["text"] and "contained" not in other
    delivery = await read_delivery(client)
    assert (delivery["status"], "rejected (999)" in delivery["statusReason"]["text"]) == ("rejected", True)


async def test_a_999_after_the_277ca_changes_nothing(client: Client) -> None:
    await post(client, say_277ca([make_claim_status(4, "PCN1", "STC*A2:20*20260116*WQ*150~")]))
    await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~"))
    assert await read_states(client) == ["accepted", "received", "received"]


@pytest.mark.parametrize(("status", "states"), [("A", "sent"), ("E", "sent"), ("R", "rejected")])
async def test_a_ta1_that_refuses_rejects_all_claims(client: Client, status: str, states: str) -> None:
    answer = await post(client, file(f"TA1*000000007*260116*0905*{status}*000~").replace("IEA*1", "IEA*0"))
    assert answer.status_code == 204
    assert await read_states(client) == [states] * 3
    expected = "refused" if status == "R" else "acknowledged"
    assert (await read_delivery(client))["businessStatus"]["coding"][0]["code"] == expected


async def test_an_acknowledgement_of_nothing_that_was_sent_is_a_task(client: Client) -> None:
    for text in (
        say_999("AK2*837*0001~IK5*A~", number="4711"),
        file("TA1*000004711*260116*0905*R*006~").replace("IEA*1", "IEA*0"),
    ):
        assert (await post(client, text)).status_code == 204
    tasks = await find(client, "Task?code=claim-status")
    assert len(tasks) == 2 and all("control number" in each["description"] for each in tasks)
    assert await read_states(client) == ["sent"] * 3


async def test_a_277ca_moves_and_answers_each_claim_and_tells_what_it_cannot_find(client: Client) -> None:
    claims = [
        make_claim_status(4, "PCN1", "STC*A2:20*20260116*WQ*150~"),
        make_claim_status(5, "pcn2", "STC*A7:562:85*20260116*U*75~"),
        make_claim_status(6, "PCN9", "STC*A2:20*20260116*WQ*150~"),
    ]
    for _ in range(2):
        await post(client, say_277ca(claims))
    assert await read_states(client) == ["accepted", "rejected", "sent"]
    responses = {each["request"]["reference"]: each for each in await find(client, "ClaimResponse")}
    assert {key: each["outcome"] for key, each in responses.items()} == {"Claim/PCN1": "queued", "Claim/PCN2": "error"}
    coding = responses["Claim/PCN2"]["error"][0]["code"]["coding"]
    assert [each["code"] for each in coding] == ["562", "A7"]
    assert responses["Claim/PCN1"]["insurer"] == {"reference": "Organization/payer"}
    (lost,) = await find(client, "Task?code=claim-status")
    assert "`PCN9`" in lost["description"]


async def test_a_batch_that_is_refused_rejects_the_claims_that_are_not_named(client: Client) -> None:
    batch = "STC*A8:746:40*20260116*U*150~"
    await post(client, say_277ca([], batch=batch))
    assert await read_states(client) == ["rejected"] * 3
    await post(client, say_277ca([], batch=batch, trace="4711").replace("000000001", "000000002"))
    (task,) = await find(client, "Task?code=claim-status")
    assert "`4711`" in task["description"]


def say_277(number: str, stc: str) -> str:
    """A 277 about a claim of a subscriber, which REF*EJ names."""
    body = (
        "BHT*0010*08*1*20260116*0905*DG~HL*1**20*1~NM1*PR*2*ACME*****PI*12345~HL*2*1*21*1~NM1*41*2*CLINIC*****46*S1~"
        "HL*3*2*19*1~NM1*1P*2*GOOD CLINIC*****XX*1700000007~HL*4*3*22*0~NM1*IL*1*DOE*JANE****MI*M1~"
        f"TRN*2*TRACE1~{stc}REF*1K*ICN1~REF*EJ*{number}~DTP*472*D8*20260110~"
    )
    return file(group(wrap("277", "0001", body, "005010X212"), code="HN", version="005010X212"))


@pytest.mark.parametrize(
    ("stc", "state", "asked"),
    [
        ("STC*P1:20*20260116**150~", "accepted", 0),
        ("STC*A2:20*20260116**150~", "accepted", 0),
        ("STC*A5:20*20260116**150~", "accepted", 1),
        ("STC*A0:16*20260116**150~", "sent", 0),
        ("STC*F2:585*20260116**150~", "sent", 0),
        ("STC*Z9:585*20260116**150~", "sent", 1),
        ("STC*R3:20*20260116**150~", "sent", 1),
        ("STC*A4:35*20260116**150~", "sent", 1),
    ],
)
async def test_a_277_moves_what_is_pending_and_asks_a_person(client: Client, stc: str, state: str, asked: int) -> None:
    """Status categories: P pending, F finalized, R request for information, A4 not found (x12.md 1.12)."""
    await post(client, say_277("PCN1", stc))
    assert (await read_states(client))[0] == state
    assert len(await find(client, "Task?code=claim-status&focus=Claim/PCN1")) == asked
    (response,) = await find(client, "ClaimResponse")
    assert response["request"]["reference"] == "Claim/PCN1"


async def test_a_claim_that_was_edited_meanwhile_stays_and_the_others_move(client: Client) -> None:
    await post(client, say_277ca([make_claim_status(4, "PCN1", "STC*A7:562:85*20260116*U*75~")]))
    claim = (await client.fhir("GET", "Claim/PCN1")).json()
    assert (await client.put("Claim/PCN1", json={**claim, "created": "2026-01-16"})).status_code == 200
    answer = await post(client, say_999("AK2*837*0001*005010X222A1~IK5*A~"), accept="application/fhir+json")
    assert await read_states(client) == ["draft", "received", "received"]
    (task,) = [each["resource"] for each in answer.json()["entry"]]
    assert "`draft` and cannot become `received`" in task["contained"][0]["issue"][0]["diagnostics"]


async def test_a_277ca_of_too_many_claims_is_refused_and_kept(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction writes all of its claims, so that there is a bound; TRN counts them."""
    monkeypatch.setattr("mappers.x12.envelope.SET_CLAIMS", 5)
    claims = [make_claim_status(4 + place, "PCN1", "STC*A2:20*20260116*WQ*150~") for place in range(6)]
    answer = await post(client, say_277ca(claims))
    assert "IK5*R*5" in answer.text and await read_states(client) == ["sent"] * 3
    (task,) = await find(client, "Task?business-status=refused")
    assert "has more than 5 claims and is refused; send it as several sets" in task["statusReason"]["text"]


async def test_what_answers_an_earlier_transmission_of_a_claim_changes_nothing(client: Client) -> None:
    """PCN1 was sent again in another interchange; PCN2 was not."""
    delivery = await read_delivery(client)

    async def decide(state: State) -> Decision[None]:
        outputs = {
            "PCN1": [f"Task/{delivery['id']}", "Task/later"],
            "PCN2": [f"Task/{delivery['id']}"],
        }
        writes = []
        for number, deliveries in outputs.items():
            found = await read_claim(state, f"Claim/{number}")
            made = [make_output("transmission", valueReference={"reference": each}) for each in deliveries]
            writes.append(put({**found.task, "output": made}))
        return Decision(None, writes)

    await decide_and_commit(client.server.context, CALLER, decide)
    claims = [
        make_claim_status(3 + n, number, "STC*A7:562:85*20260116*U*75~") for n, number in enumerate(NUMBERS[:2], 1)
    ]
    answer = await post(client, say_277ca(claims), accept="application/fhir+json")
    assert await read_states(client) == ["sent", "rejected", "sent"]
    assert f"was sent again after `Task/{delivery['id']}`" in answer.text
    await post(client, say_999("AK2*837*0001*005010X222A1~IK5*R*5~", status="R"))
    assert await read_states(client) == ["sent", "rejected", "rejected"]
