"""The embedded store: one SQLite file, shared by any number of processes."""

from fhir_server.store.sqlite.file_watch import DATABASE_FILES
from fhir_server.store.sqlite.store import SqliteStore, find_file, open_store, watch_file

__all__ = ["DATABASE_FILES", "SqliteStore", "find_file", "open_store", "watch_file"]
