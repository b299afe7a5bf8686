"""Turns of the processes that share a file, by a lock file beside it (https://man7.org/linux/man-pages/man2/flock.2.html).

Under SQLite's own busy waiting, some processes would starve.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

WAIT_SECONDS = 30.0
"""How long a write waits for its turn."""

_PAUSE = 0.01


class Turnstile:
    """One process's place in the queue. Where no lock file can be created it is open: nothing is written there."""

    def __init__(self, path: Path) -> None:
        self._file = _open_lock(path)

    def try_enter(self) -> bool:
        """Take the turn if it is free; whether it was."""
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    @contextmanager
    def wait_for_turn(self) -> Iterator[None]:
        """Wait for the turn, and leave at the end."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@asynccontextmanager
async def hold_turn(path: Path) -> AsyncIterator[None]:
    """Hold the turn while a file is opened: two processes that create it at once would lock each other out.

    Waits as long as a write does, then goes on without it: SQLite itself reports a locked file.
    """
    turnstile = Turnstile(path)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    try:
        while not turnstile.try_enter() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_PAUSE)
        yield
    finally:
        turnstile.close()


def _open_lock(path: Path) -> int | None:
    try:
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # Nothing can be written beside the file, so nothing will be written into it either.
        return None
