"""Months that are closed: reports go on from them and stay the same, and nothing counts in them any more."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed
from fhir_server.workers.posting import practice as reading
from fhir_server.workers.posting.closings import find_last_day, list_months, shut
from fhir_server.workers.posting.practice import close_month, read_practice
from tests.conftest import Client
from tests.mappers.billing.histories import Practice, day
from tests.operations.payments import money_clinic
from tests.operations.payments.money_clinic import POSTING_DATE, bill, call, complete, sentence, store
from tests.operations.payments.remittances import clp, find, make_835, take
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
VISIT = {
    "resourceType": "Encounter",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/a"},
}
REPORTS = (
    "$ar-aging?date=2026-05-20",
    "$ar-aging?date=2026-05-20&age-from=responsibility&by=patient",
    "$ar-aging?date=2026-05-20&by=provider",
    "$financial-summary?start=2026-04-01&end=2026-05-20&days=365",
    "$financial-summary?start=2026-05-01&end=2026-05-20",
    "$denials?start=2026-04-01&end=2026-05-20",
    "$productivity?start=2026-04-01&end=2026-05-20",
)


async def close(client: Client, month: str) -> None:
    async def pause(seconds: float) -> None:
        pass

    await close_month(client.server.context, CALLER, month, pause)


def remit(*values: str, **more: str) -> bytes:
    """An 835 of May, so that no claim is younger."""
    return make_835(*values, **more).replace(b"20260302", b"20260504")  # type: ignore[arg-type]


async def play(client: Client, clock: Clock, *closed: str) -> list[str]:
    """Three months of money whose parts name those of earlier months; the months that are named are closed."""
    practice = Practice()
    practice.bill("03-05", "A1", "100", payers=2)
    practice.enter("03-06", "B1", "80", provider="pine")
    await store(client, [complete(each) for each in practice.resources.values()])
    for n in (1, 2):
        await client.put(f"Encounter/v{n}", json={**VISIT, "id": f"v{n}"})
    clock.set("2026-03-06T12:00:00Z")
    await call(client, "Patient/a/$pay", amount=15, request="Encounter/v1", key="k1")
    clock.set("2026-04-02T12:00:00Z")
    if "2026-03" in closed:
        await close(client, "2026-03")
    # the charge of March gets its claim, the paid visit gets one, the first payer leaves something to the second
    charges = practice.of("ChargeItem")
    late = complete(practice.claim("04-02", "B1", [each for each in charges if each["id"] == "b11"]))
    early = practice.claim("04-03", "AV1", practice.enter("04-03", "AV1", "60"), visit="Encounter/v1")
    await store(client, [*(complete(each) for each in practice.of("ChargeItem")), late, complete(early)])
    await take(client, remit("60", clp("A1", "1", "100", "60", "CAS*CO*45*20", "CAS*PR*2*20")))
    await take(client, remit("0", clp("B1", "1", "80", "0", "CAS*CO*16*80"), trace="T2"), "2")
    clock.set("2026-05-04T12:00:00Z")
    if "2026-04" in closed:
        await close(client, "2026-04")
    second = next(each for each in await find(client, "Claim") if each.get("related"))
    number = second["identifier"][0]["value"]
    await client.put(f"Claim/{second['id']}", json={**second, "status": "active"})
    await take(
        client, remit("12", clp(number, "2", "100", "12", "CAS*OA*23*80", "CAS*PR*2*8"), "T3", payer="90002"), "3"
    )
    both = clp("B1", "22", "-80", "0", "CAS*CO*16*-80") + clp("B1", "1", "80", "70", "CAS*CO*45*10")
    await take(client, remit("70", both, "T4"), "4")
    await call(client, "Patient/a/$pay", amount=5, request="Encounter/v1", key="k2")
    clock.set("2026-05-20T12:00:00Z")
    return [(await client.fhir("GET", url, headers={"accept": "text/csv"})).text for url in REPORTS]


@pytest.mark.parametrize("closed", [("2026-03",), ("2026-04",), ("2026-03", "2026-04")])
async def test_reports_from_a_closing_are_those_from_the_beginning(
    known: Knowledge, store_uri: str, closed: tuple[str, ...]
) -> None:
    async with money_clinic.practice(known, "memory://", clock := Clock("2026-03-05T12:00:00Z")) as client:
        expected = await play(client, clock)
    # what is open on 20 May: 100 − 60 − 20 − 12 of A1, nothing of B1 (80 − 70 − 10), 60 − 15 − 5 of the visit
    assert expected[0].splitlines()[1:] == [
        "Organization/payer1,Plan 1,0.00,40.00,0.00,0.00,0.00,40.00",
        "patient,,0.00,0.00,8.00,0.00,0.00,8.00",
    ]
    async with money_clinic.practice(known, store_uri, clock := Clock("2026-03-05T12:00:00Z")) as client:
        assert await play(client, clock, *closed) == expected
        assert await list_months(client.server.context) == list(closed)


async def test_a_report_reads_what_came_since_the_closing_and_what_that_names(known: Knowledge) -> None:
    async with money_clinic.practice(known, clock=(clock := Clock("2026-03-05T12:00:00Z"))) as client:
        for n in range(30):
            await bill(client, "03-05", f"A{n}", "100")
        clock.set("2026-05-02T12:00:00Z")
        await close(client, "2026-03")
        await take(client, remit("60", clp("A7", "1", "100", "60", "CAS*CO*45*40")))
        read = await read_practice(client.server.context, CALLER, day("05-02"))
        kinds = sorted(
            name
            for type in ("ChargeItem", "Claim", "Coverage", "Invoice", "Encounter")
            for name in read.rows.get_rows(type)
        )
        assert kinds == ["ChargeItem/a71", "Claim/a7", "Coverage/1"]
        assert read.closing is not None and len(read.closing.books.entries) == 30


async def test_nothing_is_posted_in_a_closed_month_whatever_the_clock_says(known: Knowledge, store_uri: str) -> None:
    async with money_clinic.practice(known, store_uri, clock := Clock("2026-04-01T00:00:01Z")) as client:
        await bill(client, "03-05", "A1", "100")
        await close(client, "2026-03")
        clock.set("2026-03-31T23:59:58Z")
        paid = await call(client, "Patient/a/$pay", amount=5, request="Claim/a1", key="k")
        await take(client, remit("60", clp("A1", "1", "100", "60", "CAS*CO*45*20", "CAS*PR*1*20")))
        posted = [*await find(client, "PaymentReconciliation"), *await find(client, "ClaimResponse")]
        posted += await find(client, "Invoice")
        days = [each["valueDate"] for one in posted for each in one["extension"] if each["url"] == POSTING_DATE]
        assert paid.status_code == 201 and days == ["2026-04-01"] * 4
        charge = {
            "resourceType": "ChargeItem",
            "status": "billable",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/a"},
        }
        assert (await client.post("ChargeItem", json=charge)).json()["enteredDate"] == "2026-04-01"


@pytest.mark.parametrize(
    "change",
    [
        {"enteredDate": "2026-04-02"},
        {"priceOverride": {"value": 90, "currency": "USD"}},
        {"status": "entered-in-error"},
        None,
    ],
)
async def test_charges_of_a_closed_month_stand(known: Knowledge, change: dict[str, Any] | None) -> None:
    async with money_clinic.practice(known, clock=Clock("2026-04-02T12:00:00Z")) as client:
        await store(client, map(complete, Practice().enter("03-05", "B1", "100")))
        await close(client, "2026-03")
        charge = (await client.get("ChargeItem/b11")).json()
        url = "ChargeItem/b11"
        refused = await (client.put(url, json={**charge, **change}) if change is not None else client.delete(url))
        assert refused.status_code == 422 and "that month is closed" in sentence(refused)
        noted = await client.put(url, json={**charge, "status": "billable", "note": [{"text": "seen"}]})
        assert noted.status_code == 200, noted.text
        old = {**charge, "id": "b12", "enteredDate": "2026-03-31"}
        refused = await client.put("ChargeItem/b12", json=old)
        assert refused.status_code == 422 and "leave `enteredDate` out" in sentence(refused)
        assert (await client.put("ChargeItem/b12", json={**old, "status": "planned"})).status_code == 201
        assert (await client.put("ChargeItem/b12", json={**old, "enteredDate": "2026-04-01"})).status_code == 200


class Shutting:
    """A store in which a month is shut between the decision of a write and its commit."""

    def __init__(self, context: Context, month: str) -> None:
        self._context, self._store, self._month = context, context.unrestricted, month

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, transaction: Transaction) -> Committed:
        if transaction.writes:
            object.__setattr__(self._context, "unrestricted", self._store)
            await shut(self._context, find_last_day(self._month))
        return await self._store.transact(transaction)


async def test_what_was_decided_before_its_month_was_shut_is_decided_again(known: Knowledge, store_uri: str) -> None:
    async with money_clinic.practice(known, store_uri, clock := Clock("2026-03-05T12:00:00Z")) as client:
        context = client.server.context
        await bill(client, "03-05", "A1", "100")
        await store(client, map(complete, Practice().enter("03-05", "B1", "100")))
        charge = (await client.get("ChargeItem/b11")).json()
        clock.set("2026-03-31T23:59:58Z")
        object.__setattr__(context, "unrestricted", Shutting(context, "2026-02"))
        february = {**charge, "id": "b12", "enteredDate": "2026-02-27"}
        refused = await client.put("ChargeItem/b12", json=february)
        assert refused.status_code == 422 and "that month is closed" in sentence(refused)
        object.__setattr__(context, "unrestricted", Shutting(context, "2026-03"))
        paid = await call(client, "Patient/a/$pay", amount=5, request="Claim/a1", key="k")
        days = [each["valueDate"] for each in paid.json()["extension"] if each["url"] == POSTING_DATE]
        assert paid.status_code == 201 and days == ["2026-04-01"]


@pytest.mark.parametrize(
    ("now", "waits"), [("2026-04-01T00:00:10Z", [80]), ("2026-04-01T00:01:30Z", []), ("2026-04-20T12:00:00Z", [])]
)
async def test_it_waits_for_what_was_dated_before_the_end_of_the_month_and_for_nothing_else(
    known: Knowledge, now: str, waits: list[int]
) -> None:
    """`request_timeout` and 30 s more are 90 s."""
    async with money_clinic.practice(known, clock=Clock(now)) as client:
        waited: list[float] = []

        async def pause(seconds: float) -> None:
            waited.append(round(seconds))

        await close_month(client.server.context, CALLER, "2026-03", pause)
        assert waited == waits


async def test_a_month_is_closed_once_it_is_over_and_after_a_death_again(known: Knowledge, store_uri: str) -> None:
    async with money_clinic.practice(known, store_uri, clock := Clock("2026-03-31T12:00:00Z")) as client:
        context = client.server.context
        await bill(client, "03-05", "A1", "100")
        with pytest.raises(Unprocessable, match="2026-03 is not over"):
            await close(client, "2026-03")
        clock.set("2026-04-01T12:00:00Z")
        await shut(context, find_last_day("2026-03"))  # what a process has done that was killed while it waited
        assert await list_months(context) == []
        await close(client, "2026-03")
        waited: list[float] = []

        async def pause(seconds: float) -> None:
            waited.append(seconds)

        await close_month(context, CALLER, "2026-03", pause)
        assert waited == [] and await list_months(context) == ["2026-03"]
        practice = await reading.read_practice(context, CALLER, day("04-01"))
        assert practice.closing is not None
        assert [entry.amount for entry in practice.closing.books.entries] == [100]
