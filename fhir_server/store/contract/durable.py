"""Contract of a store that keeps its database: what is there after it was closed, and with two open on one database."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fhir_server.search.query import Equals, Has
from fhir_server.store.contract.case import (
    HOUR,
    Case,
    Ticks,
    delete,
    ids,
    list_labels,
    post,
    put,
    query,
    run_on_store,
    terms,
    token,
    walk_changes,
    walk_history,
    write,
)
from fhir_server.store.contract.races import MANY, attempt, outcomes
from fhir_server.store.contract.values import increment
from fhir_server.store.operations import Matches, VersionIs
from fhir_server.store.protocol import Clock, HistoryQuery, Store


class DurableContract(Case):
    """Subclass it beside `StoreContract` when the store outlives its process."""

    @abstractmethod
    async def open_again(self, clock: Clock) -> Store:
        """Another store on the database that the last `open_store` made, whether or not that one is still open."""

    @asynccontextmanager
    async def reopen(self, clock: Clock) -> AsyncIterator[Store]:
        """`open_again`, closed at the end."""
        store = await self.open_again(clock)
        try:
            yield store
        finally:
            await store.close()

    @run_on_store
    async def test_values_are_there_again_until_they_expire(self, store: Store, clock: Ticks) -> None:
        assert await store.put_value_if("stays", b"x", None)
        assert await store.put_value_if("expires", b"x", None, clock.now + HOUR)
        async with self.reopen(clock) as other:
            await asyncio.gather(*(increment(each, "count", 10) for each in (store, other)))
            assert await store.get_value("count") == await other.get_value("count") == b"20"
        await store.close()
        async with self.reopen(clock) as other:
            assert [key for key, _ in (await other.list_values("")).values] == ["count", "expires", "stays"]
            clock.forward(HOUR)
            assert [key for key, _ in (await other.list_values("")).values] == ["count", "stays"]

    @run_on_store
    async def test_everything_is_there_again(self, store: Store, clock: Ticks) -> None:
        entries = terms(mark=["x"], link=["Patient/b"], references=["Patient/b"])
        await write(store, put("Patient/a"), put("Patient/b"), put("Patient/gone"))
        await write(store, put("Patient/a", entries), delete("Patient/gone"))
        token_before = (await store.read_changes(None, limit=3)).token
        secret, history = await store.page_key(), await store.history(HistoryQuery())
        feed, current = await walk_changes(store), await store.read_many(["Patient/a", "Patient/b", "Patient/gone"])
        await store.close()
        async with self.reopen(clock) as other:
            assert await other.page_key() == secret
            assert (await other.history(HistoryQuery())).versions == history.versions
            assert await walk_changes(other) == feed
            assert await walk_changes(other, token_before) == feed[3:]
            assert await other.read_many(["Patient/a", "Patient/b", "Patient/gone"]) == current
            assert await ids(other, "Patient", Equals("mark", ("x",))) == ["a"]
            assert await ids(other, "Patient", Has("Patient", "link", Equals("mark", ("x",)))) == ["b"]

    @run_on_store
    async def test_versions_and_time_go_on(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        await write(store, put("Patient/a"))
        before = await store.history(HistoryQuery())
        await store.close()
        clock.forward(-HOUR)
        async with self.reopen(clock) as other:
            written = (await write(other, put("Patient/a"), put("Patient/b"))).written
            assert [each.version for each in written] == [3, 1]
            assert written[0].last_updated > before.versions[0].last_updated
            assert all(each.last_updated >= before.horizon for each in written)

    @run_on_store
    async def test_two_open_stores_see_each_other(self, store: Store, clock: Ticks) -> None:
        async with self.reopen(clock) as other:
            await write(store, put("Patient/a", terms(mark=["x"])))
            assert await other.read("Patient", "a") == await store.read("Patient", "a")
            await write(other, put("Patient/a", terms(mark=["y"])), put("Patient/b"))
            current = await store.read("Patient", "a")
            assert current is not None and current.version == 2
            assert await ids(store, "Patient", Equals("mark", ("x",))) == []
            assert await ids(store, "Patient", Equals("mark", ("y",))) == ["a"]
            assert list_labels(await walk_changes(store)) == list_labels(await walk_changes(other))
            assert await store.page_key() == await other.page_key()

    @run_on_store
    async def test_one_of_many_wins_over_two_stores(self, store: Store, clock: Ticks) -> None:
        identifier = token("1", "urn:a")
        nothing = Matches(query("Patient", Equals("identifier", (identifier,))), ())
        async with self.reopen(clock) as other:
            stores = (store, other)
            made = [post(f"Patient/{number}", terms(identifier=[identifier])) for number in range(MANY)]
            tries = (attempt(stores[n % 2], each, nothing, "Patient?identifier=1") for n, each in enumerate(made))
            committed, failed = await outcomes(tries)
            assert (len(committed), len(failed)) == (1, MANY - 1)
            id = committed[0].written[0].id
            first = VersionIs("Patient", id, 1)
            again = (attempt(stores[n % 2], put(f"Patient/{id}"), first, f"Patient/{id}") for n in range(MANY))
            committed, failed = await outcomes(again)
            assert (len(committed), len(failed)) == (1, MANY - 1)

    @run_on_store
    async def test_updates_of_two_stores_are_all_kept(self, store: Store, clock: Ticks) -> None:
        async with self.reopen(clock) as other:
            stores = (store, other)
            updates = (write(stores[number % 2], put("Patient/a", text=str(number))) for number in range(MANY))
            made = await asyncio.gather(*updates)
            assert sorted(each.written[0].version for each in made) == list(range(1, MANY + 1))
            history = await walk_history(other, HistoryQuery(("Patient",), "a"))
            assert [each.version for each in history] == list(range(MANY, 0, -1))
            assert [each.version for each in await walk_changes(store, limit=7)] == list(range(1, MANY + 1))
