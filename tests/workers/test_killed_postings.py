"""`kill -9` amid posting, in one of two processes at once: each remittance is posted once, with all that follows."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.faults.process import ROOT
from tests.mappers.billing.histories import Practice
from tests.operations.payments.money_clinic import complete, practice, read_balance, store
from tests.operations.payments.remittances import clp, find, make_835, send

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.long]

CLAIMS = 20
PATIENCE = 120


async def fill(client: Client) -> None:
    """Of 100 each: 60 paid and 15 off; 25 left to the patient, or for every third to a second payer. Twice taken in."""
    billed = Practice()
    for n in range(CLAIMS):
        billed.bill("03-01", f"A{n}", "100", payers=1 + (n % 3 == 0))
    await store(client, [complete(each) for each in billed.resources.values()])
    for first, trace in ((0, "T1"), (12, "T2")):
        numbers = range(first, 12 if first == 0 else CLAIMS)
        claims = "".join(clp(f"A{n}", "1", "100", "60", "CAS*CO*45*15", "CAS*PR*2*25") for n in numbers)
        for envelope in (1, 2):
            text = make_835(str(60 * len(numbers)), claims, trace=trace, envelope=envelope)
            assert (await send(client, text, f"{trace}{envelope}")).state == "acknowledged"


def start(uri: str, commits: int) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "tests.workers.killed_postings", uri, str(commits))
    return subprocess.Popen(command, cwd=ROOT)


@pytest.fixture(params=["sqlite", "mongo"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A durable store that lives on when a process that posts is killed; no MongoDB server is in that process."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fhir.db"
    made: str = request.getfixturevalue("new_mongo_uri")()
    return made


async def test_each_remittance_is_posted_once_whenever_it_is_killed(known: Knowledge, uri: str) -> None:
    async with practice(known, uri) as client:
        await fill(client)
    ends: list[int] = []
    # unequal, so that each kind of write is the last one once; the second process of a pair goes on where one dies
    for one, other in ((1, 0), (2, 3), (1, 2), (4, 1)):
        pair = [start(uri, one), start(uri, other)] if other else [start(uri, one)]
        ends += [await asyncio.to_thread(each.wait, PATIENCE) for each in pair]
    assert ends.count(-signal.SIGKILL) >= 4, ends
    last = [start(uri, 0), start(uri, 0)]
    assert [await asyncio.to_thread(each.wait, PATIENCE) for each in last] == [0, 0]
    async with practice(known, uri) as client:
        payments = await find(client, "PaymentReconciliation")
        assert [(each["status"], each["outcome"]) for each in payments] == [("active", "complete")] * 2
        assert sorted(len(each["detail"]) for each in payments) == [8, 12]
        responses = await find(client, "ClaimResponse")
        assert Counter(each["request"]["reference"] for each in responses) == Counter(
            f"Claim/a{n}" for n in range(CLAIMS)
        )
        assert {each["status"] for each in responses} == {"active"}
        seconds = len(range(0, CLAIMS, 3))
        assert [each["totalNet"]["value"] for each in await find(client, "Invoice")] == [25] * (CLAIMS - seconds)
        assert sum(1 for each in await find(client, "Claim") if each.get("related")) == seconds
        # the clock of the processes that post runs fast
        balance = await read_balance(client, "a", "2999-12-31")
        assert balance["balance"] == CLAIMS * 25 and balance["payments"] == CLAIMS * 60
        assert balance["adjustments"] == CLAIMS * 15
        assert balance["Organization/payer2"] == Decimal(seconds * 25)
        states = [each["businessStatus"]["coding"][0]["code"] for each in await find(client, "Task?code=claim")]
        assert Counter(states) == {"adjudicated": CLAIMS, "draft": seconds}
