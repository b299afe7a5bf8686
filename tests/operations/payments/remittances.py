"""835s of the practice of `money_clinic`, taken in as messages and posted by the worker."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from fhir_server.requests.request import Caller
from fhir_server.workers.lease import Lease
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.workers.messages import Received, receive
from fhir_server.workers.postings import step_postings
from fhir_server.workers.worker import Turn
from fhir_server.workers.x12_interpreter import X12
from tests.conftest import Client
from tests.corpora.corpus import walk
from tests.mappers.x12.test_x12_tokenizer import isa

D = Decimal


def clp(number: str, status: str, charge: str, paid: str, *rest: str, icn: str = "") -> str:
    """Loop 2100 without lines; `rest` are its further segments."""
    return f"CLP*{number}*{status}*{charge}*{paid}**12*{icn or 'ICN' + number}~NM1*QC*1*DOE*JANE****MI*M1~" + "".join(
        f"{each}~" for each in rest
    )


def svc(number: str, charge: str, paid: str, *rest: str, day: str = "20260301") -> str:
    """Loop 2110 of 99213 with its line control number."""
    return f"SVC*HC:99213*{charge}*{paid}~DTM*472*{day}~" + "".join(f"{each}~" for each in rest) + f"REF*6R*{number}~"


def make_835(
    amount: str, claims: str, trace: str = "T1", plb: str = "", envelope: int = 1, payer: str = "90001"
) -> bytes:
    """An interchange with one 835 of 2 March 2026."""
    body = (
        f"BPR*I*{amount}*C*ACH*CCP*01*111000012*DA*1*{payer}**01*111000025*DA*1*20260302~TRN*1*{trace}*{payer}~"
        "DTM*405*20260302~N1*PR*PLAN ONE~N3*1 A ST~N4*BOSTON*MA*02108~PER*BL*DESK*TE*5555551212~"
        f"N1*PE*GOOD CLINIC*XX*1700000007~LX*1~{claims}{plb}"
    )
    count, number = body.count("~") + 2, str(envelope)
    return (
        isa(number=f"{number:0>9}")
        + f"GS*HP*A*B*20260302*1200*{number}*X*005010X221A1~ST*835*{number:0>4}*005010X221A1~{body}"
        + f"SE*{count}*{number:0>4}~GE*1*{number}~IEA*1*{number:0>9}~"
    ).encode()


async def send(client: Client, text: bytes, number: str = "1") -> Received:
    """An 835 given to the intake."""
    context = client.server.context
    message = IncomingMessage("plan", "x12", number, text, "application/edi-x12")
    return await receive(context, Caller("http://test/fhir"), message, X12)


def make_turn(client: Client, owner: str = "test") -> Turn:
    context = client.server.context
    lease = Lease(context.unrestricted, "postings", owner, context.clock)
    return Turn(context, lease, lambda *args, **fields: None, asyncio.sleep)


async def post_all(client: Client) -> int:
    """The worker's steps until nothing waits; how many remittances it took to their end."""
    turn = make_turn(client)
    assert await turn.lease.acquire()
    done = 0
    while (await step_postings(turn)).done:
        done += 1
        assert done < 100
    await turn.lease.release()
    return done


async def take(client: Client, text: bytes, number: str = "1") -> None:
    """An 835 taken in and posted."""
    received = await send(client, text, number)
    assert received.state == "acknowledged", received.reason
    await post_all(client)


async def find(client: Client, query: str) -> list[dict[str, Any]]:
    """The resources of a search, all of them: large ones come on several pages."""
    pages: list[dict[str, Any]] = await walk(client, f"{query}{'&' if '?' in query else '?'}_count=500")
    return [each["resource"] for page in pages for each in page.get("entry", ())]


async def list_tasks(client: Client) -> dict[str, str]:
    """Code to description of the Tasks of posting."""
    tasks = await find(client, "Task?code:missing=false")
    system = "https://fhir-server.example/CodeSystem/task"
    return {
        each["code"]["coding"][0]["code"]: each["description"]
        for each in tasks
        if each["code"]["coding"][0]["system"] == system and each["code"]["coding"][0]["code"] != "claim"
    }
