"""Deposits of a bank: what a file may hold, and how they meet remittances whichever comes first, once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.workers.posting.deposits import list_open_money, settle_deposits
from mappers.billing.deposits import Deposit, read_deposits
from tests.conftest import Client
from tests.mappers.billing.histories import day
from tests.operations.payments.money_clinic import bill, call, practice
from tests.operations.payments.remittances import clp, find, make_835, take

CALLER = Caller("http://test/fhir")
D = Decimal


def test_the_columns_are_found_by_name_and_a_line_that_comes_twice_is_one() -> None:
    text = '\ufeffDate,Bank text,AMOUNT,Trace\r\n3/5/2026,ACH,"$1,234.50",T1\r\n\r\n'
    text += "2026-03-05,x,1234.5,T1\r\n2026-03-06,,7,T2\n"
    assert read_deposits(text) == (
        [Deposit("T1", D("1234.50"), day("03-05")), Deposit("T2", D("7.00"), day("03-06"))],
        [],
    )


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "line 1", "there is no `trace`"),
        ("trace;amount;date\nT1;5;2026-03-05", "line 1", "there is no `trace`"),
        ("trace,amount,date\nT1,-5,2026-03-05", "line 2", "dollars above 0"),
        ("trace,amount,date\nT1,5.001,2026-03-05", "line 2", "at most two places"),
        ("trace,amount,date\nT1,1e999999,2026-03-05", "line 2", "dollars above 0"),
        ("trace,amount,date\nT1,5,05.03.2026", "line 2", "2026-03-31 or 3/31/2026, not `05.03.2026`"),
        ("trace,amount,date\n,5,2026-03-05", "line 2", "1 to 50 characters"),
        ("trace,amount,date\nT1,5", "line 2", "The date is written"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_taken(text: str, where: str, what: str) -> None:
    found, issues = read_deposits(text)
    assert found == [] and issues[0].expression == (where,) and what in issues[0].diagnostics


@given(st.text(max_size=200).map(lambda text: f"trace,amount,date\n{text}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    found, issues = read_deposits(text)
    assert not (found and issues)


async def settle(client: Client, *deposits: Deposit) -> int:
    return await settle_deposits(client.server.context, CALLER, deposits)


async def list_open(client: Client) -> tuple[list[str], list[str]]:
    found = await list_open_money(client.server.context, CALLER, day("03-01"))
    return [each["description"] for each in found.deposits], [
        each["paymentIdentifier"]["value"] for each in found.remittances
    ]


@pytest.mark.anyio
async def test_a_deposit_meets_its_remittance_whichever_comes_first(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        for number in ("A1", "A2", "A3"):
            await bill(client, "03-01", number, "100")
        first, second = Deposit("T1", D("60.00"), day("03-03")), Deposit("T2", D("50.10"), day("03-04"))
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        await call(client, "Patient/a/$pay", amount=5, request="Claim/a3", key="k")  # is not the bank's to tell of
        assert await list_open(client) == ([], ["T1"])
        assert await settle(client, first, second) == 1
        missing = "50.10 of 2026-03-04 under the trace number T2: no remittance is posted."
        assert await list_open(client) == ([f"{missing} Ask the payer for the 835 or the paper EOB."], [])
        await take(client, make_835("50.1", clp("A2", "1", "100", "50.1", "CAS*CO*45*49.9"), "T2"), "2")
        assert await list_open(client) == ([f"{missing} Ask the payer for the 835 or the paper EOB."], ["T2"])
        assert (await settle(client), await list_open(client)) == (1, ([], []))
        tasks = await find(client, "Task?code=deposit")
        assert [each["status"] for each in tasks] == ["completed"] * 2
        assert (await settle(client, first, second), await find(client, "Task?code=deposit")) == (0, tasks)


@pytest.mark.anyio
async def test_another_amount_and_a_second_deposit_stay_open_with_the_reason(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        assert await settle(client, Deposit("T1", D("59.00"), day("03-03"))) == 0
        assert "the remittance with this number is of 60.00" in (await list_open(client))[0][0]
        assert await settle(client, Deposit("T1", D("60.00"), day("03-03"))) == 1
        assert await settle(client, Deposit("T1", D("60.00"), day("03-04"))) == 0
        assert "has another deposit already" in (await list_open(client))[0][1]


@pytest.mark.anyio
async def test_of_many_deposits_at_once_one_gets_the_remittance(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))
        days = [day(f"03-0{n}") for n in (3, 4, 5)]
        # the same file by two, and others that overlap with it
        lists = [[Deposit("T1", D("60.00"), each) for each in days[:n]] for n in (1, 2, 2, 3)]
        matched = await asyncio.gather(*(settle(client, *each) for each in lists))
        tasks = await find(client, "Task?code=deposit")
        assert sum(matched) == 1 and len(tasks) == 3
        assert sorted(each["status"] for each in tasks) == ["completed", "requested", "requested"]


def test_the_command_reads_a_file_and_lists_what_is_open(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"

    async def fill() -> None:
        async with practice(known, uri) as client:
            await bill(client, "03-01", "A1", "100")
            await take(client, make_835("60", clp("A1", "1", "100", "60", "CAS*CO*45*40")))

    asyncio.run(fill())
    file = tmp_path / "bank.csv"
    arguments = ["deposits", str(file), "--since", "2026-03-01", "--store", uri]
    file.write_text("trace,amount,date\nT9,5,2026-03-05\nT1,60,2026-03-05\nT1,sixty,2026-03-05\n")
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 1 and f"{file}, line 4: The amount needs dollars" in refused.output
    listed = CliRunner().invoke(cli, ["deposits", "--since", "2026-03-01", "--store", uri])
    assert listed.exit_code == 0 and "0 deposits found their remittance." in listed.output
    assert "60.00" in listed.output and "T9" not in listed.output
    file.write_text("trace,amount,date\nT9,5,2026-03-05\nT1,60,2026-03-05\n")
    taken = CliRunner().invoke(cli, arguments)
    assert taken.exit_code == 0 and "1 deposits found their remittance." in taken.output
    assert "T9" in taken.output and "60.00" not in taken.output
