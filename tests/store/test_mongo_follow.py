"""What is asked before the search it is part of: hierarchies, distances and their budget (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout, OperationFailure

from fhir_server.search.query import Chain, Lineage, Near, Not
from fhir_server.store.contract.case import Ticks, delete, ids, put, terms, write
from fhir_server.store.mongo import follow, open_store
from fhir_server.store.mongo.compile import compile_clause
from fhir_server.store.mongo.errors import translate_error
from fhir_server.store.protocol import BudgetExceeded, Store

BELOW_A, ABOVE_D = Lineage("partof", ("a",), "below"), Lineage("partof", ("d",), "above")

With = Callable[[Callable[[Store], Awaitable[Any]]], Any]


@pytest.fixture
def on_locations(mongo_uri: str) -> With:
    """Runs on a store of four Locations, each part of the one before, and one that stands alone."""

    async def run(ask: Callable[[Store], Awaitable[Any]]) -> Any:
        store = await open_store(mongo_uri, Ticks())
        try:
            below = zip("bcd", "abc", strict=True)
            parts = [put(f"Location/{id}", terms(partof=[f"Location/{above}"])) for id, above in below]
            inside = put("Encounter/e", terms(location=["Location/d"]))
            await write(store, put("Location/a"), *parts, put("Location/alone"), inside)
            return await ask(store)
        finally:
            await store.close()

    return lambda ask: asyncio.run(run(ask))


def test_all_levels_are_found(on_locations: With) -> None:
    assert on_locations(lambda store: ids(store, "Location", BELOW_A)) == ["a", "b", "c", "d"]
    assert on_locations(lambda store: ids(store, "Location", ABOVE_D)) == ["a", "b", "c", "d"]
    assert on_locations(lambda store: ids(store, "Location", Not(BELOW_A))) == ["alone"]
    within = Chain("location", "Location", BELOW_A)
    assert on_locations(lambda store: ids(store, "Encounter", within)) == ["e"]


def test_a_deleted_level_ends_the_way(on_locations: With) -> None:
    """What is below an absent resource is found; but nothing leads over it to what was above it."""

    async def ask(store: Store) -> list[list[str]]:
        await write(store, delete("Location/b"))
        below = (BELOW_A, Lineage("partof", ("b",), "below"), ABOVE_D)
        return [await ids(store, "Location", each) for each in below]

    assert on_locations(ask) == [["a"], ["c", "d"], ["c", "d"]]


@pytest.mark.parametrize("clause", [BELOW_A, ABOVE_D], ids=["below", "above"])
def test_a_hierarchy_beyond_the_budget_is_too_costly(
    on_locations: With, monkeypatch: pytest.MonkeyPatch, clause: Lineage
) -> None:
    monkeypatch.setattr(follow, "MOST", 3)
    with pytest.raises(BudgetExceeded, match="hierarchy"):
        on_locations(lambda store: ids(store, "Location", clause))


def test_what_is_not_followed_is_not_compiled() -> None:
    """A store that forgot to follow it would answer wrongly."""
    for clause in (BELOW_A, Near("near", 0.0, 0.0, 1.0)):
        with pytest.raises(KeyError):
            compile_clause(clause)


@pytest.mark.parametrize("error", [ExecutionTimeout("time", 50), OperationFailure("sort", 292)])
def test_a_search_that_the_database_gives_up_is_too_costly(error: OperationFailure) -> None:
    """MaxTimeMSExpired; QueryExceededMemoryLimitNoDiskUseAllowed."""
    assert isinstance(translate_error(error), BudgetExceeded)
