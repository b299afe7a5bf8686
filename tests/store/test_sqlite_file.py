"""The SQLite file: its schema and migrations, backup, and what several processes must agree on (sqlite/schema.py)."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from fhir_server.search.query import And, Equals, Present
from fhir_server.store.contract.case import (
    HOUR,
    Ticks,
    dates,
    delete,
    ids,
    numbers,
    post,
    purge,
    put,
    reindex,
    terms,
    write,
)
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import HistoryQuery, StoreUnavailable, ValuePage
from fhir_server.store.sqlite import SqliteStore, open_store, schema
from tests.store.sqlite_runs import run_on_store


async def _do_nothing(store: SqliteStore) -> None:
    await store.check_ready()


def _read_version(path: Path) -> int:
    connection = sqlite3.connect(path)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return version


@pytest.mark.parametrize("uri", ["sqlite://a.db", "sqlite:///", "sqlite:///a.db?mode=rw", "memory://", "a.db"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="Use `sqlite:///PATH`"):
        asyncio.run(open_store(uri, Ticks()))


def test_a_relative_path_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_on_store(Path("clinic.db"), _do_nothing)
    assert (tmp_path / "clinic.db").is_file()


def test_a_new_file_has_the_newest_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    run_on_store(path, _do_nothing)
    assert _read_version(path) == len(schema.MIGRATIONS)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.db"
    with pytest.raises(StoreUnavailable, match="cannot be opened; check that its folder exists") as refused:
        run_on_store(path, _do_nothing)
    assert f"`{path}`" in str(refused.value)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    run_on_store(path, _do_nothing)
    newer = len(schema.MIGRATIONS) + 1
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(StoreUnavailable, match=f"schema version {newer}, made by a newer server") as refused:
        run_on_store(path, _do_nothing)
    assert str(path) in str(refused.value)


def test_an_older_file_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"

    async def fill(store: SqliteStore) -> None:
        await write(store, put("Patient/a", terms(code=["x"])))

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE meta ADD COLUMN note TEXT")

    async def check(store: SqliteStore) -> None:
        assert await ids(store, "Patient", Equals("code", ("x",))) == ["a"]

    run_on_store(path, fill)
    before = _read_version(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_column))
    run_on_store(path, check)
    run_on_store(path, check)
    assert _read_version(path) == before + 1


def test_values_of_the_first_schema_stay_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"

    async def compare(store: SqliteStore) -> None:
        assert await store.get_value("job") == b"one"
        assert await store.get_value("") is None
        assert await store.list_values("") == ValuePage((("a%b", b"two"), ("job", b"one")), None)

    async def change(store: SqliteStore) -> None:
        assert await store.put_value_if("job", b"three", b"one") is True

    connection = schema.connect(path, writer=True, create=True)
    with monkeypatch.context() as first:
        first.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        schema.migrate(connection, path)
    connection.execute("INSERT INTO meta VALUES ('kept job', ?), ('kept a%b', ?), ('later', 1)", (b"one", b"two"))
    connection.close()
    run_on_store(path, compare, options="?mode=ro")
    assert _read_version(path) == 1
    run_on_store(path, compare)
    run_on_store(path, change)
    assert _read_version(path) == len(schema.MIGRATIONS)


def test_expired_values_leave_the_file(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", Ticks()

    async def fill(store: SqliteStore) -> None:
        for number in range(5):
            await store.put_value_if(f"key {number}", b"x", None, clock.now + HOUR)
        clock.forward(HOUR)
        await store.put_value_if("last", b"x", None)

    run_on_store(path, fill, clock=clock)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT key FROM value").fetchall() == [("last",)]
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    run_on_store(path, _do_nothing)
    before = _read_version(path)

    def break_off(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE term")
        connection.execute("DROP TABLE nowhere")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, break_off))
    with pytest.raises(StoreUnavailable, match="no such table: nowhere"):
        run_on_store(path, _do_nothing)
    monkeypatch.undo()
    assert _read_version(path) == before
    run_on_store(path, _do_nothing)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 100)
    with pytest.raises(StoreUnavailable, match="not an SQLite database"):
        run_on_store(path, _do_nothing)


def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE invoice (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="tables of another program"):
        run_on_store(path, _do_nothing)
    assert path.read_bytes() == before


def test_a_store_without_file_is_the_one_in_memory() -> None:
    with pytest.raises(ValueError, match="use `memory://`"):
        asyncio.run(open_store("sqlite:///:memory:", Ticks()))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="check that its folder exists"):
        run_on_store(tmp_path / "nowhere" / "a.db", _do_nothing)


def test_a_backup_is_a_database_of_its_own(tmp_path: Path) -> None:
    """Made while others write: it is one moment of the store, whole."""
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    seen: list[tuple[int, int]] = []

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction(tuple(post(f"Patient/{n}", terms(code=["x"])) for n in range(2000))))
        stop = asyncio.Event()

        async def go_on() -> int:
            number = 0
            while not stop.is_set():
                await write(store, post(f"Patient/later{number}a"), post(f"Patient/later{number}b"))
                number += 1
            return number

        writing = asyncio.create_task(go_on())
        await store.backup(copy, lambda done, total: seen.append((done, total)))
        stop.set()
        assert await writing > 0
        secret = await store.page_key()

        async def check(other: SqliteStore) -> None:
            assert await other.page_key() == secret
            assert len(await ids(other, "Patient", Equals("code", ("x",)))) == 1000  # a page at most
            later = [id for id in await ids(other, "Patient", And()) if id.startswith("later")]
            assert len(later) % 2 == 0
            assert (await write(other, put("Patient/0"))).written[0].version == 2

        other = await open_store(f"sqlite:///{copy}", Ticks())
        try:
            await check(other)
        finally:
            await other.close()

    run_on_store(path, test)
    assert seen[-1][0] == seen[-1][1] > 0
    assert sorted(done for done, _ in seen) == [done for done, _ in seen]
    assert not list(tmp_path.glob("*.partial"))


def test_a_backup_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    """What was copied so far could be what fills the disk of the database."""

    def fail_as_full(done: int, total: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/a"))
        with pytest.raises(StoreUnavailable):
            await store.backup(tmp_path / "copies" / "b.db", fail_as_full)
        assert list((tmp_path / "copies").iterdir()) == []
        await write(store, put("Patient/b"))
        assert await ids(store, "Patient", And()) == ["a", "b"]

    (tmp_path / "copies").mkdir()
    run_on_store(tmp_path / "a.db", test)


def test_two_processes_agree_on_names(tmp_path: Path) -> None:
    """Each learns the other's parameters; an update removes rows of parameters that only the other one has seen."""
    path, clock = tmp_path / "a.db", Ticks()

    async def test(store: SqliteStore) -> None:
        other = await open_store(f"sqlite:///{path}", clock)
        await write(store, put("Patient/a", terms(one=["x"])))
        await write(other, put("Patient/a", terms(two=["y"])))
        assert await ids(store, "Patient", Equals("two", ("y",))) == ["a"]
        assert await ids(other, "Patient", Equals("one", ("x",))) == []
        await write(other, put("Group/g", terms(three=["z"])))
        await write(store, delete("Group/g"), put("Patient/a"))
        assert await ids(other, "Group", Present("three")) == []
        assert await ids(other, "Patient", Present("two")) == []
        await other.close()

    run_on_store(path, test, clock=clock)


def test_a_purge_takes_every_row_and_gives_no_number_twice(tmp_path: Path) -> None:
    """Change tokens and horizons that were given out stay valid when the newest resource goes."""
    path, clock = tmp_path / "a.db", Ticks()

    async def test(store: SqliteStore) -> None:
        await write(store, put("Patient/kept", terms(code=["x"])))
        clock.forward(HOUR)
        await write(store, put("Patient/gone", terms(code=["x"], link=["Patient/kept"])))
        await write(store, put("Patient/gone", dates(date=[(1, 2)])))
        token, horizon = (await store.read_changes(None)).token, (await store.history(HistoryQuery())).horizon
        await purge(store, "Patient/gone")
        assert (await store.read_changes(token)).versions == ()
        assert (await store.history(HistoryQuery())).horizon == horizon
        clock.forward(-HOUR)
        (written,) = (await write(store, put("Patient/new"))).written
        assert written.last_updated >= horizon
        assert [version.id for version in (await store.read_changes(token)).versions] == ["new"]

    run_on_store(path, test, clock=clock)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT ref FROM resource ORDER BY ref").fetchall() == [
        ("Patient/kept",),
        ("Patient/new",),
    ]
    for table in ("link", "date", "number"):
        assert connection.execute(f"SELECT * FROM {table}").fetchall() == []
    for table, count in (("version", 2), ("entries", 2), ("term", 1)):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)
    connection.close()


def test_reindex_goes_in_batches_beside_other_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        writes = [post(f"Patient/{n:03}", terms(old=[f"v{n}"])) for n in range(450)]
        await store.transact(Transaction((*writes, post("Group/g", terms(old=["kept"])))))
        entries = terms(new=["y"], link=["Patient/later"], references=["Patient/later"])
        indexing = asyncio.create_task(reindex(store, ["Patient"], lambda type, raw: entries))
        await write(store, put("Patient/000", numbers(value=[("", 1.0, 1.0, "")])))
        assert await indexing == 450
        assert await ids(store, "Patient", Present("old")) == []
        assert len(await ids(store, "Patient", Equals("new", ("y",)))) >= 449
        assert len(await ids(store, "Patient", Equals("link", ("Patient/later",)))) >= 449
        assert await ids(store, "Group", Present("old")) == ["g"]

    run_on_store(path, test)


def test_the_log_is_folded_beside_the_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the writing goes on, the log begins anew instead of growing (https://www.sqlite.org/wal.html)."""
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint.WRITES", 20)
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint._LONGEST_LOG", 100)
    # at the start the log is emptied; all of these writes may come while that waits for a pause between them
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint._LONGEST_WAIT_MS", 1)
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        for number in range(400):
            await write(store, post(f"Patient/{number}", terms(code=[f"v{number}"]), text="x" * 5000))
        written = 400 * 5000
        assert path.stat().st_size > written // 2
        assert (tmp_path / "a.db-wal").stat().st_size < written

    run_on_store(path, test)


def test_the_log_is_folded_beside_a_reindex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its resources count as writes: what it logs comes into the file while nothing else is written."""
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint.WRITES", 100)
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint._IDLE_SECONDS", 3600.0)
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, *(post(f"Patient/{number}") for number in range(90)))
        before = path.stat().st_size
        values = [f"v{number:03}" * 20 for number in range(200)]
        assert await reindex(store, ["Patient"], lambda type, raw: terms(code=values)) == 90
        async with asyncio.timeout(10):
            while path.stat().st_size < before + 90 * 200 * 80:
                await asyncio.sleep(0.02)

    run_on_store(path, test)


def test_the_log_is_folded_when_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.store.sqlite.checkpoint._IDLE_SECONDS", 0.05)
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, post("Patient/a", text="x" * 50_000))
        async with asyncio.timeout(10):
            while path.stat().st_size < 50_000:
                await asyncio.sleep(0.02)

    run_on_store(path, test)
