"""The in-memory store keeps the store contract (fhir_server/store/protocol.py)."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.store import memory
from fhir_server.store.contract import StoreContract
from fhir_server.store.contract.case import START, Ticks, put, run_on_store, walk_changes, write
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Clock, Expired, HistoryQuery, Store, StoreUnavailable


class TestMemory(StoreContract):
    async def open_store(self, clock: Clock) -> Store:
        return await memory.open_store("memory://", clock)

    @run_on_store
    async def test_two_writes_to_one_resource_are_refused(self, store: Store, clock: Ticks) -> None:
        with pytest.raises(ValueError, match="at most one write per resource"):
            await store.transact(Transaction((put("Patient/a"), put("Patient/b"), put("Patient/a"))))
        assert await store.read("Patient", "a") is None

    @run_on_store
    async def test_no_commit_is_below_the_newest(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        clock.forward(-1_000_000)
        (written,) = (await write(store, put("Patient/b"))).written
        assert written.last_updated == START
        assert (await store.history(HistoryQuery())).horizon == START

    @run_on_store
    async def test_unknown_tokens_are_refused(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        for token in ("2", "-1", "x", ""):
            with pytest.raises(Expired):
                await store.read_changes(token)
        assert await walk_changes(store, "1") == []

    @run_on_store
    async def test_a_failing_extract_changes_nothing_of_that_resource(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        with pytest.raises(ZeroDivisionError):
            await store.reindex("Patient", lambda type, raw: 1 // 0, registry=0)  # type: ignore[arg-type,return-value]
        assert await store.read("Patient", "a") is not None


def test_a_closed_store_is_not_ready() -> None:
    async def body() -> None:
        store = await memory.open_store("memory://", lambda: START)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.check_ready()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.transact(Transaction((put("Patient/a"),)))

    asyncio.run(body())


def test_another_uri_is_refused() -> None:
    with pytest.raises(ValueError, match="`memory:///x` is not a URI of the in-memory store"):
        asyncio.run(memory.open_store("memory:///x", lambda: START))
