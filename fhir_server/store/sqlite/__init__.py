"""The embedded store: one SQLite file, shared by any number of processes."""

from fhir_server.store.sqlite.store import SqliteStore, check_file, open_store

__all__ = ["SqliteStore", "check_file", "open_store"]
