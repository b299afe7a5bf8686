"""What a search may take on SQLite: it is stopped by time and rows, and a slow one keeps no other waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fhir_server.search.query import Clause, Contains, Equals, Has, Not, Or, Query, Scope, StartsWith
from fhir_server.store.contract.case import ids, put, query, terms
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Budget, BudgetExceeded, Page
from fhir_server.store.sqlite import SqliteStore
from fhir_server.store.sqlite import store as store_module
from fhir_server.store.sqlite.budget import Meter, Slow
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expand_clause
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search
from tests.store.sqlite_runs import run_on_store

RESOURCES = 6000
# Nothing can be entered by: each resource is tested, and none matches.
DEAR: Clause = Not(Or((Equals("a", ("x",)), Equals("a", ("y",)))))
SLOW = query("Basic", DEAR)
EASY = query("Basic", Equals("own", ("own7",)))


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "many.db"

    async def fill(store: SqliteStore) -> None:
        writes = [
            put(f"Basic/{number:05}", terms(a=["x" if number % 2 else "y"], own=[f"own{number}"]))
            for number in range(RESOURCES)
        ]
        await store.transact(Transaction(tuple(writes)))

    run_on_store(path, fill)
    return path


@pytest.fixture
def open_search(large_file: Path) -> Iterator[Callable[..., Search]]:
    connection, names = connect(large_file, writer=False), Names()
    names.refresh(connection)
    yield lambda *arguments: Search(connection, names, Sizes(), *arguments)
    connection.close()


def test_a_search_that_looks_at_too_many_rows_is_stopped(open_search: Callable[..., Search]) -> None:
    sentence = "stopped after about 1,000 rows of the index, the most that one search may look at"
    for attempt in (open_search(Budget(rows=1000)).find_page, open_search(Budget(rows=1000)).count):
        with pytest.raises(BudgetExceeded, match=sentence):
            attempt(SLOW)
    # Each of the resources is a row of `resource` and one or two of `term`.
    assert open_search(Budget(rows=RESOURCES * 8)).count(SLOW) == 0


def test_the_rows_of_a_search_are_its_own(open_search: Callable[..., Search]) -> None:
    """Many searches on one connection, each within the limit, are never stopped together."""
    search = open_search(Budget(rows=5000))
    for number in range(300):
        page = search.find_page(query("Basic", Equals("own", (f"own{number}",))))
        assert [match.id for match in page.matches] == [f"{number:05}"]


def test_a_limit_by_rows_stops_the_search_of_a_store(large_file: Path) -> None:
    async def test(store: SqliteStore) -> None:
        with pytest.raises(BudgetExceeded, match="rows of the index"):
            await store.search(SLOW)
        assert await ids(store, "Basic", Equals("own", ("own7",))) == ["00007"]

    run_on_store(large_file, test, Budget(rows=1000))


def test_a_lane_without_patience_gives_a_search_up(open_search: Callable[..., Search]) -> None:
    impatient = open_search(Budget(), 0.0)
    with pytest.raises(Slow):
        for _ in range(50):
            impatient.count(SLOW)
    assert open_search(Budget()).count(SLOW) == 0


def test_what_the_ordinary_lane_gives_up_is_answered_by_the_slow_one(
    large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.0)
    where = Has("Basic", "link", Contains("own", "own7"))

    async def test(store: SqliteStore) -> None:
        for _ in range(20):
            assert await store.count(SLOW) == 0
            assert await ids(store, "Basic", where) == []
            assert await ids(store, "Basic", Equals("own", ("own7",))) == ["00007"]

    run_on_store(large_file, test)


class _SlowSearches:
    """In the place of `Search.find_page`: a slow search waits for `go`, and ends where somebody else would wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self._patience: dict[int, float | None] = {}
        real, begin = Search.find_page, Meter.__init__
        slow_searches = self

        def begin_meter(meter: Meter, *arguments: object) -> None:
            begin(meter, *arguments)  # type: ignore[arg-type]
            slow_searches._patience[id(meter)] = arguments[2]  # type: ignore[assignment]

        def find_page(search: Search, query: Query) -> Page:
            if query is SLOW:
                if slow_searches._patience[id(search._meter)] is not None:
                    raise Slow
                slow_searches.go.wait(30)
            return real(search, query)

        monkeypatch.setattr(Meter, "__init__", begin_meter)
        monkeypatch.setattr(Search, "find_page", find_page)


def test_slow_searches_keep_no_other_waiting(large_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_searches = _SlowSearches(monkeypatch)

    async def test(store: SqliteStore) -> None:
        slow = [asyncio.create_task(store.search(SLOW)) for _ in range(store_module.READERS + 1)]
        try:
            for _ in range(20):
                page = await asyncio.wait_for(store.search(EASY), 20)
                assert [match.id for match in page.matches] == ["00007"]
            assert not any(task.done() for task in slow)
        finally:
            slow_searches.go.set()
        assert [page.matches for page in await asyncio.gather(*slow)] == [()] * len(slow)

    run_on_store(large_file, test)


def test_more_slow_searches_than_can_wait_are_refused(large_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_searches = _SlowSearches(monkeypatch)

    async def test(store: SqliteStore) -> None:
        tasks = [asyncio.create_task(store.search(SLOW)) for _ in range(store_module.MOST_SLOW + 2)]
        try:
            done, waiting = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 2:
                done, waiting = await asyncio.wait(tasks, timeout=0.01)
            refused = [task.exception() for task in done]
            assert all(isinstance(error, BudgetExceeded) for error in refused)
            assert {str(error) for error in refused} == {
                "The search is slow, and 8 slow searches are being answered already."
            }
            assert len(waiting) == store_module.MOST_SLOW
        finally:
            slow_searches.go.set()
        assert all(not page.matches for page in await asyncio.gather(*waiting))

    run_on_store(large_file, test)


def test_a_query_over_no_type_needs_nothing(open_search: Callable[..., Search]) -> None:
    assert open_search(Budget(rows=1)).find_page(Query((Scope("Basic"),), count=0)).matches == ()


def test_what_is_remembered_of_searches_stays_small(open_search: Callable[..., Search]) -> None:
    """Each search may name thousands of values; how many each finds is remembered, but not of all that ever came."""
    search = open_search(Budget())
    for number in range(30):
        search.find_page(query("Basic", Equals("own", tuple(f"{number} {value}" for value in range(4000)))))
    named = sum(len(clause.terms) for _, clause in search._sizes._clauses if isinstance(clause, Equals))
    assert 4000 <= named <= 50_000


@pytest.mark.parametrize(("alternatives", "padded"), [(32, 32), (33, 64), (64, 64), (65, 128), (300, 400)])
def test_long_alternatives_are_asked_in_few_lengths(large_file: Path, alternatives: int, padded: int) -> None:
    """SQLite keeps the text of each statement: one for each length would take hundreds of megabytes."""
    connection, names = connect(large_file, writer=False), Names()
    names.refresh(connection)
    where = Or(tuple(StartsWith("own", f"own{number}") for number in range(100, 100 + alternatives)))
    clause = expand_clause(where, "Basic", Context(names, connection))
    assert isinstance(clause, Or) and len(clause.clauses) == padded and set(clause.clauses) == set(where.clauses)
    matches = Search(connection, names, Sizes()).find_page(query("Basic", where, count=RESOURCES)).matches
    connection.close()
    numbers = [number for number in range(RESOURCES) if 100 <= int(str(number)[:3]) < 100 + alternatives]
    assert [match.id for match in matches] == [f"{number:05}" for number in numbers if number >= 100]
