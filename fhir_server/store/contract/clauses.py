"""Contract: every clause of the search tree over a small, fixed set of resources (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.store.contract.case import (
    HOUR,
    START,
    Case,
    Ticks,
    delete,
    ids,
    put,
    query,
    run_on_store,
    terms,
    write,
)
from fhir_server.store.contract.expectations import (
    CODE_A,
    COMBINED,
    EVERY,
    FEMALE,
    FOLLOWED,
    NAMED,
    RANGES,
    RESOURCES,
    TERMS,
    WITHIN,
    Expectation,
)
from fhir_server.store.protocol import Store


class ClauseContract(Case):
    """Search finds what each clause says, and `count` and `find_matching` agree with it."""

    @run_on_store
    async def test_terms_ids_and_presence(self, store: Store, clock: Ticks) -> None:
        await _check(store, TERMS)

    @run_on_store
    async def test_dates_and_numbers(self, store: Store, clock: Ticks) -> None:
        await _check(store, RANGES)

    @run_on_store
    async def test_chains(self, store: Store, clock: Ticks) -> None:
        await _check(store, FOLLOWED + EVERY + NAMED + WITHIN)

    @run_on_store
    async def test_and_or_not(self, store: Store, clock: Ticks) -> None:
        await _check(store, COMBINED)

    @run_on_store
    async def test_last_updated(self, store: Store, clock: Ticks) -> None:
        for id in ("a", "b", "c"):
            await write(store, put(f"Patient/{id}"))
            clock.forward(HOUR)
        b = START + HOUR
        expected: tuple[tuple[tuple[q.Bound, ...], str], ...] = (
            ((), "a b c"),
            ((q.Bound("low", "ge", b),), "b c"),
            ((q.Bound("low", "gt", b),), "c"),
            ((q.Bound("high", "lt", b),), "a"),
            ((q.Bound("high", "le", b),), "a b"),
            ((q.Bound("low", "ge", b), q.Bound("high", "le", b)), "b"),
        )
        for tests, found in expected:
            assert await ids(store, "Patient", q.LastUpdated(tests)) == found.split(), tests
        await write(store, put("Patient/a"))
        assert await ids(store, "Patient", q.LastUpdated((q.Bound("low", "gt", b),))) == ["a", "c"]
        assert await ids(store, "Patient", q.Not(q.LastUpdated((q.Bound("low", "gt", b),)))) == ["b"]

    @run_on_store
    async def test_texts_that_are_long(self, store: Store, clock: Ticks) -> None:
        """A text of any length is compared, also where a database takes no pattern of that length."""
        long = "ä" * 3000 + "|z" * 3000
        await write(
            store,
            put("Patient/both", terms(name=[f"x{long}y{SEPARATOR}X{long}Y"])),
            put("Patient/behind", terms(name=[f"short{SEPARATOR}x{long}y"])),
            put("Patient/none"),
            put("Observation/o", Entries(texts={"_content": "so " + "many words " * 900 + "end"})),
        )
        for clause, found in (
            (q.Contains("name", long), "both"),
            (q.Contains("name", f"name=x{long}"), ""),
            (q.Contains("name", long + "z" * 40_000), ""),
            (q.EndsWith("name", f"{long}y", True), "both"),
            (q.EndsWith("name", f"{long}y"), "behind"),
            (q.EndsWith("name", long, True), ""),
            (q.Not(q.Contains("name", long)), "behind none"),
        ):
            assert await ids(store, "Patient", clause) == found.split(), clause.__class__
        words = ("many", "words") * 600
        for phrase, found in (
            (q.Words("_content", words), "o"),
            (q.Words("_content", (*words, "man"), True), "o"),
            (q.Words("_content", (*words, "man")), ""),
            (q.Words("_content", ("end", *words)), ""),
        ):
            assert await ids(store, "Observation", phrase) == found.split(), phrase.words[-1]

    @run_on_store
    async def test_deleted_resources_are_not_followed(self, store: Store, clock: Ticks) -> None:
        await write(store, *RESOURCES)
        await write(store, delete("Patient/ann"), delete("Observation/s3"))
        assert await ids(store, "Observation", q.Chain("subject", "Patient", q.EVERYTHING)) == ["s2"]
        assert await ids(store, "Observation", q.Chain("subject", "Patient", FEMALE)) == []
        assert await ids(store, "Observation", q.Not(q.Every("subject", (q.Scope("Patient"),)))) == ["s1", "s2", "s4"]
        assert await ids(store, "Patient", q.Has("Observation", "subject", q.EVERYTHING)) == ["bob"]
        assert await ids(store, "Patient", q.Has("Observation", "subject", CODE_A)) == []

    @run_on_store
    async def test_scopes_are_united(self, store: Store, clock: Ticks) -> None:
        await write(store, *RESOURCES)
        united = q.Query(
            (q.Scope("Patient", FEMALE), q.Scope("Group"), q.Scope("Practitioner"), q.Scope("Encounter", q.NOTHING))
        )
        found = (await store.search(united)).matches
        assert [match.reference for match in found] == ["Group/ann", "Patient/ann"]
        assert await store.count(united) == 2
        assert (await store.search(q.Query(()))).matches == ()
        assert await store.count(q.Query(())) == 0

    @run_on_store
    async def test_count_ignores_the_page(self, store: Store, clock: Ticks) -> None:
        await write(store, *RESOURCES)
        for count in (0, 1, 20):
            assert await store.count(query("Patient", count=count, after=("Patient/bob",))) == 5

    @run_on_store
    async def test_matching_judges_only_those_given(self, store: Store, clock: Ticks) -> None:
        await write(store, *RESOURCES)
        given = ["Patient/ann", "Patient/bob", "Patient/bob", "Patient/never", "Patient/dan"]
        assert await store.find_matching(given, q.Present("gender")) == {"Patient/ann", "Patient/bob"}
        assert await store.find_matching(given, q.EVERYTHING) == {"Patient/ann", "Patient/bob", "Patient/dan"}
        assert await store.find_matching(given, q.Has("Observation", "subject", CODE_A)) == {"Patient/ann"}
        every = q.Every("link", (q.Scope("Patient"),))
        assert await store.find_matching(given, q.And((q.Present("name"), every))) == {"Patient/ann", "Patient/bob"}
        assert await store.find_matching([], q.EVERYTHING) == frozenset()
        await write(store, delete("Patient/bob"))
        assert await store.find_matching(given, q.Present("gender")) == {"Patient/ann"}


async def _check(store: Store, expectations: tuple[Expectation, ...]) -> None:
    await write(store, *RESOURCES)
    for type, clause, expected in expectations:
        found = expected.split()
        assert await ids(store, type, clause) == found, clause
        assert await store.count(query(type, clause)) == len(found), clause
        everyone = [f"{each.type}/{each.id}" for each in RESOURCES if each.type == type]
        assert await store.find_matching(everyone, clause) == {f"{type}/{id}" for id in found}, clause
