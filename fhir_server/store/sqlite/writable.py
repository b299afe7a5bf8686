"""Whether a write is possible now: the file may be written, its disk has room, and writes pass after a failure."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from fhir_server.store.protocol import StoreUnavailable
from fhir_server.store.sqlite.schema import READ_ONLY
from fhir_server.store.sqlite.writer import Writer

LEAST_FREE = 4 * 1024 * 1024
"""Bytes free on the disk below which no write is counted on."""

_PROBE_BYTES = 64 * 1024


async def check_writable(path: Path, readonly: bool, writer: Writer) -> None:
    """Raises StoreUnavailable with a sentence when writes fail. Only after one has failed, something is written."""
    if readonly or not os.access(path, os.W_OK):
        raise StoreUnavailable(READ_ONLY)
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    if free < LEAST_FREE:
        raise StoreUnavailable(f"The disk of the database has {free:,} bytes left; free some space.")
    if writer.has_failed:
        await writer.submit(_add_probe)
        await writer.submit(_remove_probe)
        writer.has_failed = False


def _add_probe(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (_PROBE_BYTES,))


def _remove_probe(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM meta WHERE key = 'probe'")
