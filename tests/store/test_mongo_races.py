"""Races between processes on one database: what one process cannot queue, the database's transactions settle.

Each process opens a store of its own; all tasks of all processes start at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from fhir_server.search.query import EVERYTHING, Equals
from fhir_server.store.contract.case import Ticks, delete, ids, post, put, query, retried, terms, token, write
from fhir_server.store.contract.races import balance
from fhir_server.store.mongo import open_store
from fhir_server.store.operations import Matches, Transaction, VersionIs
from fhir_server.store.protocol import AssertionFailed, Store, StoreError

SIZES = [pytest.param((2, 8), id="16 clients"), pytest.param((4, 16), id="64 clients", marks=pytest.mark.long)]
"""(processes, tasks in each)."""

ACCOUNTS = tuple(f"Account/{number}" for number in range(4))
PAIRS = range(12)

Task = Callable[[Store, int], Awaitable[Any]]


async def create(store: Store, number: int) -> bool:
    """A conditional create, the same by everyone; whether it was the one."""
    nothing = Matches(query("Patient", Equals("identifier", (token("1"),))), ())
    made = post(f"Patient/{number}", terms(identifier=[token("1")]))
    return await _won(store, Transaction((made,), (nothing,), locks=("Patient.identifier=1",)))


async def update(store: Store, number: int) -> list[bool]:
    """An update of each of three versions; which of them were the one."""
    won = []
    for version in (1, 2, 3):
        while (current := await store.read("Patient", "a")) is None or current.version < version:
            await asyncio.sleep(0.005)
        change = put("Patient/a", text=str(number))
        won.append(await _won(store, Transaction((change,), (VersionIs("Patient", "a", version),))))
    return won


async def transfer(store: Store, number: int) -> int:
    """Three transfers of one unit between two accounts; how many."""
    source, target = ACCOUNTS[number % 4], ACCOUNTS[(number // 4 + number + 1) % 4]
    if source == target:
        target = ACCOUNTS[(number + 1) % 4]
    done = 0
    while done < 3:
        found = await store.read_many((source, target))
        assertions = tuple(VersionIs(each.type, each.id, each.version) for each in found.values())
        less, more = balance(found[source]) - 1, balance(found[target]) + 1
        writes = (put(source, text=str(less)), put(target, text=str(more)))
        done += await _won(store, Transaction(writes, assertions, locks=(source, target)))
    return done


async def refer_or_delete(store: Store, number: int) -> list[tuple[int, str]]:
    """Refers to each Patient, or deletes it: the pairs that it committed a version for, and what."""
    done = []
    deleting = number % 4 == 0
    for pair in sorted(PAIRS, key=lambda pair: (pair + number // 4 * 5) % len(PAIRS)):
        target = f"Patient/{pair}"
        refers = Transaction((post(f"Observation/{pair}-{number}", terms(references=[target])),), required=(target,))
        deletes = Transaction((delete(target),), released=(target,))
        try:
            committed = await retried(store, deletes if deleting else refers)
        except StoreError:
            continue
        if committed.written[0].version:
            done.append((pair, "deleted" if deleting else "referred"))
    return done


async def _won(store: Store, transaction: Transaction) -> bool:
    try:
        await retried(store, transaction)
    except AssertionFailed:
        return False
    return True


TASKS: dict[str, Task] = {each.__name__: each for each in (create, update, transfer, refer_or_delete)}


def process(uri: str, task: str, numbers: range) -> list[Any]:
    """What one process does: all its tasks at once on one store."""

    async def run() -> list[Any]:
        store = await open_store(uri, Ticks())
        try:
            return list(await asyncio.gather(*(TASKS[task](store, number) for number in numbers)))
        finally:
            await store.close()

    return asyncio.run(run())


def raced(uri: str, task: Task, size: tuple[int, int]) -> list[Any]:
    """The results of all tasks."""
    processes, tasks = size
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = [range(tasks * number, tasks * (number + 1)) for number in range(processes)]
        running = [pool.submit(process, uri, task.__name__, part) for part in parts]
        return [result for each in running for result in each.result(timeout=300)]


def on_store(uri: str, body: Callable[[Store], Awaitable[Any]]) -> Any:
    """What a body answers on a store of this process."""

    async def run() -> Any:
        store = await open_store(uri, Ticks())
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize("size", SIZES)
def test_identical_conditional_creates_make_one_resource(mongo_uri: str, size: tuple[int, int]) -> None:
    assert raced(mongo_uri, create, size).count(True) == 1
    assert len(on_store(mongo_uri, lambda store: ids(store, "Patient", EVERYTHING))) == 1


@pytest.mark.parametrize("size", SIZES)
def test_one_update_wins_per_version(mongo_uri: str, size: tuple[int, int]) -> None:
    on_store(mongo_uri, lambda store: write(store, put("Patient/a")))
    won = raced(mongo_uri, update, size)
    assert [sum(each) for each in zip(*won, strict=True)] == [1, 1, 1]
    current = on_store(mongo_uri, lambda store: store.read("Patient", "a"))
    assert current.version == 4


@pytest.mark.parametrize("size", SIZES)
def test_transfers_conserve_the_sum(mongo_uri: str, size: tuple[int, int]) -> None:
    on_store(mongo_uri, lambda store: write(store, *(put(each, text="1000") for each in ACCOUNTS)))
    assert sum(raced(mongo_uri, transfer, size)) == 3 * size[0] * size[1]
    current = on_store(mongo_uri, lambda store: store.read_many(ACCOUNTS))
    assert sum(map(balance, current.values())) == 4000
    assert sum(each.version - 1 for each in current.values()) == 2 * 3 * size[0] * size[1]


@pytest.mark.parametrize("size", SIZES)
def test_no_reference_outlives_its_target(mongo_uri: str, size: tuple[int, int]) -> None:
    """No locks are named: the stripes of the target alone keep a reference and its deletion apart."""
    on_store(mongo_uri, lambda store: write(store, *(put(f"Patient/{pair}") for pair in PAIRS)))
    done = [each for part in raced(mongo_uri, refer_or_delete, size) for each in part]
    current = on_store(mongo_uri, lambda store: store.read_many(f"Patient/{pair}" for pair in PAIRS))
    for pair in PAIRS:
        outcomes = {what for number, what in done if number == pair}
        assert outcomes == ({"referred"} if f"Patient/{pair}" in current else {"deleted"}), pair
