"""What a search may take on MongoDB: rows, time, memory and connections (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pymongo.errors import BulkWriteError, ExecutionTimeout, OperationFailure, WaitQueueTimeoutError

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.store.contract.case import Ticks, delete, put, query, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.aggregation import Aggregations, Stage
from fhir_server.store.mongo.commit import refuse_slow_reads
from fhir_server.store.mongo.errors import is_transient, translate_error
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.search import Search
from fhir_server.store.protocol import (
    BUDGET,
    Budget,
    BudgetExceeded,
    Page,
    Store,
    StoreUnavailable,
    TooLargeForStore,
)

HELD = 12
FEW = q.Equals("code", (f"few{SEPARATOR}urn",))
MANY = q.Equals("code", (f"many{SEPARATOR}urn",))
VALUE, DATE, CODE = q.Sort("value", "number"), q.Sort("date", "date", True), q.Sort("code", "term")

With = Callable[..., Any]


async def _do_nothing() -> None:
    """After an aggregation that nothing follows."""


@dataclass
class Heard:
    """The documents that aggregations found, in their order, and what happens after the first."""

    answers: list[list[Document]] = field(default_factory=list)
    after_first: Callable[[], Awaitable[None]] = _do_nothing


@pytest.fixture
def on_observations(mongo_uri: str) -> With:
    """Runs on a store of twelve Observations, three of them of a rare code, all of two dates."""

    async def run(ask: Callable[[Store], Awaitable[Any]], budget: Budget, options: str) -> Any:
        joined = f"{mongo_uri}{'&' if '?' in mongo_uri else '?'}{options}" if options else mongo_uri
        store = await open_store(joined, Ticks(), budget)
        try:
            await write(store, put("Patient/p"), *(put(f"Observation/{n:02}", _entries(n)) for n in range(HELD)))
            return await ask(store)
        finally:
            await store.close()

    def start(ask: Callable[[Store], Awaitable[Any]], budget: Budget = BUDGET, options: str = "") -> Any:
        return asyncio.run(run(ask, budget, options))

    return start


def _entries(n: int) -> Entries:
    code = "few" if n < 3 else "many"
    return Entries(
        {"code": (f"{code}{SEPARATOR}urn",), "subject": ("Patient/p",), "note": (f"note {n}{SEPARATOR}Note {n}",)},
        {"date": ((n % 2, n % 2),)},
        {"value": (("", float(-n), float(-n), ""),)},
        strings=frozenset({"note"}),
    )


REFUSED: dict[str, tuple[q.Clause, tuple[q.Sort, ...]]] = {
    "a sort that is not declared": (q.EVERYTHING, (VALUE,)),
    "also of many matches": (MANY, (VALUE,)),
    "many matches of one value of the first key": (q.EVERYTHING, (CODE, DATE)),
    "a short text": (q.Contains("note", "no", strings=True), ()),
    "a text of what is no string": (q.Contains("code", "man"), ()),
    "an ending": (q.EndsWith("code", SEPARATOR + "urn"), ()),
    "one of several": (q.Or((FEW, q.Contains("note", "no", strings=True))), ()),
    "a short text among many": (q.And((MANY, q.Contains("note", "no", strings=True))), ()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_looks_at_more_rows_is_too_costly(on_observations: With, name: str) -> None:
    where, sort = REFUSED[name]
    asked = query("Observation", where, sort=sort, count=4)
    with pytest.raises(BudgetExceeded, match="about 5 rows of the index"):
        on_observations(lambda store: store.search(asked), Budget(rows=5))
    # As many as there are, are not too many.
    page: Page = on_observations(lambda store: store.search(asked), Budget(rows=HELD))
    assert len(page.matches) == 4


def test_what_is_inside_a_chain_counts_too(on_observations: With) -> None:
    short = q.Contains("note", "no", strings=True)
    for clause, type in (
        (q.Has("Observation", "subject", short), "Patient"),
        (q.Chain("part", "Observation", short), "Basic"),
    ):
        with pytest.raises(BudgetExceeded, match="about 5 rows of the index"):
            on_observations(lambda store, type=type, clause=clause: store.search(query(type, clause)), Budget(rows=5))


def test_what_a_chain_names_are_rows_too(on_observations: With) -> None:
    """Twelve Observations refer to one Patient: `_has` finds one, a chain through them twelve."""
    chain = query("Basic", q.Chain("part", "Observation", q.Or((FEW, MANY))))
    with pytest.raises(BudgetExceeded, match="about 5 rows of the index"):
        on_observations(lambda store: store.search(chain), Budget(rows=5))
    has = query("Patient", q.Has("Observation", "subject", q.Or((FEW, MANY))))
    assert len(on_observations(lambda store: store.search(has), Budget(rows=5)).matches) == 1


def test_what_is_asked_of_a_few_resources_looks_at_no_others(on_observations: With) -> None:
    short = q.Contains("note", "1", strings=True)
    asked = ["Observation/00", "Observation/01", "Observation/10"]
    found = on_observations(lambda store: store.find_matching(asked, short), Budget(rows=5))
    assert found == {"Observation/01", "Observation/10"}


ANSWERED: dict[str, tuple[q.Clause, tuple[q.Sort, ...], str]] = {
    "a declared sort walks an index": (q.EVERYTHING, (DATE,), "01 03 05 07"),
    "a sort of few matches": (FEW, (VALUE,), "02 01 00"),
    "a text of three characters": (q.Contains("note", "e 1", strings=True), (), "01 10 11"),
    "a short text of few": (q.And((FEW, q.Contains("note", "no", strings=True))), (), "00 01 02"),
    "a negation is tested on what is found": (q.And((FEW, q.Not(q.Contains("note", "1", strings=True)))), (), "00 02"),
    "a prefix is a range": (q.StartsWith("note", "note 1"), (), "01 10 11"),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_what_looks_at_no_more_is_answered(on_observations: With, name: str) -> None:
    where, sort, expected = ANSWERED[name]
    asked = query("Observation", where, sort=sort, count=4)
    page: Page = on_observations(lambda store: store.search(asked), Budget(rows=5))
    assert [match.id for match in page.matches] == expected.split()


def test_further_keys_are_sorted_within_the_part_that_a_page_needs(on_observations: With) -> None:
    """The first page needs the six of the later date, the next ones the six of the earlier."""

    async def walk(store: Store) -> list[list[str]]:
        pages, after = [], None
        while True:
            page = await store.search(query("Observation", sort=(DATE, VALUE), count=4, after=after))
            pages.append([match.id for match in page.matches])
            after = page.next
            if after is None:
                return pages

    pages = on_observations(walk, Budget(rows=HELD))
    assert pages == [["11", "09", "07", "05"], ["03", "01", "10", "08"], ["06", "04", "02", "00"]]
    first = query("Observation", sort=(DATE, VALUE), count=4)
    assert len(on_observations(lambda store: store.search(first), Budget(rows=6)).matches) == 4
    with pytest.raises(BudgetExceeded):
        on_observations(lambda store: store.search(first), Budget(rows=5))


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The documents of each aggregation, and what is to be done after the first."""
    heard = Heard()
    real = Aggregations.find_all

    async def find_all(self: Aggregations, *arguments: Any) -> list[Document]:
        heard.answers.append(await real(self, *arguments))
        if len(heard.answers) == 1:
            await heard.after_first()
        return heard.answers[-1]

    monkeypatch.setattr(Aggregations, "find_all", find_all)
    return heard


def test_what_is_deleted_between_its_key_and_its_text_leaves_no_gap(on_observations: With, overheard: Heard) -> None:
    """The values fall with the ids: 11, 10, 09 … A page with a place to spare would pass for the last one."""

    async def walk(store: Store) -> list[list[str]]:
        async def remove() -> None:
            await write(store, delete("Observation/10"), delete("Observation/09"))

        overheard.after_first = remove
        first = await store.search(query("Observation", sort=(VALUE,), count=3))
        rest = await store.search(query("Observation", sort=(VALUE,), count=20, after=first.next))
        assert rest.next is None
        return [[match.id for match in page.matches] for page in (first, rest)]

    assert on_observations(walk) == [["11", "08", "07"], ["06", "05", "04", "03", "02", "01", "00"]]


def test_what_is_deleted_between_its_score_and_its_text_leaves_no_gap(on_observations: With, overheard: Heard) -> None:
    """The fewer words beside the one that is asked for, the higher the score: a, b, c … (`search.words.score`)."""
    names = "abcdefgh"

    def note(number: int) -> Entries:
        return Entries(texts={"_content": " ".join(["bone", *["x"] * (3 * number)])})

    async def walk(store: Store) -> list[list[str]]:
        async def remove() -> None:
            await write(store, delete("Patient/b"), delete("Patient/c"))

        await write(store, *(put(f"Patient/{name}", note(number)) for number, name in enumerate(names)))
        overheard.answers.clear()
        overheard.after_first = remove
        words = q.Words("_content", ("bone",))
        best = q.Sort("_score", "score", True, (words,))
        first = await store.search(query("Patient", words, sort=(best,), count=3))
        rest = await store.search(query("Patient", words, sort=(best,), count=20, after=first.next))
        assert rest.next is None
        return [[match.id for match in page.matches] for page in (first, rest)]

    assert on_observations(walk) == [["a", "d", "e"], ["f", "g", "h"]]


def test_of_a_sorted_page_no_more_texts_are_read_than_it_may_hold(on_observations: With, overheard: Heard) -> None:
    """As `Query.most_bytes` says; the sort itself reads none."""
    asked = replace(query("Observation", sort=(VALUE,), count=5), most_bytes=1)
    page: Page = on_observations(lambda store: store.search(asked))
    assert [match.id for match in page.matches] == ["11"] and page.next is not None
    sorts, texts = overheard.answers
    assert [len(sorts), len(texts)] == [6, 1]
    assert all("raw" not in document for document in sorts) and texts[0]["raw"] == page.matches[0].raw


@pytest.mark.parametrize("name", ["a declared sort walks an index", "a prefix is a range"])
def test_what_the_database_cannot_sort_with_its_texts_is_sorted_by_keys(
    on_observations: With, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its planner may sort what a criterion finds instead of walking along the sort; above 100 MB it then refuses."""
    real, refusals = Aggregations.find_all, 0

    async def find_all(self: Aggregations, type: str, stages: list[Stage], most: int | None = None) -> list[Document]:
        nonlocal refusals
        if "'$sort'" in str(stages) and "'$binarySize'" not in str(stages):
            refusals += 1
            raise OperationFailure("Sort exceeded memory limit", 292)
        return await real(self, type, stages, most)

    monkeypatch.setattr(Aggregations, "find_all", find_all)
    where, sort, expected = ANSWERED[name]
    page: Page = on_observations(lambda store: store.search(query("Observation", where, sort=sort, count=4)))
    assert [match.id for match in page.matches] == expected.split() and refusals == 1
    assert all(match.raw for match in page.matches)


def test_a_search_has_one_time_for_all_its_questions(on_observations: With) -> None:
    budget = Budget(seconds=0.000_001)
    with pytest.raises(BudgetExceeded, match="stopped after 1e-06 seconds"):
        on_observations(lambda store: store.search(query("Observation", FEW)), budget)
    with pytest.raises(BudgetExceeded, match="stopped after 1e-06 seconds"):
        on_observations(lambda store: store.count(query("Observation", FEW)), budget)


@pytest.mark.parametrize("code", [146, 292, 16819])
def test_what_needs_too_much_memory_is_too_costly(code: int) -> None:
    """ExceededMemoryLimit, QueryExceededMemoryLimitNoDiskUseAllowed, and a sort's in earlier versions."""
    found = translate_error(OperationFailure("memory", code))
    assert isinstance(found, BudgetExceeded) and "more than the database holds in memory" in str(found)


def test_a_time_that_the_server_keeps_by_itself_is_too_costly() -> None:
    """ExceededTimeLimit, a category of its own beside MaxTimeMSExpired (mongo/src/mongo/base/error_codes.yml)."""
    found = translate_error(OperationFailure("operation exceeded time limit", 262))
    assert isinstance(found, BudgetExceeded) and "longer than the time it is given" in str(found)


@pytest.mark.parametrize(
    "error",
    [OperationFailure("cache", 388), BulkWriteError({"writeErrors": [{"code": 388, "errmsg": "cache"}]})],
    ids=["the command", "a write of a bulk"],
)
def test_what_the_cache_does_not_hold_is_sent_in_smaller_transactions(error: OperationFailure) -> None:
    """TransactionTooLargeForCache: MongoDB means it not to be tried again, as WriteConflict is."""
    found = translate_error(error)
    assert isinstance(found, TooLargeForStore) and "several smaller transactions" in str(found)
    assert not is_transient(error)


def test_a_transaction_waits_no_longer_for_what_it_refers_to() -> None:
    with pytest.raises(StoreUnavailable, match="nothing was written"), refuse_slow_reads():
        raise ExecutionTimeout("operation exceeded time limit", 50)


def test_no_connection_in_time_is_no_lost_primary() -> None:
    found = translate_error(WaitQueueTimeoutError("Timed out"))
    assert isinstance(found, StoreUnavailable) and "`maxPoolSize`" in str(found)


def test_slow_searches_leave_connections_to_reads_and_writes(
    on_observations: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four run at once; the others wait no longer than a search may take."""
    running, release = 0, asyncio.Event()

    async def slow(self: Search, asked: q.Query, session: object = None) -> Page:
        nonlocal running
        running += 1
        await release.wait()
        return Page((), None)

    async def ask(store: Store) -> list[Page | BaseException]:
        monkeypatch.setattr(Search, "find_page", slow)
        searches = [asyncio.create_task(store.search(query("Observation"))) for _ in range(6)]
        await asyncio.sleep(0.01)
        assert running == 3
        await write(store, put("Observation/new"))
        assert await store.read("Observation", "new") is not None
        await asyncio.wait(searches, timeout=0.5, return_when=asyncio.FIRST_EXCEPTION)
        await asyncio.sleep(0.2)
        release.set()
        return await asyncio.gather(*searches, return_exceptions=True)

    found = on_observations(ask, Budget(seconds=0.3), "maxPoolSize=4")
    assert [isinstance(each, Page) for each in found] == [True] * 3 + [False] * 3
    assert all(isinstance(each, BudgetExceeded) for each in found[3:])
