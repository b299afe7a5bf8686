"""The reports over HTTP and at the terminal: the example of docs/reports.md, with its figures as the page has them."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge, Seams
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, NOTHING, Clause
from fhir_server.security.policy import AllowAll, Principal
from fhir_server.workers.claim_tasks import read_claim
from fhir_server.workers.posting.writes import put
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import make_output, move_task
from tests.conftest import Client, serving
from tests.mappers.billing.histories import Practice
from tests.operations.payments import money_clinic
from tests.operations.payments.money_clinic import bill, call, complete, sentence, store
from tests.operations.payments.remittances import clp, find, make_835, svc, take
from tests.operations.payments.test_closings import close
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reports.md"
QUARTER = "start=2026-01-01&end=2026-03-31"
# when the page has the claims sent
SENT = {"a1": "2026-01-08", "b1": "2026-01-12", "c1": "2026-02-06"}


class HideCharges(AllowAll):
    """Hides ChargeItems until it is told otherwise."""

    hides = True

    def restricts(self, principal: Principal) -> bool:
        return self.hides

    def restriction(self, principal: Principal, type: str) -> Clause:
        return NOTHING if self.hides and type == "ChargeItem" else EVERYTHING


@asynccontextmanager
async def quarter(known: Knowledge, uri: str, **settings: Any) -> AsyncIterator[Client]:
    """The quarter of the page, played: claims, two remittances, an Invoice and its payment."""
    clock = Clock("2026-02-05T12:00:00Z")
    async with money_clinic.practice(known, uri, clock, **settings) as client:
        practice = Practice()
        practice.bill("01-06", "A1", "100", "50", served="01-05")
        practice.bill("01-10", "B1", "200", served="01-08", provider="elm")
        practice.bill("02-04", "C1", "90", served="02-01")
        elm = {"resourceType": "Practitioner", "id": "elm", "name": [{"prefix": ["Dr."], "family": "Elm"}]}
        ann = {"resourceType": "Patient", "id": "c"}
        account = {"resourceType": "Account", "id": "c", "status": "active", "subject": [{"reference": "Patient/c"}]}
        await store(client, [elm, ann, account, *map(complete, practice.resources.values())])
        for id, when in SENT.items():
            await send_claim(client, id, when)
        denied = svc("A1L2", "50", "0", "CAS*CO*197*50", day="20260105")
        lines = svc("A1L1", "100", "60", "CAS*CO*45*20", "CAS*PR*1*20", day="20260105") + denied
        pine = clp("A1", "1", "150", "60") + lines
        await take(client, make_835("180", pine + clp("B1", "1", "200", "120", "CAS*CO*45*80")))
        (invoice,) = await find(client, "Invoice")
        clock.set("2026-02-20T12:00:00Z")
        paid = await call(client, "Patient/a/$pay", amount=20, request=f"Invoice/{invoice['id']}", key="k")
        assert paid.status_code == 201, paid.text
        clock.set("2026-03-03T12:00:00Z")
        await take(client, make_835("0", clp("C1", "1", "90", "0", "CAS*CO*16*90"), trace="T2"), "2")
        clock.set("2026-03-31T12:00:00Z")
        yield client


async def send_claim(client: Client, id: str, when: str) -> None:
    """What `$transmit` stores of a claim on a day."""
    delivery = {
        "resourceType": "Task",
        "id": f"{id}-{when}",
        "status": "completed",
        "intent": "order",
        "code": {"coding": [{"system": "https://fhir-server.example/CodeSystem/task", "code": "message-delivery"}]},
        "authoredOn": f"{when}T15:00:00Z",
    }

    async def decide(state: State) -> Decision[None]:
        found = await read_claim(state, f"Claim/{id}")
        output = make_output("transmission", valueReference={"reference": f"Task/{delivery['id']}"})
        entered = {**found.task, "authoredOn": f"{when}T00:00:00Z"}
        sent = move_task(entered, "sent", f"{when}T15:00:00Z")
        return Decision(None, (put(delivery), put({**sent, "output": [*sent.get("output", ()), output]})))

    await decide_and_commit(client.server.context, Caller("http://test/fhir"), decide)


async def read_csv(client: Client, url: str) -> list[dict[str, str]]:
    answer = await client.fhir("GET", url, headers={"accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_the_summary_is_the_one_of_the_page(known: Knowledge, store_uri: str) -> None:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[4].strip() for row in rows if len(row) == 6}
    assert len(told) == 20
    async with quarter(known, store_uri) as client:
        figures = await read_csv(client, f"$financial-summary?{QUARTER}")
        assert {row["figure"]: row["value"] for row in figures} == told
        report = (await client.get(f"$financial-summary?{QUARTER}")).json()
        assert client.server.context.validator.find_issues(report) == ()
        assert report["period"] == {"start": "2026-01-01", "end": "2026-03-31"}
        scores = {each["code"]["text"]: each.get("measureScore") for each in report["group"]}
        assert scores["charges"] == {"value": 440.0, "unit": "USD", "system": "urn:iso:std:iso:4217", "code": "USD"}
        assert scores["days_in_receivables"]["value"] == 28.6 and scores["days_in_receivables"]["code"] == "d"
        assert scores["denial_rate"] == {"value": 0.6667}
        # from the closing of January: what was sent then is still known of what is answered later
        later = "$financial-summary?start=2026-02-01&end=2026-03-31"
        before = await read_csv(client, later)
        await close(client, "2026-01")
        assert await read_csv(client, later) == before
        assert {"figure": "payment_lag", "value": "25.7"} in before


async def test_a_claim_that_was_sent_twice_was_refused_and_one_that_was_not_sent_has_no_lag(known: Knowledge) -> None:
    async with money_clinic.practice(known, clock=Clock("2026-03-20T12:00:00Z")) as client:
        for number in ("A1", "A2", "A3"):
            await bill(client, "03-01", number, "100")
        await send_claim(client, "a1", "2026-03-02")
        await send_claim(client, "a1", "2026-03-09")
        await send_claim(client, "a2", "2026-03-05")
        claims = "".join(clp(number, "1", "100", "60", "CAS*CO*45*40") for number in ("A1", "A2", "A3"))
        await take(client, make_835("180", claims))
        rows = await read_csv(client, "$financial-summary?start=2026-03-01&end=2026-03-31")
        figures = {row["figure"]: row["value"] for row in rows}
        # A2 and A3 of three; sent after 1 and 4 days; answered 18 and 15 days later
        assert figures["clean_claim_rate"] == "0.6667"
        assert (figures["submission_lag"], figures["payment_lag"]) == ("2.5", "16.5")


async def test_receivables_denials_and_productivity_of_the_page(known: Knowledge, store_uri: str) -> None:
    async with quarter(known, store_uri) as client:
        one = {"payer": "Organization/payer1", "name": "Plan 1", "0-30": "90.00", "31-60": "50.00", "61-90": "0.00"}
        patient = {"payer": "patient", "name": "", "0-30": "0.00", "31-60": "20.00", "61-90": "0.00"}
        empty = {"91-120": "0.00", "121+": "0.00"}
        assert await read_csv(client, "$ar-aging?date=2026-02-10") == [
            one | empty | {"total": "140.00"},
            patient | empty | {"total": "20.00"},
        ]
        by_responsibility = await read_csv(client, "$ar-aging?date=2026-02-10&age-from=responsibility")
        assert by_responsibility[1] == patient | empty | {"0-30": "20.00", "31-60": "0.00", "total": "20.00"}
        assert await read_csv(client, f"$denials?{QUARTER}") == [
            {"reason": "CO-16", "name": "", "denials": "1", "amount": "90.00", "share": "0.6429"},
            {"reason": "CO-197", "name": "", "denials": "1", "amount": "50.00", "share": "1.0000"},
        ]
        rows = [tuple(row.values()) for row in await read_csv(client, f"$productivity?{QUARTER}")]
        assert rows == [
            ("Practitioner/elm", "Dr. Elm", "1", "1", "200.00", "120.00", "80.00"),
            ("Practitioner/pine", "Practitioner/pine", "2", "3", "240.00", "80.00", "20.00"),
        ]
        report = (await client.get("$ar-aging?date=2026-02-10")).json()
        assert client.server.context.validator.find_issues(report) == ()
        (total,) = (each for each in report["group"] if each["code"]["text"] == "total")
        strata = total["stratifier"][0]["stratum"]
        assert [(each["value"]["text"], each["measureScore"]["value"]) for each in strata] == [
            ("Organization/payer1", 140.0),
            ("patient", 20.0),
        ]


async def test_provider_adjustments_are_open_until_they_cancel_out(known: Knowledge, store_uri: str) -> None:
    async with money_clinic.practice(known, store_uri, clock := Clock("2026-03-10T12:00:00Z")) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        clock.set("2026-03-17T12:00:00Z")
        back = clp("A1", "22", "-100", "-60", "CAS*CO*45*-40")
        await take(client, make_835("0", back, "T2", "PLB*1700000007*20261231*FB:OVER1*-60~"), "2")
        clock.set("2026-03-24T12:00:00Z")
        again = clp("A1", "1", "100", "100")
        plb = "PLB*1700000007*20261231*FB:OVER1*60*WO:OTHER*7.5~"
        await take(client, make_835("32.5", again, "T3", plb), "3")
        one = {"reference": "OVER1", "name": "", "open": "60.00"}
        assert await read_csv(client, "$provider-adjustments?date=2026-03-16") == []
        assert await read_csv(client, "$provider-adjustments?date=2026-03-17") == [one]
        other = {"payer": "Organization/payer1", "name": "Plan 1", "open": "-7.50"}
        assert await read_csv(client, "$provider-adjustments?date=2026-03-24&by=payer") == [other]
        assert (await client.fhir("GET", "$provider-adjustments?by=month")).status_code == 400


async def test_an_empty_practice_has_empty_reports(known: Knowledge) -> None:
    async with money_clinic.practice(known) as client:
        for url in ("$ar-aging", "$denials", "$productivity"):
            report = (await client.get(url)).json()
            assert report["resourceType"] == "MeasureReport" and "group" not in report
            assert client.server.context.validator.find_issues(report) == ()
        (charges, *_) = await read_csv(client, "$financial-summary")
        assert charges == {"figure": "charges", "value": "0.00"}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("$ar-aging?date=soon", "`date` is a day such as 2026-03-31, not `soon`"),
        ("$ar-aging?by=month", "`by` is one of `payer`, `patient`, `provider`, `location`, not `month`"),
        ("$ar-aging?age-from=birth", "`age-from` is one of `service`, `responsibility`"),
        ("$financial-summary?start=2026-03-31&end=2026-01-01", "ends on 2026-01-01, before it begins on 2026-03-31"),
        ("$financial-summary?days=30", "`days` is one of `90`, `365`, not `30`"),
        ("$denials?by=patient", "`by` is one of `reason`, `payer`"),
        ("$productivity?by=month", "has no parameter `by`"),
    ],
)
async def test_a_report_that_makes_no_sense_says_why(known: Knowledge, url: str, text: str) -> None:
    async with money_clinic.practice(known) as client:
        refused = await client.fhir("GET", url)
        assert refused.status_code == 400 and text in sentence(refused)


async def test_a_report_holds_nothing_that_its_reader_may_not_see(known: Knowledge) -> None:
    policy = HideCharges()
    async with serving(known, Seams(policy=policy), store="memory://") as client:
        await store(client, money_clinic.parties())
        await bill(client, "03-01", "A1", "100")
        assert await read_csv(client, "$ar-aging") == []
        policy.hides = False
        assert (await read_csv(client, "$ar-aging"))[0]["total"] == "100.00"


def test_a_report_at_the_terminal_has_names_and_sums(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    monkeypatch.setenv("COLUMNS", "300")

    async def fill() -> None:
        async with quarter(known, uri):
            pass

    asyncio.run(fill())

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["report", *arguments, "--store", uri])
        assert result.exit_code == 0, result.output
        return result.output

    aging = run("ar-aging", "--date", "2026-02-10")
    assert "ar-aging 2026-02-10" in aging
    lines = [re.split("[│┃]", line)[1:-1] for line in aging.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["Organization/payer1", "Plan 1", "90.00", "50.00", "0.00", "0.00", "0.00", "140.00"],
        ["patient", "", "0.00", "20.00", "0.00", "0.00", "0.00", "20.00"],
        ["", "", "90.00", "70.00", "0.00", "0.00", "0.00", "160.00"],
    ]
    period = ("--start", "2026-01-01", "--end", "2026-03-31")
    assert re.search(r"days_in_receivables\s+│\s+28.6", run("financial-summary", *period))
    assert run("denials", *period, "--csv").splitlines()[1] == "CO-16,,1,90.00,0.6429"
    refused = CliRunner().invoke(cli, ["report", "denials", "--by", "moon", "--store", uri])
    assert refused.exit_code == 1 and "`by` is one of" in refused.output
