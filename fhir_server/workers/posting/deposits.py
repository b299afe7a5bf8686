"""Deposits of the bank as Tasks, each once, matched with remittances whichever of the two comes first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Bound, Clause, DateRange, Equals, StartsWith
from fhir_server.workers.posting.closings import find_instant
from fhir_server.workers.posting.reading import cut, find_all, find_each
from fhir_server.workers.posting.writes import copy, find_zone, name, put, read_now
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.deposits import Deposit, find_payments, is_expected, make_deposit_task, read_deposit_task
from mappers.billing.fields import Resource, find_reference, make_reference

_ANY: Clause = Equals("code", (f"deposit{SEPARATOR}{codes.TASK}",))
_OPEN: Clause = And((_ANY, StartsWith("status", f"requested{SEPARATOR}")))


class OpenMoney(NamedTuple):
    """What has no other half: Tasks of deposits, remittances."""

    deposits: list[Resource]
    remittances: list[Resource]


async def settle_deposits(context: Context, caller: Caller, deposits: Iterable[Deposit]) -> int:
    """Store deposits and match them, and those that were open before; how many found their remittance now."""
    waiting = {each.make_key(): each for each in deposits}
    for task in await find_all(context.reader(caller), "Task", _OPEN):
        if deposit := read_deposit_task(task):
            waiting.setdefault(deposit.make_key(), deposit)
    matched = 0
    for deposit in waiting.values():
        matched += await _settle(context, caller, deposit)
    return matched


async def _settle(context: Context, caller: Caller, deposit: Deposit) -> bool:
    async def decide(state: State) -> Decision[bool]:
        state.lock((f"deposit {deposit.trace}",))
        where = StartsWith("payment-identifier", f"{deposit.trace}{SEPARATOR}")
        payments = [dict(each.tree) for each in await state.search("PaymentReconciliation", where)]
        own = name(make_deposit_task(deposit, payments, 0, read_now(state.context)))
        before = await state.read("Task", own["id"])
        if before is not None and before.tree.get("status") != "requested":
            return Decision(False)
        references = tuple(make_reference(each) for each in find_payments(deposit, payments))
        others = await state.search("Task", _about(references)) if references else []
        task = name(make_deposit_task(deposit, payments, len(others), read_now(state.context)))
        if before is not None:
            if all(task[key] == before.tree.get(key) for key in ("status", "description")):
                return Decision(False)
            # a person's notes on it stay
            task = {**copy(before.tree), **{key: value for key, value in task.items() if key != "authoredOn"}}
        return Decision(task["status"] == "completed", (put(task),))

    return (await decide_and_commit(context, caller, decide)).answer


def _about(references: tuple[str, ...]) -> Clause:
    """The deposits of these remittances."""
    return And((_ANY, Equals("output", references)))


async def list_open_money(context: Context, caller: Caller, since: date) -> OpenMoney:
    """Deposits without a remittance, and remittances paid since a day without a deposit."""
    reader = context.reader(caller)
    deposits = await find_all(reader, "Task", _OPEN)
    bounds = (Bound("high", "ge", find_instant(since, find_zone(context))),)
    kept = ("resourceType", "id", "paymentDate", "paymentAmount", "paymentIdentifier", "paymentIssuer")
    expected = {
        make_reference(each): {key: each[key] for key in kept if key in each}
        async for each in find_each(reader, "PaymentReconciliation", DateRange("payment-date", bounds))
        if is_expected(each)
    }
    for part in cut(sorted(expected)):
        for task in await find_all(reader, "Task", _about(part)):
            for each in task.get("output", ()):
                expected.pop(find_reference(each.get("valueReference")), None)
    order = sorted(expected.values(), key=lambda each: (each["paymentDate"], each["id"]))
    return OpenMoney(sorted(deposits, key=lambda each: str(each.get("description"))), order)
