"""Answers of brief searches that are kept: always what a search would find now, whoever wrote, removed or purged."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import read_clock
from fhir_server.search.query import And, Bound, DateRange, Equals, Not, Or, Query
from fhir_server.store.contract.case import dates, delete, put, query, terms
from fhir_server.store.operations import Matches, Transaction, Write
from fhir_server.store.protocol import AssertionFailed, HistoryPage, HistoryQuery
from fhir_server.store.sqlite import open_store
from fhir_server.store.sqlite import store as sqlite_store
from fhir_server.store.sqlite.history import read_history
from fhir_server.store.sqlite.recent import compile_plain
from fhir_server.store.sqlite.standing import StandingAnswers
from fhir_server.store.sqlite.writer import Writer

pytestmark = pytest.mark.anyio

WHERE = And((Not(Equals("other", ("z",))), Equals("mark", ("x", "y"))))
ASKED = query("Patient", WHERE, brief=True, count=100)
SEARCHED = query("Patient", WHERE, count=100)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[sqlite_store.SqliteStore]:
    opened = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    yield opened
    await opened.close()


def patient(id: str, mark: str = "x", **more: list[str]) -> Write:
    return put(f"Patient/{id}", terms(mark=[mark], **more))


async def check(store: sqlite_store.SqliteStore) -> None:
    """What is kept is what a search finds, and an assertion about it holds."""
    page, searched = await store.search(ASKED), await store.search(SEARCHED)
    assert page.matches == searched.matches
    ids, versions = tuple(each.id for each in page.matches), tuple(each.version for each in page.matches)
    await store.transact(Transaction(assertions=(Matches(SEARCHED, ids, page.seen, versions),)))


async def test_an_answer_follows_the_writes_of_this_process_without_a_search(
    store: sqlite_store.SqliteStore, searches: list[Query]
) -> None:
    await store.transact(Transaction((patient("a"),)))
    assert [each.id for each in (await store.search(ASKED)).matches] == ["a"]
    searches.clear()
    await store.transact(Transaction((patient("b", "y"), patient("c", "w"), put("Observation/d", terms(mark=["x"])))))
    await store.transact(Transaction((patient("a", "w"), patient("e", other=["z"]))))
    page = await store.search(ASKED)
    assert [each.id for each in page.matches] == ["b"]
    await store.transact(Transaction((delete("Patient/b"), patient("c"))))
    page = await store.search(ASKED)
    assert [(each.id, each.version) for each in page.matches] == [("c", 2)]
    assert searches == []
    await check(store)


async def test_what_another_process_does_is_noticed(store: sqlite_store.SqliteStore, tmp_path: Path) -> None:
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    try:
        await store.transact(Transaction((patient("a"),)))
        await check(store)
        for change in (
            Transaction((patient("b"),)),
            Transaction((delete("Patient/b"),)),
            Transaction((patient("c"), patient("d"))),
            Transaction((patient("c", "w"),)),
            Transaction(purged=("Patient/d",)),
        ):
            await other.transact(change)
            await check(store)
            await store.transact(Transaction((patient("e"),)))
            await check(store)
            await other.transact(change)
            await store.transact(Transaction((patient("f", "w"), delete("Patient/e"))))
            await check(store)
    finally:
        await other.close()


async def test_few_writes_of_another_process_are_read_and_not_searched_for(
    store: sqlite_store.SqliteStore, tmp_path: Path, searches: list[Query]
) -> None:
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    try:
        await store.transact(Transaction((patient("a"), patient("b"))))
        await store.search(ASKED)
        searches.clear()
        await other.transact(Transaction((patient("c", "y"), patient("a", "w"))))
        await store.transact(Transaction((patient("d"),)))
        await other.transact(Transaction((patient("e", "w"), delete("Patient/b"), patient("d", "y"))))
        page = await store.search(ASKED)
        found = tuple((each.id, each.version) for each in page.matches)
        assert found == (("c", 1), ("d", 2))
        await other.transact(Transaction((patient("f", "w"),)))
        await store.transact(Transaction(assertions=(Matches(SEARCHED, ("c", "d"), page.seen, (1, 2)),)))
        assert searches == []
        assert page.matches == (await store.search(SEARCHED)).matches
        await other.transact(Transaction((patient("d", "x"),)))
        with pytest.raises(AssertionFailed):
            await store.transact(Transaction(assertions=(Matches(SEARCHED, ("c", "d"), page.seen, (1, 2)),)))
    finally:
        await other.close()


async def test_a_purge_of_this_process_is_noticed(store: sqlite_store.SqliteStore) -> None:
    await store.transact(Transaction((patient("a"), patient("b"))))
    await check(store)
    await store.transact(Transaction(purged=("Patient/b",)))
    await check(store)


async def test_what_is_asked_about_while_a_write_waits_for_its_commit(
    store: sqlite_store.SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had asked about the type when the write was announced."""
    await store.transact(Transaction((put("Observation/o", terms(mark=["x"])),)))
    await store.search(query("Observation", Equals("mark", ("x",)), brief=True, count=100))
    asked, announce, commit = threading.Event(), StandingAnswers.announce, Writer._commit_written

    def announce_and_wait(self: StandingAnswers, *announced: Any) -> None:
        announce(self, *announced)
        if threading.current_thread() is not threading.main_thread():
            asked.wait(20)

    def commit_late(self: Writer, written: Any, begun: threading.Lock) -> Any:
        begun.release()
        asked.wait(20)
        free = threading.Lock()
        free.acquire()
        return commit(self, written, free)

    monkeypatch.setattr(StandingAnswers, "announce", announce_and_wait)
    monkeypatch.setattr(Writer, "_commit_written", commit_late)
    writing = asyncio.create_task(store.transact(Transaction((patient("a"),))))
    await asyncio.sleep(0.2)
    assert not writing.done() and (await store.search(ASKED)).matches == ()
    asked.set()
    await writing
    assert [each.id for each in (await store.search(ASKED)).matches] == ["a"]
    await check(store)


async def test_many_writes_that_nobody_asked_about_are_searched_for(store: sqlite_store.SqliteStore) -> None:
    await check(store)
    for start in range(0, 2400, 800):
        await store.transact(Transaction(tuple(patient(f"p{n}", "w") for n in range(start, start + 800))))
    await store.transact(Transaction((patient("p7"),)))
    await check(store)


async def test_writes_at_random_beside_questions_of_two_processes(
    store: sqlite_store.SqliteStore, tmp_path: Path
) -> None:
    rng = random.Random(7)
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)

    async def write() -> None:
        for _ in range(60):
            id = f"p{rng.randrange(12)}"
            more = {"other": ["z"]} if rng.random() < 0.2 else {}
            change = patient(id, rng.choice("xyw"), **more) if rng.random() < 0.8 else delete(f"Patient/{id}")
            await rng.choice((store, store, other)).transact(Transaction((change,)))

    async def ask() -> None:
        for _ in range(60):
            page = await store.search(ASKED)
            ids, versions = tuple(each.id for each in page.matches), tuple(each.version for each in page.matches)
            try:
                await store.transact(Transaction(assertions=(Matches(SEARCHED, ids, page.seen, versions),)))
            except AssertionFailed:
                await asyncio.sleep(0)

    try:
        await asyncio.gather(write(), write(), ask(), ask())
        await check(store)
    finally:
        await other.close()


async def test_a_new_version_of_a_match_fails_an_assertion_of_versions(store: sqlite_store.SqliteStore) -> None:
    await store.transact(Transaction((patient("a"),)))
    page = await store.search(ASKED)
    await store.transact(Transaction((patient("a", "y"),)))
    with pytest.raises(AssertionFailed):
        await store.transact(Transaction(assertions=(Matches(SEARCHED, ("a",), page.seen, (1,)),)))
    await store.transact(Transaction(assertions=(Matches(SEARCHED, ("a",), page.seen),)))


@pytest.fixture
def histories(monkeypatch: pytest.MonkeyPatch) -> list[HistoryQuery]:
    """The histories that are read from the file."""
    read: list[HistoryQuery] = []

    def read_and_note(connection: Any, names: Any, query: HistoryQuery) -> HistoryPage:
        read.append(query)
        return read_history(connection, names, query)

    monkeypatch.setattr(sqlite_store, "read_history", read_and_note)
    return read


async def test_a_brief_history_is_read_again_when_its_types_were_written(
    store: sqlite_store.SqliteStore, histories: list[HistoryQuery]
) -> None:
    await store.transact(Transaction((patient("a"),)))
    asked = HistoryQuery(("Patient",), since=0, count=10, brief=True)
    for id in ("b", "c"):
        first = await store.history(asked)
        histories.clear()
        await store.transact(Transaction((put("Observation/d", terms(mark=["x"])),)))
        assert (await store.history(asked)).versions == first.versions and histories == []
        await store.transact(Transaction((patient(id),)))
        assert id in [each.id for each in (await store.history(asked)).versions]


async def test_a_history_that_goes_on_from_its_horizon_is_not_read_while_its_types_are_not_written(
    store: sqlite_store.SqliteStore, tmp_path: Path, histories: list[HistoryQuery]
) -> None:
    """As the calendars of a site are followed: each look begins where the one before saw the end."""
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    try:
        await store.transact(Transaction((patient("a"),)))
        since = 0
        for turn in range(4):
            page = await store.history(HistoryQuery(("Patient",), since=since, count=10, brief=True))
            whole = await store.history(HistoryQuery(("Patient",), since=since, count=10))
            assert (page.versions, page.next, page.horizon) == (whole.versions, None, whole.horizon)
            since = page.horizon
            await (store, other)[turn % 2].transact(Transaction((put("Observation/d", terms(mark=[f"{turn}"])),)))
        assert [query.brief for query in histories].count(True) == 1
        await other.transact(Transaction((patient("b"),)))
        page = await store.history(HistoryQuery(("Patient",), since=since, count=10, brief=True))
        assert [each.id for each in page.versions] == ["b"]
    finally:
        await other.close()


async def test_a_kept_history_answers_only_what_it_says(
    store: sqlite_store.SqliteStore, histories: list[HistoryQuery]
) -> None:
    await store.transact(Transaction((patient("a"),)))
    await store.transact(Transaction((patient("b"),)))
    late = max(each.last_updated for each in (await store.history(HistoryQuery(("Patient",), count=9))).versions)
    for asked in (
        HistoryQuery(("Patient",), since=late, count=9, brief=True),
        HistoryQuery(("Patient",), since=late - 1, count=9, brief=True),
        HistoryQuery(("Patient",), since=0, count=9, brief=True),
        HistoryQuery(("Patient",), since=late, count=9, brief=True),
        HistoryQuery(("Patient",), since=late + 1, count=9, brief=True),
        HistoryQuery(("Patient",), count=9, brief=True),
        HistoryQuery(("Patient",), "a", count=9, brief=True),
        HistoryQuery(("Patient",), at=(0, 1), count=9, brief=True),
        HistoryQuery(("Patient",), count=1, brief=True),
        HistoryQuery(("Observation",), count=9, brief=True),
    ):
        page = await store.history(asked)
        assert page == await store.history(replace(asked, brief=False)), asked


DAY = 86_400_000_000


def of_day(day: int, actor: str = "a") -> And:
    """As a day of an actor is asked for: what begins shortly before or on it, or is tagged and began earlier."""
    usual, long = (
        DateRange("date", (Bound("low", "ge", day * DAY - before), Bound("low", "lt", (day + 1) * DAY)))
        for before in (DAY // 12, 300 * DAY)
    )
    return And((Equals("actor", (actor,)), Or((usual, And((long, Equals("tag", ("long",))))))))


def visit(id: str, day: float, actor: str = "a", *tags: str) -> Write:
    start = int(day * DAY)
    entries = terms(actor=[actor], tag=tags)
    return put(f"Patient/{id}", replace(entries, dates=dates(date=[(start, start)]).dates))


async def test_answers_about_days_are_what_searches_find(store: sqlite_store.SqliteStore, tmp_path: Path) -> None:
    rng = random.Random(3)
    wheres: list[Any] = [of_day(day, actor) for day in range(-3, 4) for actor in "ab"]
    wheres += [And((Equals("actor", ("a",)), Equals("tag", ("long", "x")))), Equals("actor", ("a", "b"))]
    wheres += [And((Not(Equals("tag", ("x",))), of_day(1)))]
    asked = [query("Patient", where, brief=True, count=100) for where in wheres]
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    try:
        for number in range(120):
            id, day = f"p{rng.randrange(15)}", rng.choice((-3, -2.95, 0, 0.01, 1, 1.95, 2, 3.5))
            change = visit(id, day, rng.choice("abc"), *rng.sample(("long", "x", "y"), rng.randrange(3)))
            change = change if rng.random() < 0.8 else delete(f"Patient/{id}")
            await rng.choice((store, store, other)).transact(Transaction((change,)))
            for each in asked if number % 10 == 9 else rng.sample(asked, 4):
                page, searched = await store.search(each), await store.search(replace(each, brief=False))
                assert page.matches == searched.matches, each
    finally:
        await other.close()


async def test_a_write_is_compared_with_the_answers_of_its_day_alone(
    store: sqlite_store.SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []

    def compile_and_note(clause: Any) -> Any:
        matches = compile_plain(clause)
        assert matches is not None

        def match_and_note(candidate: Any) -> bool:
            compared.append(candidate)
            return matches(candidate)

        return match_and_note

    monkeypatch.setattr("fhir_server.store.sqlite.standing.compile_plain", compile_and_note)
    asked = [query("Patient", of_day(day), brief=True, count=100) for day in range(60)]
    await store.transact(Transaction((visit("p", 3.5),)))
    for each in asked:
        await store.search(each)
    await store.transact(Transaction((visit("q", 30.5),)))
    assert [each.id for each in (await store.search(asked[30])).matches] == ["q"]
    assert len(compared) == 2  # with the next day as well, as what began late may be of it
    await store.transact(Transaction((visit("r", 20.99),)))
    assert (await store.search(asked[30])).matches != () and len(compared) == 4


async def test_other_processes_are_looked_at_once_in_a_turn_of_the_event_loop(
    store: sqlite_store.SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, follow = [], StandingAnswers._follow

    def follow_and_note(self: StandingAnswers, connection: Any, looked: bool = False) -> None:
        looks.append(connection)
        follow(self, connection, looked)

    await store.search(ASKED)
    await asyncio.sleep(0)
    monkeypatch.setattr(StandingAnswers, "_follow", follow_and_note)
    for _ in range(5):
        assert (await store.search(ASKED)).matches == ()
    assert len(looks) == 1
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    await other.transact(Transaction((patient("a"),)))
    await other.close()
    for _ in range(5):
        assert [each.id for each in (await store.search(ASKED)).matches] == ["a"]
    assert len(looks) == 2
