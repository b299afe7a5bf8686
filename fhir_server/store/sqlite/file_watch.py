"""Whether the files of a database are still those that were opened: a path may be given to another file meanwhile.

Who goes on with a removed file writes into nothing (https://www.sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fhir_server.store.protocol import StoreUnavailable

DATABASE_FILES = ("", "-wal", "-shm")
"""The endings of the names of the files that belong together."""


class FileWatch:
    """The database file and those beside it as they are now; made while they are open, compared later."""

    def __init__(self, path: Path, endings: Iterable[str] = DATABASE_FILES) -> None:
        names = (f"{path.absolute()}{ending}" for ending in endings)
        self._files = {name: file for name in names if (file := _identify(name)) is not None}

    def check(self) -> None:
        """Raises StoreUnavailable with a sentence when one of the files was removed or replaced."""
        for name, before in self._files.items():
            now = _identify(name)
            if now != before:
                what = "was removed" if now is None else "was replaced by another file"
                raise StoreUnavailable(
                    f"The database file `{name}` {what} while the server had it open; nothing was written. Put the "
                    "right file there while the server is stopped, then start it again."
                )


def _identify(name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(name)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
