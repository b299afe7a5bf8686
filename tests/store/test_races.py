"""Races between processes on one database: what one process cannot queue, the database's transactions settle.

Each process opens a store of its own; all clients of all processes start at once, and each asks for at most ten things.

Spec: https://hl7.org/fhir/R4/http.html#concurrency, https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from fhir_server.search.query import EVERYTHING, Equals
from fhir_server.store import mongo, sqlite
from fhir_server.store.contract.case import Ticks, delete, ids, post, put, query, retry_transaction, terms, token, write
from fhir_server.store.contract.races import balance
from fhir_server.store.operations import Matches, Transaction, VersionIs
from fhir_server.store.protocol import AssertionFailed, Opener, StillReferenced, Store, TargetsMissing

Size = tuple[int, int]
"""(processes, clients in each)."""

SIZES = [pytest.param((2, 8), id="16 clients"), pytest.param((4, 16), id="64 clients", marks=pytest.mark.long)]

OPENERS: dict[str, Opener] = {"sqlite": sqlite.open_store, "mongodb": mongo.open_store}

TOGETHER = 60
"""Seconds within which all processes have opened their store."""

ACCOUNTS = tuple(f"Account/{number}" for number in range(4))
OPENING = 1000
PAIRS = range(10)

Client = Callable[[Store, int], Awaitable[Any]]


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.long)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each durable store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fhir.db"
    return str(request.getfixturevalue("mongo_uri"))


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


async def transfer(store: Store, number: int) -> list[tuple[str, str]]:
    """Five transfers of one unit, each planned once: the accounts of those that were not refused."""
    done = []
    for turn in range(5):
        source, target = ACCOUNTS[(number + turn) % 4], ACCOUNTS[(number + turn + 1 + number // 4 % 3) % 4]
        found = await store.read_many((source, target))
        assertions = tuple(VersionIs(each.type, each.id, each.version) for each in found.values())
        less, more = balance(found[source]) - 1, balance(found[target]) + 1
        writes = (put(source, text=str(less)), put(target, text=str(more)))
        if await _won(store, Transaction(writes, assertions, locks=(source, target))):
            done.append((source, target))
    return done


async def refer_or_delete(store: Store, number: int) -> list[tuple[int, str, tuple[str, ...]]]:
    """Refers to each Patient, or deletes it: the pair, the answer, and the sources that the answer speaks of.

    Four clients at a time go the same way; one of them deletes, in its turn by pair, so that each side comes first.
    """
    answers = []
    for pair in sorted(PAIRS, key=lambda pair: (pair + number // 4 * 3) % len(PAIRS)):
        act = _deletion if (number + pair) % 4 == 0 else _reference
        answers.append((pair, *await act(store, pair, number)))
    return answers


async def _reference(store: Store, pair: int, number: int) -> tuple[str, tuple[str, ...]]:
    source, target = f"Observation/{pair}-{number}", f"Patient/{pair}"
    try:
        await write(store, post(source, terms(references=[target])), required=(target,))
    except TargetsMissing as error:
        assert error.references == (target,)
        return "target missing", ()
    return "referred", (source,)


async def _deletion(store: Store, pair: int, number: int) -> tuple[str, tuple[str, ...]]:
    target = f"Patient/{pair}"
    try:
        committed = await write(store, delete(target), released=(target,))
    except StillReferenced as error:
        assert set(error.sources) == {target}
        return "still referenced", error.sources[target]
    return "deleted" if committed.written[0].version else "nothing to delete", ()


async def _won(store: Store, transaction: Transaction) -> bool:
    try:
        await retry_transaction(store, transaction)
    except AssertionFailed as error:
        assert error.assertion in transaction.assertions
        return False
    return True


CLIENTS: dict[str, Client] = {each.__name__: each for each in (create, update, transfer, refer_or_delete)}


def on_store(uri: str, body: Callable[[Store], Awaitable[Any]]) -> Any:
    """What a body answers on a store of this process."""

    async def run() -> Any:
        store = await OPENERS[uri.partition(":")[0]](uri, Ticks())
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


def process(uri: str, client: str, numbers: range, together: Barrier) -> list[Any]:
    """What one process does: all its clients at once on one store, when every process is there."""

    async def run(store: Store) -> list[Any]:
        await asyncio.to_thread(together.wait, TOGETHER)
        return list(await asyncio.gather(*(CLIENTS[client](store, number) for number in numbers)))

    return on_store(uri, run)  # type: ignore[no-any-return]


def raced(uri: str, client: Client, size: Size) -> list[Any]:
    """The answers of all clients, by their number."""
    processes, clients = size
    spawning = multiprocessing.get_context("spawn")
    with spawning.Manager() as shared, ProcessPoolExecutor(processes, spawning) as pool:
        together = shared.Barrier(processes)
        parts = [range(clients * number, clients * (number + 1)) for number in range(processes)]
        under_way = [pool.submit(process, uri, client.__name__, part, together) for part in parts]
        return [answer for each in under_way for answer in each.result(timeout=300)]


@pytest.mark.parametrize("size", SIZES)
def test_identical_conditional_creates_make_one_resource(uri: str, size: Size) -> None:
    won = raced(uri, create, size)
    assert won.count(True) == 1
    assert on_store(uri, lambda store: ids(store, "Patient", EVERYTHING)) == [str(won.index(True))]


@pytest.mark.parametrize("size", SIZES)
def test_one_update_wins_per_version(uri: str, size: Size) -> None:
    on_store(uri, lambda store: write(store, put("Patient/a")))
    by_version = list(zip(*raced(uri, update, size), strict=True))
    assert [sum(won) for won in by_version] == [1, 1, 1]

    async def versions(store: Store) -> list[Any]:
        return [await store.vread("Patient", "a", number) for number in range(2, 6)]

    *written, further = on_store(uri, versions)
    assert further is None
    assert [balance(each) for each in written] == [won.index(True) for won in by_version]


@pytest.mark.parametrize("size", SIZES)
def test_transfers_are_whole_or_refused(uri: str, size: Size) -> None:
    """Each account has the balance and the number of versions that the transfers told as done explain."""
    on_store(uri, lambda store: write(store, *(put(each, text=str(OPENING)) for each in ACCOUNTS)))
    done = [each for part in raced(uri, transfer, size) for each in part]
    assert done
    paid, received = Counter(source for source, _ in done), Counter(target for _, target in done)
    current = on_store(uri, lambda store: store.read_many(ACCOUNTS))
    assert sum(map(balance, current.values())) == OPENING * len(ACCOUNTS)
    for each in ACCOUNTS:
        assert balance(current[each]) == OPENING - paid[each] + received[each], each
        assert current[each].version == 1 + paid[each] + received[each], each


@pytest.mark.parametrize("size", SIZES)
def test_no_reference_outlives_its_target(uri: str, size: Size) -> None:
    """Nothing here is made again: who was told that a target is gone, or held, was told what stays true.

    No locks are named: the store alone keeps a reference and the deletion of its target apart.
    """
    on_store(uri, lambda store: write(store, *(put(f"Patient/{pair}") for pair in PAIRS)))
    answers = [each for part in raced(uri, refer_or_delete, size) for each in part]
    patients = set(on_store(uri, lambda store: ids(store, "Patient", EVERYTHING)))
    sources = {f"Observation/{id}" for id in on_store(uri, lambda store: ids(store, "Observation", EVERYTHING))}
    assert sources == {source for _, answer, told in answers if answer == "referred" for source in told}
    for pair in PAIRS:
        told = Counter(answer for number, answer, _ in answers if number == pair)
        referring = {each for each in sources if each.startswith(f"Observation/{pair}-")}
        named = {source for number, _, found in answers if number == pair for source in found}
        assert bool(referring) == (str(pair) in patients), pair
        assert named == referring, pair
        if referring:
            assert set(told) <= {"referred", "still referenced"}, pair
        else:
            assert told["deleted"] == 1, pair
            assert set(told) <= {"deleted", "nothing to delete", "target missing"}, pair
    assert all(told for _, answer, told in answers if answer == "still referenced")
