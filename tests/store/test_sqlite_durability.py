"""What the SQLite store keeps when processes are killed, the disk is full or several processes write (design.md §4)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fhir_server.search.query import Equals
from fhir_server.store.contract.case import Ticks, delete, ids, post, put, terms, write
from fhir_server.store.operations import Transaction, VersionIs
from fhir_server.store.protocol import AssertionFailed, StoreUnavailable
from fhir_server.store.sqlite import SqliteStore, open_store
from fhir_server.store.sqlite.rows import IndexRows, columns_to_keys
from tests.store.sqlite_runs import run_on_store

ROOT = Path(__file__).resolve().parents[2]

# Each transaction makes a Patient and two Observations of it and changes the one resource that all of them share; the
# number is printed once the store says that it is durable.
WRITER = """
import asyncio, sys, time
from fhir_server.store.contract.case import post, put, terms
from fhir_server.store.operations import Transaction
from fhir_server.store.sqlite import open_store

async def main(path, name, most):
    store = await open_store(f"sqlite:///{path}", lambda: time.time_ns() // 1000)
    async def forever(task):
        for number in range(most):
            id = f"{name}-{task}-{number}"
            patient = f"Patient/{id}"
            writes = [post(patient, terms(identifier=[id]))]
            for part in "ab":
                entries = terms(patient=[patient], code=["c"], references=[patient])
                writes.append(post(f"Observation/{id}{part}", entries))
            writes.append(put("Basic/shared", terms(code=[id])))
            await store.transact(Transaction(tuple(writes), required=(patient,)))
            print(id, flush=True)
    await asyncio.gather(*map(forever, range(4)))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(path: Path, name: str, most: int = 10**6) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(path), name, str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def assert_whole(path: Path) -> set[str]:
    """The file is sound and its index, history and resources agree; returns the ids of the patients."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    codes = {name: code for code, name in connection.execute("SELECT code, name FROM name")}
    numbers = dict(connection.execute("SELECT ref, rid FROM resource"))
    expected = IndexRows()
    columns_of_all = "SELECT r.ref, r.rid, e.quick, e.terms, e.numbers FROM resource r JOIN entries e USING (rid)"
    for reference, rid, *columns in connection.execute(f"{columns_of_all} WHERE r.deleted = 0"):
        type = reference.partition("/")[0]
        codes_of_type = {name.partition(".")[2]: code for name, code in codes.items() if name.partition(".")[0] == type}
        expected.add(columns_to_keys((columns[0], columns[1], columns[2]), codes_of_type), numbers, rid)
    for table, rows in expected.list_tables():
        assert sorted(connection.execute(f"SELECT * FROM {table}")) == sorted(rows), table
    gaps = "SELECT rid FROM version GROUP BY rid HAVING count(*) <> max(version)"
    assert connection.execute(gaps).fetchall() == []
    stale = (
        "SELECT r.ref FROM resource r LEFT JOIN version v ON v.seq = r.seq WHERE r.version > 0"
        " AND (v.rid IS NOT r.rid OR v.version <> r.version OR (v.raw IS NULL) <> r.deleted)"
    )
    assert connection.execute(stale).fetchall() == []
    patients = {reference[8:] for reference in numbers if reference.startswith("Patient/")}
    observations = {reference[12:] for reference in numbers if reference.startswith("Observation/")}
    assert observations == {id + part for id in patients for part in "ab"}
    shared = connection.execute("SELECT version FROM resource WHERE ref = 'Basic/shared'").fetchone()
    assert (shared or (0,)) == (len(patients),)  # each transaction made one version of it
    connection.close()
    return patients


def kill_in_a_while(path: Path, name: str, seconds: float) -> set[str]:
    """The ids that a writer, killed after so long, said were durable."""
    child = start_writer(path, name)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate()
    lines = [first, *said.splitlines(keepends=True)]
    return {line.strip() for line in lines if line.endswith("\n")}


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    _kill_loop(tmp_path, 3)


@pytest.mark.long
def test_many_killed_processes_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    _kill_loop(tmp_path, 60)


def _kill_loop(folder: Path, rounds: int) -> None:
    path, chance, acknowledged = folder / "killed.db", random.Random(11), set[str]()
    for number in range(rounds):
        acknowledged |= kill_in_a_while(path, f"r{number}", chance.uniform(0.02, 0.4))
        present = assert_whole(path)
        assert acknowledged <= present
        acknowledged = present
    assert len(acknowledged) > rounds


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    children = [start_writer(path, f"p{number}", most=25) for number in range(4)]
    said = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert assert_whole(path) == {id for ids in said for id in ids}
    assert sum(map(len, said)) == 4 * 4 * 25


async def run_on_writer(store: SqliteStore, statement: str) -> Any:
    """The answer of a statement on the connection that writes."""
    return await store._writer.submit(lambda connection: connection.execute(statement).fetchone()[0])


def test_commits_are_flushed_to_the_disk(tmp_path: Path) -> None:
    """PRAGMA synchronous: 2 is FULL, an fsync at each commit (https://www.sqlite.org/pragma.html#pragma_synchronous)."""

    async def test(store: SqliteStore) -> None:
        assert await run_on_writer(store, "PRAGMA synchronous") == 2
        assert await run_on_writer(store, "PRAGMA journal_mode") == "wal"

    run_on_store(tmp_path / "a.db", test)


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "full.db"

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/before", terms(code=["a"])))
        pages = await run_on_writer(store, "PRAGMA page_count")
        assert await run_on_writer(store, f"PRAGMA max_page_count = {pages + 3}") == pages + 3
        large = post("Patient/large", terms(code=["b"]), text="x" * 100_000)
        with pytest.raises(StoreUnavailable, match="disk of the database is full; nothing was written"):
            await write(store, put("Patient/before", terms(code=["b"])), large)
        assert await ids(store, "Patient", Equals("code", ("b",))) == []
        assert await store.read("Patient", "large") is None
        before = await store.read("Patient", "before")
        assert before is not None and before.version == 1
        await run_on_writer(store, "PRAGMA max_page_count = 1000000")
        await write(store, large)
        assert await ids(store, "Patient", Equals("code", ("b",))) == ["large"]

    run_on_store(path, test)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_fails_only_what_does_not_fit(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/before", terms(code=["a"])))
        pages = await run_on_writer(store, "PRAGMA page_count")
        await run_on_writer(store, f"PRAGMA max_page_count = {pages + 3}")
        large = [write(store, post(f"Patient/large{n}", text="x" * 100_000)) for n in range(2)]
        small = [write(store, put("Patient/before", terms(code=["a"]), text=str(n))) for n in range(2)]
        outcomes = await asyncio.gather(large[0], *small, large[1], return_exceptions=True)
        assert [isinstance(outcome, StoreUnavailable) for outcome in outcomes] == [True, False, False, True]

    run_on_store(tmp_path / "full.db", test)


def test_one_refused_transaction_of_a_group_refuses_no_other(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        good = [write(store, post(f"Patient/{n}")) for n in range(5)]
        bad = store.transact(Transaction((post("Patient/x"),), (VersionIs("Patient", "0", 7),)))
        outcomes = await asyncio.gather(*good[:3], bad, *good[3:], return_exceptions=True)
        assert isinstance(outcomes[3], AssertionFailed)
        assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1
        found = await store.read_many([f"Patient/{id}" for id in "01234x"])
        assert sorted(found) == [f"Patient/{id}" for id in "01234"]

    run_on_store(tmp_path / "a.db", test)


def test_a_read_only_database_serves_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def fill(store: SqliteStore) -> None:
        await write(store, put("Patient/a", terms(code=["x"])))

    async def test(store: SqliteStore) -> None:
        found = await store.read("Patient", "a")
        assert found is not None and json.loads(found.raw or b"")["meta"]["versionId"] == "1"
        assert await ids(store, "Patient", Equals("code", ("x",))) == ["a"]
        for change in (put("Patient/b"), delete("Patient/a")):
            with pytest.raises(StoreUnavailable, match="read-only; nothing was written"):
                await write(store, change)
        assert await ids(store, "Patient", Equals("code", ("x",))) == ["a"]

    run_on_store(path, fill)
    run_on_store(path, test, options="?mode=ro")


@pytest.mark.skipif(os.geteuid() == 0, reason="file permissions do not bind root")
def test_a_file_without_write_permission_serves_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def fill(store: SqliteStore) -> None:
        await write(store, put("Patient/a"))

    async def test(store: SqliteStore) -> None:
        assert await store.read("Patient", "a") is not None
        with pytest.raises(StoreUnavailable, match="nothing was written"):
            await write(store, put("Patient/b"))

    run_on_store(path, fill)
    path.chmod(0o444)
    run_on_store(path, test)


@pytest.mark.parametrize("given_up", [StoreUnavailable, TimeoutError])
def test_another_process_in_its_turn_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_up: type[Exception]
) -> None:
    """A process that keeps its turn hangs no request for ever; what the store or its caller gave up is not written."""
    monkeypatch.setattr("fhir_server.store.sqlite.waiting.WAIT_SECONDS", 0.3 if given_up is StoreUnavailable else 30)
    path = tmp_path / "a.db"
    hold = (
        f"import fcntl, os, sys, time; lock = os.open({str(path) + '.lock'!r}, os.O_RDWR); "
        "fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/a"))
        other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(given_up):
            async with asyncio.timeout(0.3 if given_up is TimeoutError else None):
                await write(store, put("Patient/a", text="lost"))
        await asyncio.to_thread(other.communicate, "")
        (written,) = (await write(store, put("Patient/a", text="kept"))).written
        assert written.version == 2

    run_on_store(path, test)


def test_a_program_that_has_the_file_locked_holds_up_writes_alone(tmp_path: Path) -> None:
    """Short writes begin on the event loop, which must not wait for a lock: reads go on, the write comes later."""
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/a"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        waiting = asyncio.ensure_future(write(store, put("Patient/a", text="later")))
        await asyncio.sleep(0.2)
        stored = await store.read("Patient", "a")
        assert stored is not None and stored.version == 1
        assert time.monotonic() - began < 2
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        assert (await waiting).written[0].version == 2

    run_on_store(path, test)


def test_writes_wait_together_for_a_program_that_keeps_the_file_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One patience for all of a group: each waiting by itself, the last of many would be told after minutes."""
    monkeypatch.setattr("fhir_server.store.sqlite.writer.BUSY_MS", 200)
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.ensure_future(write(store, put(f"Patient/{number}"))) for number in range(50)]
        done, _ = await asyncio.wait(waiting, timeout=5)
        other.close()
        assert [type(each.exception()) for each in done] == [StoreUnavailable] * 50
        assert (await write(store, put("Patient/0"))).written[0].version == 1

    run_on_store(path, test)


def test_a_commit_that_fails_after_the_rows_were_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """The rows are written before the commit is handed over; each request of the group gets its own answer."""
    path = tmp_path / "a.db"

    class Failing:
        """A connection whose commits fail as those on a full disk do."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return self.connection.execute(statement, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/a"))
        writer = store._writer
        connection = writer._connection
        writer._connection = Failing(connection)  # type: ignore[assignment]
        answers = await asyncio.gather(
            *(write(store, put(f"Patient/{id}", text="lost")) for id in "abc"), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
        writer._connection = connection
        assert [await store.read("Patient", id) for id in "bc"] == [None, None]
        assert (await write(store, put("Patient/a", text="kept"))).written[0].version == 2

    run_on_store(path, test)


def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def run() -> None:
        store = await open_store(f"sqlite:///{path}", Ticks())
        waiting = [asyncio.ensure_future(write(store, post(f"Patient/{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        await store.close()
        assert [(await each).written[0].version for each in waiting] == [1] * 50
        with pytest.raises(StoreUnavailable, match="closed"):
            await write(store, put("Patient/late"))
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.read("Patient", "1")

    asyncio.run(run())
