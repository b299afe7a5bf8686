"""The floor keeps a history's horizon safe although transactions commit out of order (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from fhir_server.store.contract.case import HOUR, MILLISECOND, START, Ticks, list_labels, put, walk_history, write
from fhir_server.store.mongo import open_store, watermark
from fhir_server.store.mongo.watermark import CommitWatermark
from fhir_server.store.protocol import HistoryQuery, Store

Body = Callable[[Store, Ticks, CommitWatermark], Awaitable[None]]


@pytest.fixture
def beside(mongo_uri: str) -> Callable[[Body], None]:
    """Runs a test with a store, its clock, and the floor of another process that has the same clock."""

    async def run(body: Body) -> None:
        clock = Ticks()
        store = await open_store(mongo_uri, clock)
        client = AsyncMongoClient[dict[str, Any]](mongo_uri)
        other = CommitWatermark(client.get_default_database(), clock)
        try:
            await body(store, clock, other)
        finally:
            await other.close()
            await client.close()
            await store.close()

    return lambda body: asyncio.run(run(body))


async def horizon(store: Store) -> int:
    """The horizon that the store gives out."""
    return (await store.history(HistoryQuery())).horizon


def test_an_open_transaction_of_another_process_holds_the_horizon(beside: Callable[[Body], None]) -> None:
    async def body(store: Store, clock: Ticks, other: CommitWatermark) -> None:
        await write(store, put("Patient/a"))
        clock.forward(HOUR)
        async with other.open_transaction() as chosen:
            assert chosen == START + HOUR
            clock.forward(HOUR)
            await write(store, put("Patient/b"))
            assert await horizon(store) <= chosen
        await other.close()
        assert await horizon(store) == START + 2 * HOUR

    beside(body)


def test_a_writer_that_comes_later_takes_no_time_below_a_horizon(beside: Callable[[Body], None]) -> None:
    async def body(store: Store, clock: Ticks, other: CommitWatermark) -> None:
        clock.forward(5 * HOUR)
        await write(store, put("Patient/a"))
        given = await horizon(store)
        assert given == START + 5 * HOUR
        clock.forward(-5 * HOUR)
        async with other.open_transaction() as chosen:
            assert chosen >= given

    beside(body)


def test_the_floor_follows_the_clock_and_is_given_up(
    beside: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "HEARTBEAT", 0.05)

    async def body(store: Store, clock: Ticks, other: CommitWatermark) -> None:
        async with other.open_transaction():
            pass
        clock.forward(HOUR)
        await write(store, put("Patient/a"))
        await asyncio.sleep(0.3)
        assert await horizon(store) == START + HOUR, "the other process raised its floor to the time now"
        monkeypatch.setattr(watermark, "IDLE", 0.1)
        await asyncio.sleep(0.4)
        clock.forward(HOUR)
        await write(store, put("Patient/b"))
        assert await horizon(store) == START + 2 * HOUR, "the other process is no writer any more"
        async with other.open_transaction() as chosen:
            assert chosen == START + 2 * HOUR, "and becomes one again"

    beside(body)


def test_a_document_that_was_lost_is_made_again(
    beside: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was suspended until its document expired reads the newest version before it goes on."""
    monkeypatch.setattr(watermark, "RENEWED_WITHIN", 0.0)

    async def body(store: Store, clock: Ticks, other: CommitWatermark) -> None:
        async with other.open_transaction() as chosen:
            assert chosen == START
        clock.forward(HOUR)
        await write(store, put("Patient/a"))
        clock.forward(-HOUR + MILLISECOND)
        async with other.open_transaction() as chosen:
            assert chosen == START + HOUR

    beside(body)


def test_polling_by_the_horizon_misses_nothing(mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes write at once, with clocks half a second apart; a third polls with the last horizon as `_since`."""
    monkeypatch.setattr(watermark, "HEARTBEAT", 0.02)

    def clock(behind: int) -> Callable[[], int]:
        return lambda: time.time_ns() // 1000 - behind

    async def body() -> None:
        stores = [await open_store(mongo_uri, clock(behind)) for behind in (0, 500 * MILLISECOND, 0)]
        seen: set[tuple[str, int]] = set()
        since, done = 0, asyncio.Event()

        async def poll() -> int:
            page = await stores[2].history(HistoryQuery(since=since, count=1))
            seen.update(list_labels(await walk_history(stores[2], HistoryQuery(since=since, count=50))))
            return page.horizon

        async def polling() -> None:
            nonlocal since
            while not done.is_set():
                since = await poll()

        async def writing(number: int) -> None:
            for step in range(6):
                await write(stores[number % 2], put(f"Patient/{number}", text=str(step)))

        poller = asyncio.create_task(polling())
        await asyncio.gather(*(writing(number) for number in range(12)))
        done.set()
        await poller
        await poll()
        whole = await walk_history(stores[2], HistoryQuery(count=50))
        assert len(whole) == 12 * 6
        assert seen == set(list_labels(whole))
        assert since > 0
        for store in stores:
            await store.close()

    asyncio.run(body())
