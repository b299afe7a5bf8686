"""What a purge leaves in the bytes of an SQLite file (https://www.sqlite.org/pragma.html#pragma_secure_delete)."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from fhir_server.search.words import TEXT
from fhir_server.store.contract.case import Ticks, delete, purge, put, string, terms, write
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.sqlite import SqliteStore, open_store
from tests.store.sqlite_runs import run_on_store

SECRET = "Xylophonia"
"""Stands in every version of the resource that is purged, and nowhere else."""

NAME = "Quetzalcoa"
"""Stands in its terms and trigrams, and in nothing else's."""

KILLED = """
import asyncio, sys
from pathlib import Path
from tests.store.test_sqlite_purge import fill, SqliteStore
from fhir_server.store.contract.case import Ticks, purge
from fhir_server.store.sqlite import open_store

async def main():
    store = await open_store(f"sqlite:///{sys.argv[1]}", Ticks())
    await fill(store)
    await purge(store, "Patient/secret")
    print("purged", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def write_named(id: str, name: str, size: int = 0, text: str = "") -> Write:
    entries = terms(name=[string(name)], code=[f"{name}{number}" for number in range(size // 10)])
    text = f"{text or name} " * (size // 10 + 1)
    return put(f"Patient/{id}", replace(entries, strings=frozenset({"name"})), text)


async def fill(store: SqliteStore) -> None:
    """The resource that will be purged, in four versions, large and small, among others that fill pages around it."""
    for number in range(300):
        await write(store, write_named(f"before{number}", f"Keller{number}", 300))
    for size in (20_000, 0, 3_000, 100):
        await write(store, write_named("secret", NAME, size, SECRET))
        await store.transact(Transaction(tuple(write_named(f"at{size}-{n}", f"Meier{n}", 200) for n in range(50))))
    for number in range(100):
        await write(store, write_named(f"before{number}", f"Weber{number}", 500))


def find_secret(path: Path, secret: str = SECRET) -> list[str]:
    """The files of the database in which it stands, in whatever case, or a beginning of it."""
    files = [Path(f"{path}{ending}") for ending in ("-wal", "", "-shm", ".lock")]  # in the order in which a text moves
    text = secret[:6].lower().encode()
    return [each.name for each in files if each.exists() and text in each.read_bytes().lower()]


async def wait_until_gone(path: Path) -> None:
    """Raises TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while find_secret(path):
            await asyncio.sleep(0.1)


def test_no_byte_of_it_stays_while_the_store_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await fill(store)
        assert find_secret(path)
        await purge(store, "Patient/secret")
        await wait_until_gone(path)
        assert (await store.read("Patient", "before1")) is not None

    run_on_store(path, test)


def test_the_index_keeps_it_in_gaps_at_most_until_a_vacuum(tmp_path: Path) -> None:
    """SQLite leaves copies of rows that it moved from page to page; `docs/operations/purge.md` says how they go."""
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await fill(store)
        assert find_secret(path, NAME)
        await purge(store, "Patient/secret")

    run_on_store(path, test)
    connection = sqlite3.connect(path)
    for table, column in (("term", "value"), ("gram", "value"), ("entries", "terms")):
        found = connection.execute(f"SELECT count(*) FROM {table} WHERE {column} LIKE '%{NAME}%'").fetchone()
        assert found == (0,), table
    connection.execute("VACUUM")
    connection.close()
    assert not find_secret(path, NAME)


def test_nor_of_one_that_was_deleted_before(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await fill(store)
        await write(store, delete("Patient/secret"))
        await write(store, *(write_named(f"after{number}", f"Huber{number}", 300) for number in range(100)))
        await purge(store, "Patient/secret")
        await wait_until_gone(path)

    run_on_store(path, test)


def test_a_reader_keeps_it_in_the_log_for_as_long_as_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await fill(store)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM version").fetchone()
        await purge(store, "Patient/secret")
        await asyncio.sleep(3)
        assert find_secret(path)
        async with asyncio.timeout(10):
            await write(store, put("Patient/other"))
        reader.execute("COMMIT")
        reader.close()
        await wait_until_gone(path)

    run_on_store(path, test)


def test_a_start_removes_what_a_killed_process_had_purged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"purged\n"
        os.kill(process.pid, signal.SIGKILL)
    assert find_secret(path)
    run_on_store(path, lambda store: wait_until_gone(path))


def test_its_words_leave_the_index_of_words(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def count_words(word: str) -> int:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE VIRTUAL TABLE temp.word USING fts5vocab(main, words_index, row)")
            count: int = connection.execute("SELECT count(*) FROM word WHERE term LIKE ?", (f"%{word}",)).fetchone()[0]
        connection.close()
        return count

    async def test(store: SqliteStore) -> None:
        for number in range(200):
            word = "xylophonia" if number == 77 else f"keller{number}"
            await write(store, put(f"Patient/{number}", replace(terms(), texts={TEXT: word})))
        assert count_words("xylophonia") == 1
        await purge(store, "Patient/77")
        async with asyncio.timeout(30):
            while count_words("xylophonia"):
                await asyncio.sleep(0.1)
        assert count_words("keller78") == 1

    run_on_store(path, test)


def test_a_purge_of_nothing_is_no_error(tmp_path: Path) -> None:
    run_on_store(tmp_path / "a.db", lambda store: purge(store, "Patient/none"))


def test_two_stores_of_one_file_empty_its_log(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        other = await open_store(f"sqlite:///{path}", Ticks())
        try:
            await fill(other)
            await store.read("Patient", "secret")
            await purge(store, "Patient/secret")
            await wait_until_gone(path)
        finally:
            await other.close()

    run_on_store(path, test)
