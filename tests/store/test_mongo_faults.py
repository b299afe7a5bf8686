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

from fhir_server.store.contract.case import Ticks, list_labels, post, put, terms, walk_history, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.protocol import HistoryQuery, StoreUnavailable
from tests.store.mongo_proxy import Proxy, first, nothing, proxied

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
        found = await walk_history(store, HistoryQuery())
        expected = [("Observation/before", 1), ("Observation/o", 1), ("Patient/p", 1), ("Patient/p", 2)]
        assert sorted(list_labels(found)) == expected

    behind(body)


def test_an_absent_server_is_said_and_comes_back(behind: Callable[[Body], None]) -> None:
    async def body(store: MongoStore, proxy: Proxy) -> None:
        await store.check_ready()
        proxy.drop()
        for question in (store.read("Patient", "p"), store.check_ready(), store.history(HistoryQuery())):
            with pytest.raises(StoreUnavailable):
                await question
        writing = asyncio.create_task(write(store, put("Patient/p", text="while away")))
        await asyncio.sleep(1.5)
        assert not writing.done(), "it is tried again until its time is over"
        proxy.absent = False
        assert (await writing).written[0].version == 2
        await store.check_ready()

    behind(body)


@pytest.mark.parametrize("fault", ["of a type never seen", "of a process that has not written yet"])
def test_a_first_write_while_the_server_is_away(behind: Callable[[Body], None], fault: str) -> None:
    """What comes before a transaction, indexes and the writer's floor, waits for the server as the transaction does."""

    async def body(store: MongoStore, proxy: Proxy) -> None:
        fresh = store if "type" in fault else await open_store(proxy.uri(f"test_{uuid.uuid4().hex}"), Ticks())
        proxy.drop()
        writing = asyncio.create_task(write(fresh, put("Basic/b" if "type" in fault else "Patient/q")))
        await asyncio.sleep(1.5)
        assert not writing.done(), "it is tried again until its time is over"
        proxy.absent = False
        assert [(each.version, each.created) for each in (await writing).written] == [(1, True)]
        if fresh is not store:
            await fresh.close()

    behind(body)


@pytest.mark.long
@pytest.mark.parametrize("lost", [4, 10_000], ids=["for a moment", "for good"])
def test_a_server_that_restarts_between_a_commit_and_its_answer(lost: int) -> None:
    """What the commit did is read from the history; while that cannot be read, nobody is told "nothing was written"."""
    secantus = pytest.importorskip("secantus")

    async def body(folder: str) -> None:
        server = secantus.SecantusDBServer(port=0, storage_path=folder)
        server.start()
        async with proxied(server.uri) as proxy:
            store = await open_store(proxy.uri("fhir"), Ticks(), retry=60.0 if lost == 4 else 5.0)
            await write(store, put("Patient/p"))
            commit = first("commitTransaction")

            def away(message: bytes) -> bool:
                proxy.absent = absent = bool(proxy.absent or commit(message))
                return absent

            proxy.cut_after = away
            writing = asyncio.create_task(write(store, put("Patient/p")))
            while not proxy.absent:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.stop)
            server = secantus.SecantusDBServer(port=0, storage_path=folder)
            server.start()
            proxy.target, proxy.cut_after = ("127.0.0.1", server.port), nothing
            cuts, proxy.cut_before = proxy.cuts, first("find", "history", times=lost)
            proxy.absent = False
            if lost == 4:
                assert (await writing).written[0].version == 2
                assert proxy.cuts - cuts == 4
            else:
                with pytest.raises(StoreUnavailable, match="may have been stored or not"):
                    await writing
            proxy.cut_before = nothing
            await _back(store)
            assert list_labels(await walk_history(store, HistoryQuery())) == [("Patient/p", 2), ("Patient/p", 1)]
            await store.close()
            await asyncio.to_thread(server.stop)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(body(folder))


def test_slow_replies_lose_nothing(behind: Callable[[Body], None]) -> None:
    async def body(store: MongoStore, proxy: Proxy) -> None:
        proxy.delay = 0.05
        made = await asyncio.gather(*(write(store, put("Patient/p", text=str(number))) for number in range(5)))
        assert sorted(each.written[0].version for each in made) == [2, 3, 4, 5, 6]

    behind(body)


@pytest.mark.long
@pytest.mark.parametrize("moment", [0.01, 0.2], ids=["before the first write", "amid the writes"])
def test_a_server_that_restarts_keeps_what_was_acknowledged(moment: float) -> None:
    """Writers go on while it is away: each bundle is there whole, none is refused."""
    secantus = pytest.importorskip("secantus")

    async def body(folder: str) -> None:
        server = secantus.SecantusDBServer(port=0, storage_path=folder)
        server.start()
        async with proxied(server.uri) as proxy:
            store = await open_store(proxy.uri("fhir"), Ticks())
            acknowledged: list[int] = []

            async def bundles(start: int) -> None:
                for number in range(start, start + 6):
                    await write(store, post(f"Patient/{number}"), post(f"Observation/{number}"))
                    acknowledged.append(number)

            writing = asyncio.gather(*(bundles(start) for start in range(0, 48, 6)))
            await asyncio.sleep(moment)
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
            assert sorted(acknowledged) == sorted(patients) == list(range(48))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(body(folder))


async def _back(store: MongoStore) -> None:
    """Wait until the driver has found the server again."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await store.check_ready()


async def _ids(store: MongoStore, type: str) -> set[int]:
    return {int(reference.partition("/")[2]) for reference in await store.read_many(f"{type}/{n}" for n in range(48))}
