"""Searches enter by the index that was made for them, as the database's `explain` tells.

A real server (`FHIR_TEST_MONGO_URL`) chooses by itself. SecantusDB is told the index: its planner scans the collection
for much that MongoDB answers by index (mongo_divergences.md), but with a hint it says honestly whether it can.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.search.query import Bound
from fhir_server.store.contract.case import MILLISECOND, Ticks, put, query, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.compile import LIVE, compile_clause, match_all
from fhir_server.store.protocol import BudgetExceeded

REAL = "FHIR_TEST_MONGO_URL" in os.environ

CODE = q.Equals("code", ("c7",))
DATE = q.DateRange("date", (Bound("low", "ge", 5), Bound("low", "lt", 9)))
LATE = q.DateRange("date", (Bound("high", "gt", 295),))

CASES: dict[str, tuple[q.Clause, set[str]]] = {
    "equals": (CODE, {"terms_id"}),
    "one of": (q.Equals("code", ("c7", "c8")), {"terms_id"}),
    "prefix": (q.StartsWith("name", "n12"), {"terms_id"}),
    "contains": (q.Contains("name", "n12", strings=True), {"terms_id"}),
    "contains more": (q.Contains("name", "n123", strings=True), {"terms_id"}),
    "contains less": (q.Contains("name", "12", strings=True), {"terms_id"}),
    "system": (q.EndsWith("kind", SEPARATOR + "urn"), {"terms_id"}),
    "ending": (q.EndsWith("name", "12", True), {"terms_id"}),
    "term range": (q.TermRange("name", "n1", "n2"), {"terms_id"}),
    "word": (q.Words("_content", ("w7",)), {"terms_id"}),
    "phrase": (q.Words("_content", ("w7", "x", "w8"), True), {"terms_id"}),
    "20,000 values": (q.Equals("code", ("c7", *(f"x{n}" for n in range(20_000)))), {"terms_id"}),
    "from a date": (DATE, {"dates_low", "dates_high"}),
    "to a date": (LATE, {"dates_high"}),
    "number": (q.NumberRange("value", (Bound("low", "ge", 5.0), Bound("high", "lt", 9.0))), {"numbers"}),
    "updated": (q.LastUpdated((Bound("low", "ge", 2**60),)), {"updated", "updated_down"}),
    "two criteria": (q.And((CODE, DATE)), {"terms_id", "dates_low", "dates_high"}),
    "two terms": (q.And((CODE, q.Equals("name", ("n7",)))), {"terms_id"}),
}


def _uri(mongo_url: str) -> str:
    return urlunsplit(urlsplit(mongo_url)._replace(path="/test_explain"))


@pytest.fixture(scope="module")
def filled(mongo_url: str) -> Any:
    """The collection of 300 Observations."""

    async def fill() -> None:
        clock = Ticks()
        store = await open_store(_uri(mongo_url), clock)
        entries = [
            Entries(
                # One in ten has a `kind`: fewer keys to look at than resources.
                {"code": (f"c{n}",), "name": (f"n{n}",)} | ({"kind": (f"k{n}{SEPARATOR}urn",)} if n % 10 == 0 else {}),
                {"date": ((n, n),)},
                {"value": (("", n, n, ""),)},
                texts={"_content": f"w{n} x w{n + 1}"},
            )
            for n in range(300)
        ]
        await write(store, *(put(f"Observation/{n}", each) for n, each in enumerate(entries)))
        clock.forward(MILLISECOND)
        await store.close()

    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        client.drop_database("test_explain")
        asyncio.run(fill())
        yield client["test_explain"]["Observation"]
        client.drop_database("test_explain")


def _stages(plan: Any) -> list[dict[str, Any]]:
    """Every stage of a winning plan."""
    if isinstance(plan, list):
        return [stage for each in plan for stage in _stages(each)]
    if not isinstance(plan, dict):
        return []
    own = [plan] if "stage" in plan else []
    return own + [stage for value in plan.values() for stage in _stages(value)]


SLOW = {"20,000 values"}
"""Half a minute on SecantusDB."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in CASES])
def test_searches_scan_an_index(filled: Any, name: str) -> None:
    clause, indexes = CASES[name]
    cursor = filled.find(match_all((compile_clause(clause), LIVE))).limit(21)
    if not REAL:
        cursor = cursor.hint(min(indexes))
    plan = cursor.explain()["queryPlanner"]["winningPlan"]
    found = _stages(plan)
    assert not any(stage["stage"] == "COLLSCAN" for stage in found), plan
    assert {stage["indexName"] for stage in found if stage["stage"] == "IXSCAN"} <= indexes
    assert any(stage["stage"] == "IXSCAN" for stage in found), plan


def test_a_search_tells_what_it_asked(filled: Any, mongo_url: str) -> None:
    """A sentence for each question: its aggregation, the plan, what was examined; then the whole with its time."""

    async def explained() -> tuple[str, ...]:
        store = await open_store(_uri(mongo_url), Ticks())
        try:
            chain = q.Chain("subject", "Patient", q.Equals("gender", ("male",)))
            return await store.explain(query("Observation", q.And((q.Or((chain, CODE)), q.DateRange("date", ())))))
        finally:
            await store.close()

    chained, inside, asked, last = asyncio.run(explained())
    assert chained.startswith('MongoDB: `Patient` is asked `[{"$match": {"terms": "gender=male"}}')
    assert "subject:Patient#" in inside, "whether any Observation contains such a Patient"
    assert asked.startswith('MongoDB: `Observation` is asked `[{"$match"') and "code=c7" in asked
    assert re.search(r"\d+ index keys and \d+ documents examined for \d+ found in \d+ ms\.$", asked)
    assert re.fullmatch(r"The search asked 3 questions in [0-9.]+ ms and found 1 on this page\.", last)
    if REAL:
        assert "IXSCAN `terms_id`" in asked


def test_criteria_that_no_question_holds_are_too_costly(filled: Any, mongo_url: str) -> None:
    """MongoDB takes a command of 16 MB."""

    async def search() -> None:
        store = await open_store(_uri(mongo_url), Ticks())
        try:
            await store.search(query("Observation", q.Equals("code", tuple(f"{n:01000}" for n in range(17_000)))))
        finally:
            await store.close()

    with pytest.raises(BudgetExceeded, match="more values or resources"):
        asyncio.run(search())


@pytest.mark.skipif(not REAL, reason="SecantusDB's explain is not honest about SORT; set FHIR_TEST_MONGO_URL")
@pytest.mark.parametrize(
    "order",
    [
        [("updated", 1), ("_id", 1)],
        [("updated", -1), ("_id", 1)],
        [("_id", 1)],
        [("sort.date.d", -1), ("_id", 1)],
        [("sort.date.a", 1), ("_id", 1)],
    ],
    ids=str,
)
def test_sorts_by_stored_keys_read_an_index_in_order(filled: Any, order: list[tuple[str, int]]) -> None:
    plan = filled.find(LIVE).sort(order).limit(21).explain()["queryPlanner"]["winningPlan"]
    assert not any(stage["stage"] in ("SORT", "COLLSCAN") for stage in _stages(plan)), plan
