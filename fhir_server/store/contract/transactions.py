"""Contract: what `operations.Transaction` promises: all or nothing, assertions, reads of its own writes.

Spec: https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.search.query import EVERYTHING, Equals, Query, Sort
from fhir_server.store.contract.case import (
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
    walk,
    walk_changes,
    walk_history,
    write,
)
from fhir_server.store.operations import Assertion, Matches, Transaction, VersionIs, Write
from fhir_server.store.protocol import (
    AssertionFailed,
    HistoryQuery,
    ReadFailed,
    StillReferenced,
    Store,
    StoreError,
    TargetsMissing,
)

TYPES = ("Encounter", "Observation", "Patient")


async def everything(store: Store) -> dict[str, Any]:
    """All that can be seen of a small store, index entries included."""
    marks = {type: await ids(store, type, Equals("mark", ("old", "new"))) for type in TYPES}
    return {
        "current": {type: await walk(store, query(type)) for type in TYPES},
        "new marks": {type: await ids(store, type, Equals("mark", ("new",))) for type in TYPES},
        "marks": marks,
        "history": await walk_history(store, HistoryQuery()),
        "changes": await walk_changes(store),
    }


FAILURES: dict[str, tuple[dict[str, Any], type[StoreError]]] = {
    "version": ({"assertions": (VersionIs("Patient", "a", 7),)}, AssertionFailed),
    "match": ({"assertions": (Matches(query("Patient", Equals("mark", ("old",))), ()),)}, AssertionFailed),
    "required absent": ({"required": ("Patient/never",)}, TargetsMissing),
    "required deleted": ({"required": ("Patient/gone",)}, TargetsMissing),
    "released": ({"released": ("Patient/c",)}, StillReferenced),
    "read absent": ({"reads": ("Patient/never",)}, ReadFailed),
    "read deleted": ({"reads": ("Patient/c",)}, ReadFailed),
}


class TransactionContract(Case):
    """Whole transactions: atomicity, assertions, reads and queries."""

    @run_on_store
    async def test_a_failure_leaves_nothing(self, store: Store, clock: Ticks) -> None:
        old = terms(mark=["old"])
        to_c = terms(mark=["old"], references=["Patient/c"])
        await write(
            store, put("Patient/a", old), put("Patient/c", old), put("Patient/gone"), put("Observation/o", to_c)
        )
        await write(store, delete("Patient/gone"))
        new = terms(mark=["new"])
        writes = (put("Patient/a", new), post("Encounter/e", new), put("Patient/gone", new), delete("Patient/c"))
        before = await everything(store)
        for name, (rest, error) in FAILURES.items():
            failing = (*writes[:2], writes[3]) if name == "required deleted" else writes
            with pytest.raises(error):
                await store.transact(Transaction(failing, **rest))
            assert await everything(store) == before, name
            assert await store.vread("Patient", "a", 2) is None, name
            assert await store.read("Encounter", "e") is None, name
        written = (await write(store, *writes)).written
        assert [each.version for each in written] == [2, 1, 3, 2], "no version was used up"

    @run_on_store
    async def test_version_assertions(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        await write(store, put("Patient/a"), put("Patient/gone"))
        await write(store, delete("Patient/gone"))
        actual = {"a": 2, "gone": 2, "never": 0}
        for id, version in actual.items():
            for asserted in range(4):
                assertion = VersionIs("Patient", id, asserted)
                if asserted == version:
                    await store.transact(Transaction(assertions=(assertion,)))
                else:
                    await _fails(store, assertion)

    @run_on_store
    async def test_assertions_hold_before_the_first_write(self, store: Store, clock: Ticks) -> None:
        marked = terms(mark=["x"])
        nothing = Matches(query("Patient", Equals("mark", ("x",))), ())
        await write(store, put("Patient/a", marked), assertions=(VersionIs("Patient", "a", 0), nothing))
        one = Matches(nothing.query, ("a",))
        await _fails(store, Matches(nothing.query, ("a",), versions=(2,)))
        first = Matches(nothing.query, ("a",), versions=(1,))
        same = (VersionIs("Patient", "a", 1), one, first)
        await write(store, put("Patient/a"), put("Patient/b", marked), assertions=same)
        assert await ids(store, "Patient", Equals("mark", ("x",))) == ["b"]

    @run_on_store
    async def test_match_assertions(self, store: Store, clock: Ticks) -> None:
        alone, shared = terms(mark=["one"]), terms(mark=["three"])
        await write(store, put("Patient/b", alone), *(put(f"Patient/{id}", shared) for id in ("e", "c", "d")))
        await write(store, put("Observation/a", alone), put("Patient/a", alone))
        await write(store, delete("Patient/a"))
        holding: dict[str, tuple[str, ...]] = {"none": (), "one": ("b",), "three": ("c", "d", "e")}
        asserted: list[tuple[str, ...]] = [
            (),
            ("b",),
            ("a",),
            ("c",),
            ("c", "d"),
            ("c", "d", "e"),
            ("c", "d", "e", "f"),
        ]
        for mark, found in holding.items():
            for count in (0, 1, 20):
                asked = query("Patient", Equals("mark", (mark,)), count=count)
                for expected in asserted:
                    assertion = Matches(asked, expected)
                    if expected == found:
                        await store.transact(Transaction(assertions=(assertion,)))
                    else:
                        await _fails(store, assertion)

    @run_on_store
    async def test_the_failed_assertion_is_named(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        wrong = VersionIs("Patient", "b", 3)
        with pytest.raises(AssertionFailed) as failure:
            await store.transact(Transaction(assertions=(VersionIs("Patient", "a", 1), wrong)))
        assert failure.value.assertion == wrong

    @run_on_store
    async def test_reads_see_the_writes(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a", text="old"), put("Patient/b"))
        committed = await write(
            store,
            put("Patient/a", text="new"),
            post("Patient/c"),
            reads=("Patient/c", "Patient/a", "Patient/b", "Patient/a"),
        )
        assert list_labels(committed.found) == [("Patient/c", 1), ("Patient/a", 2), ("Patient/b", 1), ("Patient/a", 2)]
        for found in committed.found:
            assert found == await store.read(found.type, found.id)

    @run_on_store
    async def test_a_transaction_may_only_read(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        committed = await write(store, reads=("Patient/a",), queries=(query("Patient"),))
        assert list_labels(committed.found) == list_labels(committed.pages[0].matches) == [("Patient/a", 1)]
        assert len(await walk_history(store, HistoryQuery())) == 1

    @run_on_store
    async def test_failed_reads_are_named(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"), put("Patient/gone"))
        await write(store, delete("Patient/gone"))
        cases: dict[str, tuple[tuple[Write, ...], bool]] = {
            "Patient/never": ((), False),
            "Patient/gone": ((), True),
            "Patient/a": ((delete("Patient/a"),), True),
        }
        for reference, (writes, deleted) in cases.items():
            with pytest.raises(ReadFailed) as failure:
                await store.transact(Transaction(writes, reads=(reference,)))
            assert (failure.value.reference, failure.value.deleted) == (reference, deleted)

    @run_on_store
    async def test_queries_see_the_writes(self, store: Store, clock: Ticks) -> None:
        x, y = terms(mark=["x"]), terms(mark=["y"])
        await write(store, put("Patient/a", x), put("Patient/b", x), put("Patient/c", y))
        asked = query("Patient", Equals("mark", ("x",)))
        committed = await write(
            store,
            put("Patient/a", y),
            delete("Patient/b"),
            put("Patient/d", x),
            put("Patient/e", x),
            queries=(asked, query("Patient", count=2), asked, query("Observation"), query("Patient", count=0)),
        )
        pages = [([match.id for match in page.matches], page.next) for page in committed.pages]
        marked = (["d", "e"], None)
        assert pages == [marked, (["a", "c"], ("Patient/c",)), marked, ([], None), ([], None)]
        assert committed.pages[0].matches == (await store.search(asked)).matches

    @run_on_store
    async def test_queries_sort_and_continue_inside(self, store: Store, clock: Ticks) -> None:
        writes = [put(f"Patient/{id}", terms(mark=[mark])) for id, mark in (("a", "3"), ("b", "1"), ("c", "2"))]
        asked = query("Patient", EVERYTHING, sort=(Sort("mark", "term", True),), count=1, after=("3", "Patient/a"))
        (page,) = (await write(store, *writes, queries=(asked,))).pages
        assert [match.id for match in page.matches] == ["c"]
        assert page.next == ("2", "Patient/c")

    @run_on_store
    async def test_entries_follow_the_current_version(self, store: Store, clock: Ticks) -> None:
        """A search finds the current version only, whatever earlier versions held."""
        a, b = Equals("identifier", (token("1", "urn:a"),)), Equals("identifier", (token("1", "urn:b"),))
        await write(store, put("Patient/p", terms(identifier=[token("1", "urn:a")])))
        await write(store, put("Patient/p", terms(identifier=[token("1", "urn:b")])))
        assert (await ids(store, "Patient", a), await ids(store, "Patient", b)) == ([], ["p"])
        await write(store, delete("Patient/p"))
        assert (await ids(store, "Patient", a), await ids(store, "Patient", b)) == ([], [])
        await write(store, put("Patient/p", terms(identifier=[token("1", "urn:a")])))
        assert (await ids(store, "Patient", a), await ids(store, "Patient", b)) == (["p"], [])
        assert await store.count(Query(query("Patient", a).scopes)) == 1


async def _fails(store: Store, assertion: Assertion) -> None:
    with pytest.raises(AssertionFailed) as failure:
        await store.transact(Transaction((put("Patient/zz"),), assertions=(assertion,)))
    assert failure.value.assertion == assertion
    assert await store.read("Patient", "zz") is None
