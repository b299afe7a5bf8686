"""The embedded store: one SQLite file, shared by any number of processes."""

from fhir_server.store.sqlite.store import SqliteStore, open_store, watch_file

__all__ = ["SqliteStore", "open_store", "watch_file"]
