"""The database file: connections, tables, migrations, and SQLite's errors as the store's (https://www.sqlite.org/wal.html).

Each version's text is stored once, in `version`; `resource` holds the newest version's `seq`. Index rows exist for
current resources only, so that an index row always leads to a current resource:

    resource  rid, ref `Type/id`, type, version, updated (µs), seq of its newest version, deleted;
              version 0: never stored here, but referred to
    version   every version of every resource in commit order (`seq`)
    term      (tp, value, rid)    tp: the number of `Type.parameter` in `name`
    link      (tp, target, rid)   terms that are local references, by the target's rid: small, and neighbours of what
                                  was stored at the same time, while texts of random ids scatter over all pages.
                                  tp REFERENCES: every literal reference
    date      (tp, low, high, rid)
    number    (tp, key, rid, low, high, unit)    low, high: `rows.float_to_integer`; by resource, as neighbours too
    words     see `fulltext.py`; empty where full text is off
    gram      (tp, gram, value)   trigrams of the distinct terms of string parameters (`trigrams.py`)
    value     values under keys with their expiry (µs; NULL: never): `values.py`
    entries   the resource's index entries as JSON (`rows.Columns`)
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from fhir_server.store.protocol import StoreError, StoreUnavailable, TooLargeForStore

REFERENCES = 0
"""The `tp` under which every literal reference of a resource is a link."""

CACHE_KIB = {"writer": 32 * 1024, "reader": 8 * 1024}
PRIVATE = 0o600
"""The mode of files that hold patients' data."""

BUSY_MS = 10_000

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE name (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE resource (
  rid INTEGER PRIMARY KEY, ref TEXT NOT NULL, type INTEGER NOT NULL, version INTEGER NOT NULL,
  updated INTEGER NOT NULL, seq INTEGER NOT NULL, deleted INTEGER NOT NULL);
CREATE UNIQUE INDEX resource_ref ON resource (ref);
CREATE INDEX resource_updated ON resource (type, updated) WHERE deleted = 0;
CREATE TABLE version (
  seq INTEGER PRIMARY KEY, rid INTEGER NOT NULL, version INTEGER NOT NULL, type INTEGER NOT NULL,
  updated INTEGER NOT NULL, method TEXT NOT NULL, raw BLOB);
CREATE UNIQUE INDEX version_rid ON version (rid, version);
CREATE INDEX version_updated ON version (updated);
CREATE INDEX version_type ON version (type, updated);
CREATE TABLE term (
  tp INTEGER NOT NULL, value TEXT NOT NULL, rid INTEGER NOT NULL, PRIMARY KEY (tp, value, rid)) WITHOUT ROWID;
CREATE TABLE link (
  tp INTEGER NOT NULL, target INTEGER NOT NULL, rid INTEGER NOT NULL, PRIMARY KEY (tp, target, rid)) WITHOUT ROWID;
CREATE TABLE date (
  tp INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL, rid INTEGER NOT NULL,
  PRIMARY KEY (tp, low, high, rid)) WITHOUT ROWID;
CREATE INDEX date_high ON date (tp, high, low, rid);
CREATE TABLE number (
  tp INTEGER NOT NULL, key TEXT NOT NULL, rid INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
  unit TEXT NOT NULL, PRIMARY KEY (tp, key, rid, low, high, unit)) WITHOUT ROWID;
CREATE TABLE words (rid INTEGER PRIMARY KEY, type INTEGER NOT NULL, text TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE gram (
  tp INTEGER NOT NULL, gram TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tp, gram, value)) WITHOUT ROWID;
CREATE TABLE entries (rid INTEGER PRIMARY KEY, quick TEXT NOT NULL, terms TEXT NOT NULL, numbers TEXT NOT NULL);
"""


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('secret', ?), ('registry', 0)", (secrets.token_bytes(32),))


_OLD_KEYS = "FROM meta WHERE key >= 'kept ' AND key < 'kept!'"
_OLD_VALUES = f"SELECT substr(key, 6) AS key, value, NULL AS expires {_OLD_KEYS}"
"""Values under keys in a file of schema version 1, where they were rows of `meta`."""

_VALUES = f"""
CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER) WITHOUT ROWID;
CREATE INDEX value_expires ON value (expires) WHERE expires IS NOT NULL;
INSERT INTO value {_OLD_VALUES};
DELETE {_OLD_KEYS}
"""


def _move_values(connection: sqlite3.Connection) -> None:
    """Values under keys get a table of their own."""
    for statement in _VALUES.split(";"):
        connection.execute(statement)


Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: tuple[Migration, ...] = (_create_tables, _move_values)
"""Step n takes a file from schema version n to n + 1, inside one transaction; released steps never change."""


# One statement, so that both are of one moment: another process may be creating the file.
_FOREIGN = "SELECT user_version = 0, EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_user_version"


def make_private_file(path: Path) -> None:
    """Make an empty file for this user alone, unless one is there; SQLite gives the files beside it the same mode."""
    with suppress(OSError):  # what is wrong is told when the file is opened
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE))


def connect(path: Path, *, writer: bool, readonly: bool = False, create: bool = False) -> sqlite3.Connection:
    """A connection with the store's pragmas; a reader's cannot write. `create`: the file may be absent or empty.

    Raises sqlite3.Error, and StoreUnavailable when the file is another program's: that one is left as it is.
    """
    mode = "ro" if readonly else ("rwc" if create else "rw")
    if create:
        make_private_file(path)
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=BUSY_MS / 1000,
    )
    if writer and not readonly:
        unversioned, has_tables = connection.execute(_FOREIGN).fetchone()
        if unversioned and (has_tables or not create):
            connection.close()
            what = (
                "has the tables of another program; name another file" if has_tables else "is empty; restore a backup"
            )
            raise StoreUnavailable(f"The database `{path}` {what}.")
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # The thread of `checkpoint.py` usually does it long before.
        connection.execute("PRAGMA wal_autocheckpoint = 100000")
        # What is removed is overwritten: a purge would otherwise leave texts in free parts of the file.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_size_limit = 134217728")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB['writer' if writer else 'reader']}")
    connection.execute("PRAGMA temp_store = MEMORY")
    if not writer:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:  # open for reading only, and so not migrated
            connection.execute(f"CREATE TEMP VIEW value AS {_OLD_VALUES}")
        connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def begin_write(connection: sqlite3.Connection) -> Iterator[None]:
    """A database transaction that holds the write lock from its beginning; rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction, if it is open: SQLite itself ends it on some errors, a full disk among them."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this server's schema version; one transaction per step.

    Raises StoreUnavailable when the file was made by a newer server.
    """
    while (version := connection.execute("PRAGMA user_version").fetchone()[0]) < len(MIGRATIONS):
        with begin_write(connection):
            # Another process may have done this step while we waited for the lock.
            if connection.execute("PRAGMA user_version").fetchone()[0] == version:
                MIGRATIONS[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")
    if version > len(MIGRATIONS):
        raise StoreUnavailable(
            f"The database `{path}` has schema version {version}, made by a newer server; this one knows versions up "
            f"to {len(MIGRATIONS)}. Start the newer server, or restore a backup made before the upgrade."
        )


READ_ONLY = "The database file is read-only; nothing was written. Make it writable, then try again."

_SENTENCES = {
    "SQLITE_FULL": "The disk of the database is full; nothing was written. Free some space, then try again.",
    "SQLITE_READONLY": READ_ONLY,
    "SQLITE_CANTOPEN": "The database file cannot be opened; check that its folder exists and is writable.",
    "SQLITE_IOERR": "The disk of the database reports an error; nothing was written.",
    "SQLITE_BUSY": "The database is locked by another process; nothing was written. Try again.",
    "SQLITE_PERM": "The database file may not be accessed; nothing was written. Check its permissions.",
    "SQLITE_NOTADB": "The database file is not an SQLite database.",
    "SQLITE_CORRUPT": "The database file is damaged; nothing was written. Restore a backup.",
}


def convert_error(error: sqlite3.Error, path: Path | None = None) -> StoreError:
    """SQLite's error as the store's: StoreUnavailable with a full sentence, or TooLargeForStore.

    `path`: the file, named where an operator reads the sentence; clients are told of no path.
    """
    name: str = getattr(error, "sqlite_errorname", None) or ""
    primary = "_".join(name.split("_")[:2])
    if primary == "SQLITE_TOOBIG":
        return TooLargeForStore("The resource is larger than the database takes (1 GB); nothing was written.")
    sentence = _SENTENCES.get(primary) or f"The database failed: {error} ({name or 'no code'})."
    return StoreUnavailable(f"`{path}`: {sentence}" if path else sentence)
