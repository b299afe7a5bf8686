"""Contract: texts, found by words and phrases and ordered by score (https://hl7.org/fhir/R4/search.html#content)."""

from __future__ import annotations

import pytest

from fhir_server.search import query as q
from fhir_server.search.entries import Entries
from fhir_server.search.words import MAX_SCORED
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
    walk,
    write,
)
from fhir_server.store.operations import Write
from fhir_server.store.protocol import BudgetExceeded, Store


def note(reference: str, content: str = "", text: str = "", version: str = "") -> Write:
    """A resource with these words."""
    found = {"_content": content, "_text": text}
    return put(reference, Entries(texts={name: words for name, words in found.items() if words}), version)  # type: ignore[misc]


def has(words: str, prefix: bool = False) -> q.Words:
    """`_content` with these words in a row."""
    return q.Words("_content", tuple(words.split()), prefix)


RESOURCES = (
    note("Observation/a", "bone pain in the left knee", "bone pain"),
    note("Observation/b", "pain bone", "knee"),
    note("Observation/c", "bones of straße and жаба 12b"),
    put("Observation/d"),
    note("Patient/p", "bone pain 1 2 3"),
    put("Observation/s", terms(subject=["Patient/p"])),
)

EXPECTED: tuple[tuple[q.Clause, str], ...] = (
    (has("bone"), "a b"),
    (has("bon"), ""),
    (has("bone", True), "a b c"),
    (has("bone pain"), "a"),
    (has("pain bone"), "b"),
    (has("bone knee"), ""),
    (has("left kn"), ""),
    (has("left kn", True), "a"),
    (has("knee left"), ""),
    (has("жаб", True), "c"),
    (has("straße"), "c"),
    (has("12b"), "c"),
    (has("1"), ""),
    (q.Words("_text", ("knee",)), "b"),
    (q.Words("_text", ("bone", "pain")), "a"),
    (q.And((has("bone"), q.Not(has("left")))), "b"),
    (q.Or((has("left"), has("жаба"))), "a c"),
    (q.Not(has("bone")), "c d s"),
    (q.Not(q.Words("_text", ("bone",))), "b c d s"),
    (q.Chain("subject", "Patient", has("bone pain")), "s"),
    (q.And((q.Chain("subject", "Patient", has("bone")), q.Not(has("bone")))), "s"),
    (q.And((has("bone"), q.LastUpdated((q.Bound("low", "ge", START),)))), "a b"),
)


class TextContract(Case):
    """Full text."""

    @run_on_store
    async def test_words_and_phrases(self, store: Store, clock: Ticks) -> None:
        await write(store, *RESOURCES)
        for clause, expected in EXPECTED:
            assert await ids(store, "Observation", clause) == expected.split(), clause
            assert await store.count(query("Observation", clause)) == len(expected.split()), clause
            given = [f"Observation/{id}" for id in "abcds"]
            assert await store.find_matching(given, clause) == {f"Observation/{id}" for id in expected.split()}, clause
        assert await ids(store, "Patient", has("bone")) == ["p"]
        await write(store, put("Group/g", terms(member=["Patient/p"])))
        assert await ids(store, "Patient", q.Has("Group", "member", q.Not(has("x")))) == ["p"]

    @run_on_store
    async def test_words_are_no_terms(self, store: Store, clock: Ticks) -> None:
        await write(store, note("Patient/a", "one two"), put("Patient/b", terms(name=["one"])))
        assert await ids(store, "Patient", has("one")) == ["a"]
        assert await ids(store, "Patient", q.Equals("name", ("one",))) == ["b"]

    @run_on_store
    async def test_texts_follow_their_resource(self, store: Store, clock: Ticks) -> None:
        await write(store, note("Patient/a", "one two"), note("Patient/b", "one"))
        await write(store, note("Patient/a", "one three", version="2"))
        assert [await ids(store, "Patient", has(word)) for word in ("one", "two", "three")] == [["a", "b"], [], ["a"]]
        await write(store, put("Patient/a", text="3"))
        assert await ids(store, "Patient", has("one")) == ["b"]
        await write(store, note("Patient/a", "one four"), delete("Patient/b"))
        assert await ids(store, "Patient", has("one")) == ["a"]
        await write(store, note("Patient/b", "five"))
        assert await ids(store, "Patient", q.Or((has("one"), has("five")))) == ["a", "b"]
        await purge(store, "Patient/a")
        await write(store, put("Patient/c"), put("Patient/d"))
        assert await ids(store, "Patient", q.Or((has("one"), has("four")))) == []
        assert await ids(store, "Patient", q.Not(has("five"))) == ["c", "d"]

    @run_on_store
    async def test_a_refused_transaction_leaves_no_words(self, store: Store, clock: Ticks) -> None:
        await write(store, note("Patient/a", "one"))
        for _ in range(2):
            with pytest.raises(Exception, match="Patient/absent"):
                await write(store, note("Patient/a", "two"), required=("Patient/absent",))
        assert await ids(store, "Patient", has("one")) == ["a"]
        assert await ids(store, "Patient", has("two")) == []

    @run_on_store
    async def test_reindex_adds_and_removes_texts(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a", terms(name=["x"]), "a"), put("Patient/b", terms(name=["x"]), "b"))
        for word in ("one", "two"):
            entries = Entries(terms={"name": ("x",)}, texts={"_content": word})
            await reindex(store, ("Patient",), lambda type, raw, found=entries: found)  # type: ignore[misc]
            assert await ids(store, "Patient", has(word)) == ["a", "b"]
        assert await ids(store, "Patient", has("one")) == []
        await reindex(store, ("Patient",), lambda type, raw: terms(name=["x"]))
        assert await ids(store, "Patient", q.Or((has("one"), has("two")))) == []
        assert await ids(store, "Patient", q.Equals("name", ("x",))) == ["a", "b"]

    @run_on_store
    async def test_order_by_score(self, store: Store, clock: Ticks) -> None:
        """1 of 1 word, 2 of 4, 1 of 4 twice, none: n / (n + 0.5 + L / 200) falls in this order but for the second."""
        await write(
            store,
            note("Patient/a", "x x x bone"),
            note("Patient/b", "bone"),
            note("Patient/c", "bone x bone x"),
            put("Patient/d"),
            note("Patient/e", "x bone x x"),
            note("Observation/b", "bone x bone x"),
        )
        best = q.Sort("_score", "score", True, (has("bone"),))
        found = [match.id for match in await walk(store, query("Patient", sort=(best,), count=2))]
        assert found == ["c", "b", "a", "e", "d"]
        worst = q.Sort("_score", "score", False, (has("bone"),))
        found = [match.id for match in await walk(store, query("Patient", sort=(worst,), count=2))]
        assert found == ["d", "a", "e", "b", "c"]
        by_id = q.Sort("_id", "id", True)
        found = [match.id for match in await walk(store, query("Patient", has("bone"), sort=(best, by_id), count=1))]
        assert found == ["c", "b", "e", "a"]
        both = query("Patient", has("bone"), sort=(best,), count=2)
        both = type(both)((*both.scopes, *query("Observation").scopes), both.sort, both.count)
        assert [match.reference for match in await walk(store, both)] == [
            *("Observation/b", "Patient/c", "Patient/b", "Patient/a", "Patient/e"),
        ]

    @run_on_store
    async def test_too_many_to_be_ordered_by_score(self, store: Store, clock: Ticks) -> None:
        best = (q.Sort("_score", "score", True, (has("bone"),)),)
        for start in range(0, MAX_SCORED, 1000):
            await write(store, *(note(f"Patient/{number}", "bone") for number in range(start, start + 1000)))
        assert (await store.search(query("Patient", has("bone"), sort=best, count=1))).matches[0].id == "0"
        await write(store, note("Patient/more", "bone"))
        with pytest.raises(BudgetExceeded, match="10,000 resources of type `Patient`"):
            await store.search(query("Patient", has("bone"), sort=best))
        assert len((await store.search(query("Patient", has("bone")))).matches) == 20
