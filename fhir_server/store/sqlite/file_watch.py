"""Whether the files of a database are still those that were opened: a path may be given to another file meanwhile.

Who goes on with a removed file writes into nothing (https://www.sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fhir_server.store.protocol import StoreUnavailable

DATABASE_FILES = ("", "-wal", "-shm")
"""The endings of the names of the files that belong together."""

_PAUSE_SECONDS = 0.2
"""Between two looks at the files beside the database file."""


class FileWatch:
    """The database file and those beside it as they are now; made while they are open, compared later."""

    def __init__(self, path: Path, endings: Iterable[str] = DATABASE_FILES) -> None:
        names = (f"{path.absolute()}{ending}" for ending in endings)
        self._files = {name: file for name in names if (file := _identify(name)) is not None}
        self._looked = time.monotonic()

    def check_before_write(self) -> None:
        """`check` the database file, and now and then all: a look takes longer than the rows of a small write."""
        now = time.monotonic()
        if now - self._looked > _PAUSE_SECONDS:
            self.check()
            self._looked = now  # not after a fault: the next write is to meet it as well
        else:
            self._check(itertools.islice(self._files.items(), 1))

    def check(self) -> None:
        """Raises StoreUnavailable with a sentence when one of the files was removed or replaced."""
        self._check(self._files.items())

    def _check(self, files: Iterable[tuple[str, tuple[int, int]]]) -> None:
        for name, before in files:
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
