"""How many plans a search leaves to MongoDB's planner, and that what it does not leave is tested all the same.

MongoDB makes a plan for each criterion that can enter an index, at most 64 (`internalQueryPlannerMaxIndexedSolutions`,
https://www.mongodb.com/docs/manual/core/query-plans/). Counted on MongoDB 6.0.5: k terms make k plans, a date interval
two (an index begins with either end), alternatives of which each holds several criteria the product of these.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries, TextParameter
from fhir_server.search.query import Bound, Clause
from fhir_server.store.contract import Differential
from fhir_server.store.contract.case import Ticks, put, query, write
from fhir_server.store.mongo import open_store, plans
from fhir_server.store.mongo.aggregation import Stage
from fhir_server.store.mongo.compile import compile_clause
from fhir_server.store.mongo.expressions import build_test, has_test
from fhir_server.store.mongo.plans import MOST_PLANS, Counts, compile_bounded, count_plans
from fhir_server.store.mongo.search import Search
from fhir_server.store.protocol import Clock, Store

REAL = "FHIR_TEST_MONGO_URL" in os.environ

RARE = q.Equals("rare", ("a",))
DATE = q.DateRange("date", (Bound("low", "ge", 10), Bound("high", "lt", 20)))


def _broad(number: int) -> Clause:
    return q.Equals(f"p{number}", ("a",))


COUNTED: tuple[tuple[Clause, int], ...] = (
    (q.EVERYTHING, 0),
    (RARE, 1),
    (DATE, 2),
    (q.Not(RARE), 0),
    (q.And((RARE, _broad(1), DATE)), 4),
    (q.Or((RARE, _broad(1))), 1),
    (q.Or((q.And((RARE, _broad(1))), q.And((RARE, _broad(2), _broad(3))))), 6),
    # An alternative that no index finds leaves the whole to a look at every resource.
    (q.Or((RARE, q.Not(_broad(1)))), 0),
    (q.Words("_text", ("a", "bone", "a")), 2),
)


@pytest.mark.parametrize(("clause", "expected"), COUNTED)
def test_plans_are_counted(clause: Clause, expected: int) -> None:
    assert count_plans(clause) == expected


def _compile(clause: Clause, found: dict[Clause, int]) -> tuple[dict[str, Any], list[Clause]]:
    """The filter, and what was counted in order; other criteria find many."""
    asked: list[Clause] = []

    async def count(part: Clause) -> int:
        asked.append(part)
        return found.get(part, plans.MOST_COUNTED)

    return asyncio.run(compile_bounded(clause, count)), asked


def test_few_criteria_are_all_left_to_the_planner() -> None:
    clause = q.And((RARE, DATE, _broad(1), _broad(2), _broad(3)))
    assert count_plans(clause) == MOST_PLANS
    assert _compile(clause, {}) == (compile_clause(clause), [])


def test_of_many_the_one_that_finds_few_enters_the_index() -> None:
    parts = (DATE, *map(_broad, range(3)), RARE, *map(_broad, range(3, 9)), q.Not(_broad(9)))
    compiled, asked = _compile(q.And(parts), {RARE: 3})
    others = [part for part in parts if part not in (RARE, parts[-1])]
    assert compiled == {
        "$and": [{"terms": "rare=a"}, {"$nor": [{"terms": "p9=a"}]}, {"$expr": build_test(q.And(tuple(others)))}]
    }
    assert asked[-1] == RARE, "no more are counted than it takes to find it"


def test_a_criterion_said_again_counts_once() -> None:
    """As of 1,200 that are four."""
    compiled, asked = _compile(q.And(tuple(_broad(number % 4) for number in range(1_200))), {})
    assert len(asked) == 4
    assert compiled == {"$and": [{"terms": f"p{number}=a"} for number in range(4)]}


def test_of_many_broad_ones_the_least_broad_enter_the_index() -> None:
    counts = {_broad(number): 900 - number for number in range(20)}
    compiled, asked = _compile(q.And(tuple(counts)), counts)
    assert len(asked) == 20
    assert [part for part in compiled["$and"] if "terms" in part] == [{"terms": f"p{n}=a"} for n in range(14, 20)]


def test_alternatives_enter_by_one_criterion_each() -> None:
    """A reference or a code before a date, this before a pattern; nothing is counted for them."""
    branches = [q.And((DATE, q.Contains("name", "ab"), _broad(n))) for n in range(4)]
    compiled, asked = _compile(q.Or(tuple(branches)), {})
    assert asked == []
    assert [each["$and"][0] for each in compiled["$or"]] == [{"terms": f"p{n}=a"} for n in range(4)]


def test_what_has_no_test_enters_the_index() -> None:
    """A unit without a system is found by a pattern."""
    unit = q.NumberRange("value", (Bound("low", "ge", 5.0),), "", (None, "mg"))
    assert not has_test(unit) and not has_test(q.Not(unit))
    compiled, _ = _compile(q.And((*map(_broad, range(9)), unit)), {_broad(1): 1})
    assert compile_clause(unit) in compiled["$and"]


def test_what_a_chain_names_is_no_test() -> None:
    """Up to 50,000 values: a filter finds one among them by their order, an expression would go through all."""
    chain = q.Equals("subject", tuple(f"Patient/{n}" for n in range(1_001)))
    assert not has_test(chain) and has_test(q.Equals("subject", chain.terms[:-1])) and not has_test(q.Ids(chain.terms))
    compiled, _ = _compile(q.And((*map(_broad, range(9)), chain)), {_broad(1): 1})
    assert compile_clause(chain) in compiled["$and"]


def test_a_count_is_remembered_for_ten_minutes() -> None:
    now = 0.0
    counts, asked = Counts(lambda: now), 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        return asked

    async def body() -> None:
        nonlocal now
        assert await counts.get("Patient", RARE, ask) == 1
        now = 599.0
        assert await counts.get("Patient", RARE, ask) == 1
        assert await counts.get("Observation", RARE, ask) == 2
        now = 601.0
        assert await counts.get("Patient", RARE, ask) == 3

    asyncio.run(body())


def test_counts_take_no_more_room_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_REMEMBERED", 2)
    counts, asked = Counts(), 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        return asked

    async def body() -> list[int]:
        return [await counts.get("Patient", _broad(number), ask) for number in (0, 1, 2, 1, 0)]

    assert asyncio.run(body()) == [1, 2, 3, 2, 4]


TEXTS: dict[TextParameter, str] = {"_text": "the bone of a bone", "_content": "bones"}
STORED: dict[str, Entries] = {
    "a": Entries({"name": (f"anna{SEPARATOR}Anna",), "code": ("a", "b"), "$odd": ("$x",)}, {"date": ((10, 19),)}),
    "b": Entries({"name": (f"bob{SEPARATOR}Bob",), "code": (f"c{SEPARATOR}urn",)}, {"date": ((10, 20), (15, 16))}),
    "c": Entries({}, {}, {"value": (("", 5.0, 5.0, f"urn{SEPARATOR}mg{SEPARATOR}mg"),)}, texts=TEXTS),
    "d": Entries({"code": tuple(f"n{n}" for n in range(12))}, {}, {"value": (("k", 4.0, 7.0, ""),)}),
    "e": Entries(),
}
VALUE = (Bound("low", "ge", 5.0),)
TESTED: tuple[tuple[Clause, str], ...] = (
    (q.Equals("code", ("a", "x")), "a"),
    (q.Equals("$odd", ("$x",)), "a"),
    (q.Equals("code", tuple(f"n{n}" for n in range(10, 30))), "d"),
    (q.Equals("code", ()), ""),
    (q.StartsWith("name", "an"), "a"),
    (q.StartsWith("code", ""), "a b d"),
    (q.Contains("name", "nn"), "a"),
    (q.Contains("name", "Ann"), ""),
    (q.Contains("name", f"a{SEPARATOR}"), ""),
    (q.EndsWith("code", SEPARATOR + "urn"), "b"),
    (q.EndsWith("name", "ob", True), "b"),
    (q.EndsWith("name", f"ob{SEPARATOR}", True), ""),
    (q.TermRange("name", "anna", "bob"), "a"),
    (q.TermRange("name", "anna", None), "a b"),
    (q.Words("_text", ("bone", "of")), "c"),
    (q.Words("_text", ("of", "bone")), ""),
    (q.Words("_content", ("bone",), True), "c"),
    (q.Words("_content", ("bone",)), ""),
    (DATE, "a b"),
    (q.DateRange("date", (Bound("low", "ge", 10), Bound("high", "gt", 19))), "b"),
    (q.NumberRange("value", VALUE), "c"),
    (q.NumberRange("value", (Bound("low", "lt", 5.0),), "k"), "d"),
    (q.NumberRange("value", VALUE, "", ("urn", "mg")), "c"),
    (q.NumberRange("value", VALUE, "", ("urn", "g")), ""),
    (q.Present("date"), "a b"),
    (q.Present("value"), "c d"),
    (q.Present("name"), "a b"),
    (q.Ids(("a", "e", "z")), "a e"),
    (q.EVERYTHING, "a b c d e"),
    (q.NOTHING, ""),
    (q.And((q.Present("code"), q.Not(q.Equals("code", ("a",))))), "b d"),
    (q.Or((q.Ids(("e",)), q.Equals("code", ("a",)))), "a e"),
)


def test_a_test_finds_what_the_filter_finds(mongo_uri: str) -> None:
    async def fill() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, *(put(f"Patient/{id}", entries) for id, entries in STORED.items()))
        await store.close()

    asyncio.run(fill())
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        patients = client.get_default_database()["Patient"]
        for clause, expected in TESTED:
            for wanted in (compile_clause(clause), {"$expr": build_test(clause)}):
                found = sorted(document["_id"] for document in patients.find(wanted, {"_id": 1}))
                assert found == expected.split(), (clause, wanted)


def test_counts_are_asked_once_and_the_answer_is_the_same(mongo_uri: str) -> None:
    """Twelve criteria that all match, by one of which two are found."""
    asked: list[Sequence[Stage]] = []

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        try:
            common = {f"p{number}": ("a",) for number in range(11)}
            rare = common | {"rare": ("a",)}
            await write(store, *(put(f"Patient/{n:02}", Entries(rare if n in (3, 60) else common)) for n in range(70)))
            searched = query("Patient", q.And((*map(_broad, range(11)), RARE)))
            first = await store.search(searched)
            assert [match.id for match in first.matches] == ["03", "60"]
            client = pymongo.AsyncMongoClient[dict[str, Any]](mongo_uri)
            search = Search(client.get_default_database(), listen=lambda type, pipeline: asked.append(pipeline))
            assert await search.find_page(searched) == first
            assert sum("$count" in stage for pipeline in asked for stage in pipeline) == 12
            asked.clear()
            assert await search.find_page(searched) == first
            assert len(asked) == 1 and asked[0][0]["$match"]["$and"][0] == {"terms": "rare=a"}
            await client.close()
        finally:
            await store.close()

    asyncio.run(body())


@pytest.mark.skipif(not REAL, reason="SecantusDB has no planner to ask; set FHIR_TEST_MONGO_URL")
@pytest.mark.parametrize("most", [8, 64])
def test_the_database_makes_a_handful_of_plans(mongo_uri: str, most: int) -> None:
    """One for each criterion left to it; unbounded they would be as many as there are criteria."""
    common = {f"p{number}": ("a",) for number in range(most)}

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, *(put(f"Patient/{n:03}", Entries(common)) for n in range(120)))
        found = await store.explain(query("Patient", q.And(tuple(map(_broad, range(most))))))
        assert found
        await store.close()

    asyncio.run(body())
    bounded, _ = _compile(q.And(tuple(map(_broad, range(most)))), {})
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        database = client.get_default_database()
        for wanted, expected in ((compile_clause(q.And(tuple(map(_broad, range(most))))), most), (bounded, MOST_PLANS)):
            told = database.command("explain", {"find": "Patient", "filter": wanted}, verbosity="queryPlanner")
            assert 1 + len(told["queryPlanner"]["rejectedPlans"]) == expected


class TestBounded(Differential):
    """Every search with one criterion left to the planner: the answers are those of the oracle."""

    examples = 10
    many = 20

    @pytest.fixture(autouse=True)
    def _server(self, mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(plans, "MOST_PLANS", 0)
        self.url = mongo_url
        self.names: list[str] = []
        yield
        with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
            for name in self.names:
                client.drop_database(name)

    async def open_store(self, clock: Clock) -> Store:
        self.names.append(f"test_{uuid.uuid4().hex}")
        return await open_store(urlunsplit(urlsplit(self.url)._replace(path=f"/{self.names[-1]}")), clock)
