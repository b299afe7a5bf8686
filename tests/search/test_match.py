"""The search tree in memory: each clause, order, pages (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.search.entries import NO_ENTRIES, SEPARATOR, Entries
from fhir_server.search.match import Candidate, compare_keys, compile_predicate, compute_sort_key, matches, select_page
from fhir_server.search.query import (
    EVERYTHING,
    And,
    Bound,
    Chain,
    Clause,
    DateRange,
    Equals,
    Has,
    Ids,
    LastUpdated,
    Not,
    NumberRange,
    Or,
    Query,
    Scope,
    Sort,
    SortKey,
)
from fhir_server.store import memory
from fhir_server.store.contract.case import START, query, write
from fhir_server.store.contract.expectations import CLAUSES, RESOURCES, Expectation
from fhir_server.store.contract.pages import ORDERS
from fhir_server.store.contract.pages import RESOURCES as SORTED
from fhir_server.store.contract.strategies import IDS, TYPES, clauses, entries


class Others:
    """`match.CurrentResources` over a list."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates = {candidate.reference: candidate for candidate in candidates}

    def resolve(self, reference: str) -> Candidate | None:
        return self.candidates.get(reference)

    def iterate_type(self, type: str) -> list[Candidate]:
        return [candidate for candidate in self.candidates.values() if candidate.type == type]


CLINIC = Others(Candidate(each.type, each.id, START, each.entries) for each in RESOURCES)


def found(type: str, clause: Clause, others: Others = CLINIC) -> list[str]:
    return sorted(each.id for each in others.iterate_type(type) if matches(clause, each, others))


@pytest.mark.parametrize("expectation", CLAUSES, ids=repr)
def test_clauses(expectation: Expectation) -> None:
    type, clause, expected = expectation
    assert found(type, clause) == expected.split()


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        ("lt", (True, False, False)),
        ("le", (True, True, False)),
        ("gt", (False, False, True)),
        ("ge", (False, True, True)),
    ],
)
def test_comparisons_at_both_ends(comparison: str, holds: tuple[bool, bool, bool]) -> None:
    """The entry's end stands on the left: `Bound("low", "lt", 5)` is low < 5."""
    candidate = Candidate("Encounter", "e", START, Entries(dates={"date": ((10, 20),)}))
    for end, value in (("low", 10), ("high", 20)):
        for shift, expected in zip((1, 0, -1), holds, strict=True):
            test = Bound(end, comparison, value + shift)  # type: ignore[arg-type]
            assert matches(DateRange("date", (test,)), candidate, Others(())) is expected, test


def test_every_test_is_passed_by_the_same_entry() -> None:
    """`date=ge…` and `date=le…` of one clause speak of one interval; of two clauses each may be met by another one."""
    candidate = Candidate("Encounter", "e", START, Entries(dates={"date": ((0, 1), (8, 9))}))
    above, below = Bound("low", "ge", 2), Bound("high", "le", 7)
    assert not matches(DateRange("date", (above, below)), candidate, Others(()))
    assert matches(And((DateRange("date", (above,)), DateRange("date", (below,)))), candidate, Others(()))


def test_a_composite_does_not_match_across_components() -> None:
    """https://hl7.org/fhir/R4/search.html#composite: code and value of the same component."""
    systolic, diastolic = f"8480-6{SEPARATOR}http://loinc.org", f"8462-4{SEPARATOR}http://loinc.org"
    pressure = ((systolic, 120.0, 120.0, ""), (diastolic, 80.0, 80.0, ""))
    candidate = Candidate("Observation", "o", START, Entries(numbers={"component-code-value-quantity": pressure}))
    high = (Bound("low", "gt", 100),)
    assert matches(NumberRange("component-code-value-quantity", high, systolic), candidate, Others(()))
    assert not matches(NumberRange("component-code-value-quantity", high, diastolic), candidate, Others(()))


def test_last_updated_is_a_point() -> None:
    candidate = Candidate("Patient", "p", START, NO_ENTRIES)
    assert matches(LastUpdated((Bound("low", "ge", START), Bound("high", "le", START))), candidate, Others(()))
    assert not matches(LastUpdated((Bound("low", "gt", START),)), candidate, Others(()))


def test_chain_reads_the_target_of_that_type_only() -> None:
    source = Candidate("Observation", "o", START, Entries(terms={"subject": ("Group/a", "Patient/b")}))
    others = Others((source, Candidate("Group", "a", START, NO_ENTRIES), Candidate("Patient", "b", START, NO_ENTRIES)))
    assert matches(Chain("subject", "Group", Ids(("a",))), source, others)
    assert not matches(Chain("subject", "Group", Ids(("b",))), source, others)
    assert not matches(Chain("subject", "Device", EVERYTHING), source, others)
    assert found("Patient", Has("Observation", "subject", EVERYTHING), others) == ["b"]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order[1])
def test_orders(order: tuple[tuple[Sort, ...], str]) -> None:
    sort, expected = order
    candidates = [Candidate(each.type, each.id, number, each.entries) for number, each in enumerate(SORTED)]
    page, position = select_page(query("Patient", sort=sort), reversed(candidates))
    assert [candidate.id for candidate in page] == expected.split()
    assert position is None


def test_sort_keys() -> None:
    """Ascending the lowest value, descending the highest; a date's or number's low or high end."""
    candidate = Candidate(
        "Observation",
        "o",
        START,
        Entries({"code": ("a", "b")}, {"date": ((1, 9), (2, 3))}, {"value": (("", 4.0, 5.0, ""), ("", 4.5, 4.5, ""))}),
    )
    kinds = (("code", "term"), ("date", "date"), ("value", "number"), ("_id", "id"), ("_lastUpdated", "lastUpdated"))
    up = tuple(Sort(name, kind) for name, kind in kinds)  # type: ignore[arg-type]
    down = tuple(Sort(name, kind, True) for name, kind in kinds)  # type: ignore[arg-type]
    assert compute_sort_key(up, candidate) == ("a", 1, 4.0, "o", START, "Observation/o")
    assert compute_sort_key(down, candidate) == ("b", 9, 5.0, "o", START, "Observation/o")
    assert compute_sort_key((Sort("other", "date"),), candidate) == (None, "Observation/o")


def test_order_is_total_and_missing_is_last() -> None:
    keys: list[SortKey] = [(1, "P/a"), (1, "P/b"), (2, "P/a"), (None, "P/a"), (None, "P/b")]
    up, down = (Sort("date", "date"),), (Sort("date", "date", True),)
    falling = [keys[2], keys[0], keys[1], keys[3], keys[4]]
    for sort, order in ((up, keys), (down, falling)):
        for left, right in permutations(range(len(order)), 2):
            sign = compare_keys(sort, order[left], order[right])
            assert (sign < 0) == (left < right) and sign != 0
        assert compare_keys(sort, order[0], order[0]) == 0


def test_pages() -> None:
    candidates = [Candidate("Patient", id, START, NO_ENTRIES) for id in "dcba"]
    page, position = select_page(query("Patient", count=2), candidates)
    assert ([each.id for each in page], position) == (["a", "b"], ("Patient/b",))
    page, position = select_page(query("Patient", count=2, after=position), candidates)
    assert ([each.id for each in page], position) == (["c", "d"], None)
    assert select_page(query("Patient", count=0), candidates) == ([], None)
    assert select_page(query("Patient", after=("Patient/z",)), candidates) == ([], None)


references = st.tuples(st.sampled_from(TYPES), st.sampled_from(IDS))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(references, entries, max_size=8), clauses, clauses)
def test_boolean_algebra(resources: dict[tuple[str, str], Entries], left: Clause, right: Clause) -> None:
    """De Morgan, double negation, distribution over Has; and no clause depends on the order of the resources."""
    candidates = [Candidate(*name, START, each) for name, each in resources.items()]
    others, turned = Others(candidates), Others(reversed(candidates))

    def same(one: Clause, other: Clause) -> bool:
        first, second = compile_predicate(one, others), compile_predicate(other, turned)
        return all(first(each) == second(each) for each in candidates)

    assert same(left, left)
    assert same(Not(Not(left)), left)
    assert same(Not(And((left, right))), Or((Not(left), Not(right))))
    assert same(Has("Observation", "link", Or((left, right))), Or(tuple(_has(part) for part in (left, right))))
    assert same(And((left, Not(left))), Or())


def _has(where: Clause) -> Clause:
    return Has("Observation", "link", where)


def test_the_store_follows_its_own_state() -> None:
    """The in-memory store is a `Follow` of its current resources."""

    async def body() -> None:
        store = await memory.open_store("memory://", lambda: START)
        await write(store, *RESOURCES)
        patient = store.resolve("Patient/ann")
        assert patient is not None and patient.reference == "Patient/ann"
        assert store.resolve("Patient/never") is store.resolve("http://x.org/Patient/ann") is store.resolve("") is None
        assert [each.id for each in store.iterate_type("Group")] == ["ann"]
        assert list(store.iterate_type("Zoo")) == []
        where = Equals("code", (f"a{SEPARATOR}",))
        assert await store.count(Query((Scope("Group", where), Scope("Observation", where)))) == 4

    asyncio.run(body())
