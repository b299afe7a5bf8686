"""Faults between the store and the database: nothing acknowledged is lost, nothing is written twice or by half.

The rules: https://www.mongodb.com/docs/manual/core/transactions-in-applications/#transaction-error-handling
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from mongo_proxy import Proxy, first, proxied

from fhir_server.store.contract.case import Ticks, history_walk, labels, post, put, terms, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.protocol import HistoryQuery, StoreError, StoreUnavailable

Body = Callable[[MongoStore, Proxy], Awaitable[None]]


@pytest.fixture
def behind(mongo_url: str) -> Callable[[Body], None]:
    """Runs a test on a store whose server is behind a proxy; one transaction was written before."""

    async def run(body: Body) -> None:
        async with proxied(mongo_url) as proxy:
            store = await open_store(proxy.uri(f"test_{uuid.uuid4().hex}"), Ticks())
            try:
                await write(store, put("Patient/p"), put("Observation/before"))
                async with asyncio.timeout(60):
                    await body(store, proxy)
            finally:
                proxy.absent = False
                await store.close()

    return lambda body: asyncio.run(run(body))


CUTS = {
    "the first write never arrives": ("cut_before", first("insert", "history")),
    "the answer to a write is lost": ("cut_after", first("insert", "history")),
    "the commit never arrives": ("cut_before", first("commitTransaction")),
    "the answer to the commit is lost": ("cut_after", first("commitTransaction")),
    "the answers to four commits are lost": ("cut_after", first("commitTransaction", times=4)),
    "the read before the writes is lost": ("cut_after", first("find", "Patient", "txnNumber")),
}


@pytest.mark.parametrize("fault", CUTS)
def test_a_cut_connection(behind: Callable[[Body], None], fault: str) -> None:
    """The transaction is tried again until it is written, exactly once."""
    when, seen = CUTS[fault]

    async def body(store: MongoStore, proxy: Proxy) -> None:
        setattr(proxy, when, seen)
        refers = terms(references=["Patient/p"])
        committed = await write(store, put("Patient/p"), post("Observation/o", refers), required=("Patient/p",))
        assert proxy.cuts == (4 if "four" in fault else 1)
        assert [(each.version, each.created) for each in committed.written] == [(2, False), (1, True)]
        found = await history_walk(store, HistoryQuery())
        expected = [("Observation/before", 1), ("Observation/o", 1), ("Patient/p", 1), ("Patient/p", 2)]
        assert sorted(labels(found)) == expected

    behind(body)


def test_an_absent_server_is_said_and_comes_back(behind: Callable[[Body], None]) -> None:
    async def body(store: MongoStore, proxy: Proxy) -> None:
        await store.ready()
        proxy.drop()
        for question in (store.read("Patient", "p"), store.ready(), store.history(HistoryQuery())):
            with pytest.raises(StoreUnavailable):
                await question
        writing = asyncio.create_task(write(store, put("Patient/p", text="while away")))
        await asyncio.sleep(1.5)
        assert not writing.done(), "it is tried again until its time is over"
        proxy.absent = False
        assert (await writing).written[0].version == 2
        await store.ready()

    behind(body)


def test_slow_replies_lose_nothing(behind: Callable[[Body], None]) -> None:
    async def body(store: MongoStore, proxy: Proxy) -> None:
        proxy.delay = 0.05
        made = await asyncio.gather(*(write(store, put("Patient/p", text=str(number))) for number in range(5)))
        assert sorted(each.written[0].version for each in made) == [2, 3, 4, 5, 6]

    behind(body)


def test_a_server_that_restarts_keeps_what_was_acknowledged() -> None:
    """Writers go on while it is away: each bundle is there whole or not at all, and all acknowledged ones are."""
    secantus = pytest.importorskip("secantus")

    async def body(folder: str) -> None:
        server = secantus.SecantusDBServer(port=0, storage_path=folder)
        server.start()
        async with proxied(server.uri) as proxy:
            store = await open_store(proxy.uri("fhir"), Ticks())
            acknowledged: list[int] = []

            async def bundles(start: int) -> None:
                for number in range(start, start + 6):
                    with suppress(StoreError):
                        await write(store, post(f"Patient/{number}"), post(f"Observation/{number}"))
                        acknowledged.append(number)

            writing = asyncio.gather(*(bundles(start) for start in range(0, 48, 6)))
            await asyncio.sleep(0.2)
            proxy.drop()
            await asyncio.to_thread(server.stop)
            server = secantus.SecantusDBServer(port=0, storage_path=folder)
            server.start()
            proxy.target = ("127.0.0.1", server.port)
            proxy.absent = False
            await writing
            try:
                patients, observations = await _ids(store, "Patient"), await _ids(store, "Observation")
            finally:
                await store.close()
                await asyncio.to_thread(server.stop)
            assert patients == observations, "no bundle by half"
            assert set(acknowledged) <= patients and len(acknowledged) == 48

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(body(folder))


async def _ids(store: MongoStore, type: str) -> set[int]:
    return {int(reference.partition("/")[2]) for reference in await store.read_many(f"{type}/{n}" for n in range(48))}
