"""Contract: reindex, purge, secret, readiness, closing."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import replace

import pytest

from fhir_server.search.entries import NO_ENTRIES, Entries
from fhir_server.search.query import EVERYTHING, Chain, Equals, Has, Present
from fhir_server.store.contract.case import (
    START,
    Case,
    Ticks,
    delete,
    ids,
    purge,
    put,
    query,
    reindex,
    run_on_store,
    terms,
    walk_changes,
    walk_history,
    write,
)
from fhir_server.store.operations import Transaction, VersionIs, Write
from fhir_server.store.protocol import (
    REINDEXED_AT_ONCE,
    SEARCH_PARAMETER,
    AssertionFailed,
    HistoryQuery,
    RegistryChanged,
    StillReferenced,
    Store,
    TargetsMissing,
    WriteConflict,
)

_TEXT = re.compile(rb'"text":"([^"]*)"')


def text_entries(type: str, raw: bytes) -> Entries:
    """An `Extract`: the resource's text is its term of `text`."""
    found = _TEXT.search(raw)
    assert found is not None
    return terms(text=[found[1].decode()])


def put_with_text(reference: str, text: str) -> Write:
    """A write whose entries are what `text_entries` extracts."""
    return put(reference, terms(text=[text]), text)


class UpkeepContract(Case):
    """What an operator does."""

    @run_on_store
    async def test_reindex_replaces_the_entries(self, store: Store, clock: Ticks) -> None:
        old = terms(old=["x"], references=["Patient/b"])
        await write(store, *(put(f"Patient/{id}", old, id) for id in "abc"), put("Observation/o", old, "o"))
        await write(store, delete("Patient/c"))
        before = await walk_history(store, HistoryQuery())
        assert await reindex(store, ("Patient", "Encounter"), text_entries) == 2
        assert await ids(store, "Patient", Present("old")) == []
        assert await ids(store, "Patient", Present("text")) == ["a", "b"]
        assert await ids(store, "Patient", Equals("text", ("b", "c"))) == ["b"]
        assert await ids(store, "Observation", Present("old")) == ["o"], "other types are left alone"
        assert await walk_history(store, HistoryQuery()) == before, "no version is made"
        assert await store.read("Patient", "c") == await store.vread("Patient", "c", 2)

    @run_on_store
    async def test_reindex_renews_references(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Observation/o", NO_ENTRIES, "x"))
        referring = terms(subject=["Patient/p"], references=["Patient/p"])
        await reindex(store, ("Observation",), lambda type, raw: referring)
        assert await ids(store, "Observation", Chain("subject", "Patient", EVERYTHING)) == ["o"]
        assert await ids(store, "Patient", Has("Observation", "subject", EVERYTHING)) == ["p"]
        with pytest.raises(StillReferenced):
            await store.transact(Transaction((delete("Patient/p"),), released=("Patient/p",)))
        await reindex(store, ("Observation",), lambda type, raw: NO_ENTRIES)
        assert await ids(store, "Observation", Present("subject")) == []
        await write(store, delete("Patient/p"), released=("Patient/p",))

    @run_on_store
    async def test_reindex_never_overwrites_a_newer_version(self, store: Store, clock: Ticks) -> None:
        names = [f"{number:02}" for number in range(40)]
        await write(store, *(put_with_text(f"Patient/{name}", "v0") for name in names))

        async def rewrite(turn: int) -> None:
            for name in names:
                change = delete(f"Patient/{name}") if turn == 3 and name < "10" else None
                await write(store, change or put_with_text(f"Patient/{name}", f"v{turn}"))
                await asyncio.sleep(0)

        for turn in (1, 2, 3):
            await asyncio.gather(
                rewrite(turn),
                *(reindex(store, ("Patient",), text_entries) for _ in range(3)),
            )
            expected = [name for name in names if turn < 3 or name >= "10"]
            assert await ids(store, "Patient", Equals("text", (f"v{turn}",))) == expected
            assert await ids(store, "Patient", Present("text")) == expected
            assert await ids(store, "Patient", Equals("text", tuple(f"v{old}" for old in range(turn)))) == []

    @run_on_store
    async def test_reindex_goes_batch_by_batch(self, store: Store, clock: Ticks) -> None:
        names = [f"{number:04}" for number in range(2 * REINDEXED_AT_ONCE + 1)]
        await write(store, *(put_with_text(f"Patient/{name}", "old") for name in names))
        counts, after = [], None
        for _ in range(3):
            batch = await store.reindex("Patient", lambda type, raw: terms(text=["new"]), 0, after)
            counts.append(batch.count)
            after = batch.next
            assert len(await ids(store, "Patient", Equals("text", ("new",)))) == sum(counts)
        assert counts == [REINDEXED_AT_ONCE, REINDEXED_AT_ONCE, 1]
        assert after is None

    @run_on_store
    async def test_the_registry_rises_with_search_parameters(self, store: Store, clock: Ticks) -> None:
        assert await store.registry_version() == 0
        await write(store, put("Patient/a"), delete(f"{SEARCH_PARAMETER}/never"))
        assert await store.registry_version() == 0
        await write(store, put(f"{SEARCH_PARAMETER}/x"), put("Patient/b"), registry=0)
        assert await store.registry_version() == 1
        with pytest.raises(RegistryChanged):
            await write(store, put("Patient/c"), registry=0)
        assert await store.read("Patient", "c") is None
        with pytest.raises(RegistryChanged):
            await store.reindex("Patient", text_entries, 0)
        await write(store, delete(f"{SEARCH_PARAMETER}/x"), registry=1)
        assert await store.registry_version() == 2
        with pytest.raises(TargetsMissing):
            await write(store, put(f"{SEARCH_PARAMETER}/y"), required=("Patient/none",))
        assert await store.registry_version() == 2, "what is not written does not count"
        await purge(store, f"{SEARCH_PARAMETER}/x")
        assert await store.registry_version() == 3
        await write(store, put("Patient/c"))
        await write(store, put("Patient/d"), registry=3)

    @run_on_store
    async def test_writes_beside_a_change_of_the_registry(self, store: Store, clock: Ticks) -> None:
        async def attempt(number: int) -> bool:
            try:
                await write(store, put(f"Patient/{number}"), registry=0)
            except RegistryChanged:
                return False
            return True

        change = asyncio.create_task(write(store, put(f"{SEARCH_PARAMETER}/x")))
        done = await asyncio.gather(*(attempt(number) for number in range(30)))
        await change
        await store.wait_for_open_transactions()
        assert await attempt(99) is False
        assert await ids(store, "Patient", EVERYTHING) == sorted(str(n) for n, written in enumerate(done) if written)

    @run_on_store
    async def test_settled_waits_for_what_has_begun(self, store: Store, clock: Ticks) -> None:
        begun = [asyncio.create_task(write(store, put(f"Patient/{number}"))) for number in range(10)]
        await asyncio.sleep(0)
        clock.forward(10_000_000)
        await store.wait_for_open_transactions()
        await asyncio.gather(*begun)

    @run_on_store
    async def test_purge_forgets_everything(self, store: Store, clock: Ticks) -> None:
        entries = terms(mark=["x"], link=["Patient/b"], references=["Patient/b"])
        await write(store, put("Patient/a", entries), put("Patient/b", entries), put("Observation/a", entries))
        token = (await store.read_changes(None)).token
        await write(store, put("Patient/a", entries), put("Patient/b", entries))
        await purge(store, "Patient/a")
        assert await store.read("Patient", "a") is None
        assert await store.vread("Patient", "a", 1) is None
        assert await store.read_many(["Patient/a"]) == {}
        assert await ids(store, "Patient", EVERYTHING) == await ids(store, "Patient", Present("mark")) == ["b"]
        assert await ids(store, "Patient", Has("Patient", "link", EVERYTHING)) == ["b"]
        assert await store.count(query("Patient")) == 1
        assert all(version.reference != "Patient/a" for version in await walk_history(store, HistoryQuery()))
        assert (await store.history(HistoryQuery(("Patient",), "a"))).versions == ()
        assert [version.reference for version in await walk_changes(store, token)] == ["Patient/b"]
        assert len(await walk_changes(store)) == 3
        assert await ids(store, "Observation", Present("mark")) == ["a"]
        with pytest.raises(TargetsMissing):
            await store.transact(Transaction((put("Patient/c"),), required=("Patient/a",)))

    @run_on_store
    async def test_a_purged_source_does_not_refer(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Observation/o", terms(references=["Patient/p"])))
        await purge(store, "Observation/o")
        await write(store, delete("Patient/p"), released=("Patient/p",))

    @run_on_store
    async def test_a_purged_id_begins_again(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a", terms(mark=["x"])))
        await write(store, put("Patient/a", terms(mark=["x"])))
        await purge(store, "Patient/a")
        (written,) = (await write(store, put("Patient/a", terms(mark=["y"])))).written
        assert (written.version, written.created) == (1, True)
        assert await ids(store, "Patient", Equals("mark", ("x", "y"))) == ["a"]
        assert await ids(store, "Patient", Equals("mark", ("x",))) == []
        assert [version.version for version in (await store.history(HistoryQuery())).versions] == [1]

    @run_on_store
    async def test_purge_of_what_is_absent_or_deleted(self, store: Store, clock: Ticks) -> None:
        await purge(store, "Patient/never")
        await write(store, put("Patient/gone"), put("Observation/gone"))
        await write(store, delete("Patient/gone"))
        await purge(store, "Patient/gone")
        await purge(store, "Patient/gone")
        assert await store.read("Patient", "gone") is None
        assert await store.read("Observation", "gone") is not None

    @run_on_store
    async def test_what_is_indexed_otherwise_than_by_its_text_is_found(self, store: Store, clock: Ticks) -> None:
        def number_text(type: str, raw: bytes) -> Entries:
            (text,) = _TEXT.findall(raw)
            return terms(mark=[text.decode()], references=[f"Group/{text.decode()}"])

        wrong = "The index entries of `Patient/{}` are not those of its text."
        count = REINDEXED_AT_ONCE + 50
        writes = [put(f"Patient/{n:03}", terms(mark=[str(n)], references=[f"Group/{n}"]), str(n)) for n in range(count)]
        writes[7] = put("Patient/007", terms(mark=["8"], references=["Group/7"]), "7")
        writes[240] = put("Patient/240", terms(mark=["240"]), "240")
        await store.transact(Transaction((*writes, put("Observation/o", NO_ENTRIES, "1"))))
        await write(store, put("Patient/003", terms(mark=["x"], references=["Group/x"]), "x"), delete("Patient/004"))
        seen, faults, after = 0, list[str](), None
        while True:
            batch = await store.verify("Patient", number_text, after)
            seen, after = seen + batch.count, batch.next
            faults += batch.faults
            if after is None:
                break
        assert (seen, sorted(faults)) == (count - 1, [wrong.format("007"), wrong.format("240")])
        assert await store.verify_database() == ()
        await reindex(store, ["Patient"], number_text)
        assert (await store.verify("Patient", number_text)).faults == ()

    @run_on_store
    async def test_a_purge_is_one_with_its_assertions_and_writes(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"), put("Observation/o", terms(references=["Patient/a"])))
        doomed = replace(Transaction((delete("Patient/a"),)), purged=("Patient/a",))
        with pytest.raises(StillReferenced):
            await store.transact(replace(doomed, released=("Patient/a",)))
        with pytest.raises(AssertionFailed):
            await store.transact(replace(doomed, assertions=(VersionIs("Patient", "a", 2),)))
        found = await store.read("Patient", "a")
        assert found is not None and found.version == 1
        both = replace(doomed, writes=(*doomed.writes, put("Patient/b")), assertions=(VersionIs("Patient", "a", 1),))
        await store.transact(both)
        assert await store.read("Patient", "a") is None
        assert await ids(store, "Patient", EVERYTHING) == ["b"]
        assert [each.reference for each in await walk_changes(store)] == ["Observation/o", "Patient/b"]

    @run_on_store
    async def test_a_purge_beside_writes_of_the_same_resource(self, store: Store, clock: Ticks) -> None:
        """Each write is before the purge, and gone with it, or after it, and there as a first version."""

        async def attempt(number: int) -> None:
            with suppress(WriteConflict):
                await write(store, put("Patient/a", terms(mark=[str(number)])))

        for _ in range(10):
            await attempt(0)
            await asyncio.gather(attempt(1), purge(store, "Patient/a"), attempt(2))
            found = await store.read("Patient", "a")
            history = await walk_history(store, HistoryQuery(("Patient",), "a"))
            assert [each.version for each in history] == list(range(found.version if found else 0, 0, -1))
            assert await ids(store, "Patient", Present("mark")) == (["a"] if found else [])

    @run_on_store
    async def test_purge_does_not_lower_the_horizon(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        horizon = (await store.history(HistoryQuery())).horizon
        await purge(store, "Patient/a")
        clock.forward(-(START // 2))
        (written,) = (await write(store, put("Patient/a"))).written
        assert written.last_updated >= horizon

    @run_on_store
    async def test_the_secret_is_stable_and_each_database_has_its_own(self, store: Store, clock: Ticks) -> None:
        secret = await store.page_key()
        assert len(secret) == 32
        await write(store, put("Patient/a"))
        assert await store.page_key() == secret
        other = await self.open_store(clock)
        try:
            assert await other.page_key() != secret
            assert await other.read("Patient", "a") is None
        finally:
            await other.close()

    @run_on_store
    async def test_an_open_store_is_ready(self, store: Store, clock: Ticks) -> None:
        await store.check_ready()

    @run_on_store
    async def test_close_finishes_what_was_asked(self, store: Store, clock: Ticks) -> None:
        other = await self.open_store(clock)
        asked = [asyncio.create_task(write(other, put(f"Patient/{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        await other.close()
        done = await asyncio.wait_for(asyncio.gather(*asked), timeout=30)
        assert [each.written[0].version for each in done] == [1] * 20

    @run_on_store
    async def test_closing_twice_is_harmless(self, store: Store, clock: Ticks) -> None:
        await store.close()
        await store.close()
