"""What a search may take on SQLite: it is stopped by time and rows, and a slow one keeps no other waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fhir_server.search.query import Clause, Contains, Equals, Has, Not, Or, Query, Scope, StartsWith
from fhir_server.store.contract.case import Ticks, ids, put, query, terms
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Budget, BudgetExceeded, Page
from fhir_server.store.sqlite import SqliteStore, open_store
from fhir_server.store.sqlite import store as store_module
from fhir_server.store.sqlite.budget import Meter, Slow
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expand_clause
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search

RESOURCES = 6000
# Nothing can be entered by: each resource is tested, and none matches.
DEAR: Clause = Not(Or((Equals("a", ("x",)), Equals("a", ("y",)))))
SLOW = query("Basic", DEAR)
EASY = query("Basic", Equals("own", ("own7",)))


def with_store(path: Path, test: Callable[[SqliteStore], Awaitable[None]], budget: Budget | None = None) -> None:
    async def run() -> None:
        store = await open_store(f"sqlite:///{path}", Ticks(), budget or Budget())
        try:
            await test(store)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "many.db"

    async def fill(store: SqliteStore) -> None:
        writes = [
            put(f"Basic/{number:05}", terms(a=["x" if number % 2 else "y"], own=[f"own{number}"]))
            for number in range(RESOURCES)
        ]
        await store.transact(Transaction(tuple(writes)))

    with_store(path, fill)
    return path


@pytest.fixture
def search_with(many: Path) -> Iterator[Callable[..., Search]]:
    connection, names = connect(many, writer=False), Names()
    names.refresh(connection)
    yield lambda *given: Search(connection, names, Sizes(), *given)
    connection.close()


def test_a_search_that_looks_at_too_many_rows_is_stopped(search_with: Callable[..., Search]) -> None:
    sentence = "stopped after about 1,000 rows of the index, the most that one search may look at"
    for attempt in (search_with(Budget(rows=1000)).find_page, search_with(Budget(rows=1000)).count):
        with pytest.raises(BudgetExceeded, match=sentence):
            attempt(SLOW)
    # Each of the resources is a row of `resource` and one or two of `term`.
    assert search_with(Budget(rows=RESOURCES * 8)).count(SLOW) == 0


def test_the_rows_of_a_search_are_its_own(search_with: Callable[..., Search]) -> None:
    """Many searches on one connection, each within the limit, are never stopped together."""
    search = search_with(Budget(rows=5000))
    for number in range(300):
        found = search.find_page(query("Basic", Equals("own", (f"own{number}",))))
        assert [match.id for match in found.matches] == [f"{number:05}"]


def test_a_limit_by_rows_stops_the_search_of_a_store(many: Path) -> None:
    async def test(store: SqliteStore) -> None:
        with pytest.raises(BudgetExceeded, match="rows of the index"):
            await store.search(SLOW)
        assert await ids(store, "Basic", Equals("own", ("own7",))) == ["00007"]

    with_store(many, test, Budget(rows=1000))


def test_a_lane_without_patience_gives_a_search_up(search_with: Callable[..., Search]) -> None:
    impatient = search_with(Budget(), 0.0)
    with pytest.raises(Slow):
        for _ in range(50):
            impatient.count(SLOW)
    assert search_with(Budget()).count(SLOW) == 0


def test_what_the_ordinary_lane_gives_up_is_answered_by_the_slow_one(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.0)
    where = Has("Basic", "link", Contains("own", "own7"))

    async def test(store: SqliteStore) -> None:
        for _ in range(20):
            assert await store.count(SLOW) == 0
            assert await ids(store, "Basic", where) == []
            assert await ids(store, "Basic", Equals("own", ("own7",))) == ["00007"]

    with_store(many, test)


class _Held:
    """In the place of `Search.find_page`: a slow search waits for `go`, and ends where somebody else would wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self._patience: dict[int, float | None] = {}
        real, begin = Search.find_page, Meter.__init__
        held = self

        def begun(meter: Meter, *given: object) -> None:
            begin(meter, *given)  # type: ignore[arg-type]
            held._patience[id(meter)] = given[2]  # type: ignore[assignment]

        def page(search: Search, asked: Query) -> Page:
            if asked is SLOW:
                if held._patience[id(search._meter)] is not None:
                    raise Slow
                held.go.wait(30)
            return real(search, asked)

        monkeypatch.setattr(Meter, "__init__", begun)
        monkeypatch.setattr(Search, "find_page", page)


def test_slow_searches_keep_no_other_waiting(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _Held(monkeypatch)

    async def test(store: SqliteStore) -> None:
        slow = [asyncio.create_task(store.search(SLOW)) for _ in range(store_module.READERS + 1)]
        try:
            for _ in range(20):
                page = await asyncio.wait_for(store.search(EASY), 20)
                assert [match.id for match in page.matches] == ["00007"]
            assert not any(task.done() for task in slow)
        finally:
            held.go.set()
        assert [page.matches for page in await asyncio.gather(*slow)] == [()] * len(slow)

    with_store(many, test)


def test_more_slow_searches_than_can_wait_are_refused(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _Held(monkeypatch)

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
            held.go.set()
        assert all(not page.matches for page in await asyncio.gather(*waiting))

    with_store(many, test)


def test_a_query_over_no_type_needs_nothing(search_with: Callable[..., Search]) -> None:
    assert search_with(Budget(rows=1)).find_page(Query((Scope("Basic"),), count=0)).matches == ()


def test_what_is_remembered_of_searches_stays_small(search_with: Callable[..., Search]) -> None:
    """Each search may name thousands of values; how many each finds is remembered, but not of all that ever came."""
    search = search_with(Budget())
    for number in range(30):
        search.find_page(query("Basic", Equals("own", tuple(f"{number} {value}" for value in range(4000)))))
    named = sum(len(clause.terms) for _, clause in search._sizes._clauses if isinstance(clause, Equals))
    assert 4000 <= named <= 50_000


@pytest.mark.parametrize(("alternatives", "asked"), [(32, 32), (33, 64), (64, 64), (65, 128), (300, 400)])
def test_long_alternatives_are_asked_in_few_lengths(many: Path, alternatives: int, asked: int) -> None:
    """SQLite keeps the text of each statement: one for each length would take hundreds of megabytes."""
    connection, names = connect(many, writer=False), Names()
    names.refresh(connection)
    where = Or(tuple(StartsWith("own", f"own{number}") for number in range(100, 100 + alternatives)))
    clause = expand_clause(where, "Basic", Context(names, connection))
    assert isinstance(clause, Or) and len(clause.clauses) == asked and set(clause.clauses) == set(where.clauses)
    found = Search(connection, names, Sizes()).find_page(query("Basic", where, count=RESOURCES)).matches
    connection.close()
    numbers = [number for number in range(RESOURCES) if 100 <= int(str(number)[:3]) < 100 + alternatives]
    assert [match.id for match in found] == [f"{number:05}" for number in numbers if number >= 100]
