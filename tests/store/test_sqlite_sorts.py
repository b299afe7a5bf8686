"""Sorts by terms that many resources share: the same order as the store in memory, without sorting what is shared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from fhir_server.search.entries import Entries
from fhir_server.search.query import And, Clause, Equals, Query, Scope, Sort
from fhir_server.store import memory
from fhir_server.store.contract.case import Ticks, put, token, walk
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.protocol import Budget, Store
from fhir_server.store.sqlite import open_store, search

STATUS = ("final", "amended", "registered", "entered-in-error")
SORTS: tuple[tuple[Sort, ...], ...] = tuple(
    keys
    for down in (False, True)
    for keys in (
        (Sort("status", "term", down),),
        (Sort("status", "term", down), Sort("date", "date", not down)),
        (Sort("status", "term", down), Sort("kind", "term", down)),
        (Sort("kind", "term", down), Sort("status", "term")),
        (Sort("status", "term", down), Sort("_lastUpdated", "lastUpdated", True), Sort("_id", "id", True)),
        (Sort("rare", "term", down), Sort("status", "term", down)),
        (Sort("rare", "term", down), Sort("date", "date", not down)),
        (Sort("date", "date", down), Sort("rare", "term"), Sort("kind", "term", down)),
    )
)
FILTERS: tuple[Clause, ...] = (
    And(),
    Equals("kind", (token("k1"),)),
    Equals("own", (token("7"),)),
    Equals("status", (token("final"), token("amended"))),
)


def _write_resource(type: str, number: int, chance: random.Random) -> Write:
    terms = {
        "kind": tuple(sorted({token(f"k{chance.randrange(4)}") for _ in range(chance.randrange(3))})),
        "own": (token(str(number % 60)),),
        "rare": (token("r"),) if number % 50 == 0 else (),
        "status": (token(chance.choice(STATUS)),) if chance.random() < 0.9 else (),
    }
    day = chance.randrange(20) * 10
    dates = {"date": ((day, day + 9),)} if chance.random() < 0.9 else {}
    return put(f"{type}/{chance.getrandbits(40):010x}", Entries({k: v for k, v in terms.items() if v}, dates))


async def _fill(*stores: Store) -> None:
    chance = random.Random(3)
    for type in ("Basic", "Flag"):
        writes = tuple(_write_resource(type, number, chance) for number in range(240))
        for store in stores:
            await store.transact(Transaction(writes))


@pytest.mark.parametrize("stretch", [1, 5, 256])
def test_pages_are_those_of_the_store_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr(search, "_STRETCH", stretch)
    monkeypatch.setattr(search, "_LONGEST_STRETCH", 2 * stretch)

    async def test() -> None:
        store = await open_store(f"sqlite:///{tmp_path}/a.db", Ticks())
        oracle = await memory.open_store("memory://", Ticks())
        await _fill(store, oracle)
        for sort in SORTS:
            for where in FILTERS:
                for types in (("Basic",), ("Basic", "Flag")):
                    query = Query(tuple(Scope(type, where) for type in types), sort, 37)
                    assert await _list_order(store, query) == await _list_order(oracle, query), query
        await store.close()

    asyncio.run(test())


async def _list_order(store: Store, query: Query) -> Sequence[str]:
    return [found.reference for found in await walk(store, query)]


LARGE = 20_000
"""Resources of one type."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a database with one status for all, and a day each."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('sorts')}/large.db"

    async def fill() -> None:
        store = await open_store(uri, Ticks())
        writes = [
            put(f"Basic/{n * 7919 % LARGE:05}", Entries({"status": (token("final"),)}, {"date": ((n, n),)}))
            for n in range(LARGE)
        ]
        await store.transact(Transaction(tuple(writes)))
        await store.close()

    asyncio.run(fill())
    return uri


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("keys", [("status",), ("status", "date"), ("date",), ("absent", "date")])
def test_a_page_of_a_large_type_needs_few_rows(large: str, keys: tuple[str, ...], descending: bool) -> None:
    """One status for all, or none: sorting those that share it would look at each of the resources."""
    sort = tuple(Sort(key, "date" if key == "date" else "term", descending) for key in keys)

    async def test() -> None:
        store = await open_store(large, Ticks(), Budget(rows=LARGE // 5))
        first = await store.search(Query((Scope("Basic"),), sort, 20))
        second = await store.search(Query((Scope("Basic"),), sort, 20, first.next))
        found = [match.id for match in (*first.matches, *second.matches)]
        by_date = [f"{n * 7919 % LARGE:05}" for n in range(LARGE)]
        whole = by_date[::-1] if descending else by_date
        assert found == (whole if "date" in keys else sorted(by_date))[:40]
        await store.close()

    asyncio.run(test())
