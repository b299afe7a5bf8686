"""The differential: on random resources and queries a store does what the in-memory store does (../memory.py)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings

from fhir_server.store import memory
from fhir_server.store.contract.case import HOUR, Case, Ticks, walk, walk_changes, walk_history
from fhir_server.store.contract.strategies import REFERENCES, Scenario, scenarios
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed, Store, StoreError


class Differential(Case):
    """Subclass it beside `StoreContract`; `examples` is the size of the quick run, `many` that of the long one."""

    examples: ClassVar[int] = 60
    many: ClassVar[int] = 300

    def test_does_what_the_oracle_does(self) -> None:
        """The same examples in every run."""
        self._explore(self.examples)

    @pytest.mark.long
    def test_does_what_the_oracle_does_at_length(self) -> None:
        """Many, but the same in every run; for other ones set `derandomize` below to False."""
        self._explore(self.many)

    def _explore(self, examples: int) -> None:
        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(scenarios)
        def explore(scenario: Scenario) -> None:
            asyncio.run(self._compare(scenario))

        explore()

    async def _compare(self, scenario: Scenario) -> None:
        clock = Ticks()
        store, oracle = await self.open_store(clock), await memory.open_store("memory://", clock)
        try:
            for transaction in scenario.transactions:
                assert await _outcome(store, transaction) == await _outcome(oracle, transaction)
                clock.forward(HOUR)
            await _compare_answers(store, oracle, scenario)
        finally:
            await store.close()


async def _outcome(store: Store, transaction: Transaction) -> Committed | str:
    """What was committed, or that it was refused: which of several broken promises is named is the store's choice."""
    try:
        return await store.transact(transaction)
    except StoreError:
        return "refused"


async def _compare_answers(store: Store, oracle: Store, scenario: Scenario) -> None:
    assert await store.read_many(REFERENCES) == await oracle.read_many(REFERENCES)
    assert await walk_changes(store) == await walk_changes(oracle)
    for query in scenario.queries:
        assert await store.search(query) == await oracle.search(query)
        assert await walk(store, query) == await walk(oracle, query)
        assert await store.count(query) == await oracle.count(query)
        nothing = await store.search(replace(query, count=0))
        assert (nothing.matches, nothing.next) == ((), None)
        for scope in query.scopes:
            given = [reference for reference in REFERENCES if reference.startswith(f"{scope.type}/")]
            assert await store.find_matching(given, scope.where) == await oracle.find_matching(given, scope.where)
    for asked in scenario.histories:
        assert await store.history(asked) == await oracle.history(asked)
        assert await walk_history(store, asked) == await walk_history(oracle, asked)
