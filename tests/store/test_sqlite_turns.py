"""Turns that processes take on one file are counted, so that a process alone needs no look at what others wrote."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from fhir_server.app import read_clock
from fhir_server.search.query import Equals, Query
from fhir_server.store.contract.case import put, query, terms
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.sqlite import open_store, standing
from fhir_server.store.sqlite import store as sqlite_store
from fhir_server.store.sqlite.process_lock import Turnstile

pytestmark = pytest.mark.anyio

ASKED = query("Patient", Equals("mark", ("x",)), brief=True, count=100)

_KEEP_THE_TURN = """
import sys, time
from pathlib import Path
from fhir_server.store.sqlite.process_lock import Turnstile
turnstile = Turnstile(Path(sys.argv[1]))
assert turnstile.try_enter()
print("entered", flush=True)
time.sleep(60)
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[sqlite_store.SqliteStore]:
    opened = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    yield opened
    await opened.close()


def patient(id: str) -> Write:
    return put(f"Patient/{id}", terms(mark=["x"]))


async def find_ids(store: sqlite_store.SqliteStore) -> list[str]:
    return [each.id for each in (await store.search(ASKED)).matches]


def test_turns_of_others_are_counted_and_own_ones_are_not(tmp_path: Path) -> None:
    one, other = Turnstile(tmp_path / "f.db"), Turnstile(tmp_path / "f.db")
    assert one.count_others() == other.count_others() == 0
    for number in range(3):
        with one.wait_for_turn():
            assert not other.try_enter()
            assert (one.count_others(), other.count_others()) == (number, None)
        assert other.try_enter()
        assert (one.count_others(), other.count_others()) == (None, number + 1)
        other.leave()
        assert (one.count_others(), other.count_others()) == (number + 1, number + 1)
    one.close()
    assert one.count_others() is None
    late = Turnstile(tmp_path / "f.db")
    assert (late.count_others(), other.count_others()) == (6, 3)  # of all six, three of its own
    late.close()
    other.close()


def test_a_process_that_is_killed_in_its_turn_was_another(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "f.db")
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEP_THE_TURN, str(tmp_path / "f.db")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "entered\n"
        assert turnstile.count_others() is None and not turnstile.try_enter()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert turnstile.count_others() is None  # nobody has said that the turn is over: the file has to be looked at
    assert turnstile.try_enter()
    assert turnstile.count_others() == 1
    turnstile.leave()
    assert turnstile.count_others() == 1
    turnstile.close()


def test_where_no_place_can_be_had_nothing_is_known_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no such call here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    turnstile = Turnstile(tmp_path / "f.db")
    with turnstile.wait_for_turn():
        assert turnstile.count_others() is None
    assert turnstile.count_others() is None
    turnstile.close()


def test_a_lock_file_that_somebody_empties_starts_anew(tmp_path: Path) -> None:
    one, other = Turnstile(tmp_path / "f.db"), Turnstile(tmp_path / "f.db")
    for _ in range(3):
        with one.wait_for_turn():
            pass
    assert other.count_others() == 3
    os.truncate(tmp_path / "f.db.lock", 0)
    assert other.count_others() != 3
    with one.wait_for_turn():
        assert other.count_others() is None
    assert other.count_others() != 3
    one.close()
    other.close()


async def test_a_process_alone_reads_its_own_writes_without_a_look_at_the_file(
    store: sqlite_store.SqliteStore, searches: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_LOOK_SECONDS", 60)
    await store.transact(Transaction((patient("a"),)))
    assert await find_ids(store) == ["a"]
    searches.clear()
    statements: list[str] = []
    store._reading.set_trace_callback(statements.append)
    for number in range(5):
        await store.transact(Transaction((patient(f"b{number}"),)))
        assert await find_ids(store) == ["a", *(f"b{each}" for each in range(number + 1))]
    assert (statements, searches) == ([], [])


async def test_a_purge_and_work_on_the_file_are_looked_at(
    store: sqlite_store.SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_LOOK_SECONDS", 60)
    await store.transact(Transaction((patient("a"), patient("b"))))
    assert await find_ids(store) == ["a", "b"]
    await store.transact(Transaction(purged=("Patient/a",)))
    assert await find_ids(store) == ["b"]
    statements: list[str] = []
    assert await find_ids(store) == ["b"]
    store._reading.set_trace_callback(statements.append)
    assert await find_ids(store) == ["b"] and statements == []
    await store.reindex("Patient", lambda *_: terms(mark=["w"]), await store.registry_version())
    assert await find_ids(store) == [] and statements != []


async def test_what_another_program_writes_is_noticed_soon(store: sqlite_store.SqliteStore, tmp_path: Path) -> None:
    await store.transact(Transaction((patient("a"), patient("b"))))
    assert await find_ids(store) == ["a", "b"]
    with closing(sqlite3.connect(tmp_path / "fhir.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rid = connection.execute("SELECT rid FROM resource WHERE ref = 'Patient/b'").fetchone()[0]
        connection.execute("DELETE FROM term WHERE rid = ?", (rid,))
        connection.execute("INSERT INTO meta VALUES ('upkeep', 1) ON CONFLICT DO UPDATE SET value = value + 1")
        connection.execute("COMMIT")
    await asyncio.sleep(standing._LOOK_SECONDS)
    assert await find_ids(store) == ["a"]
