"""Turns of the processes that share a file, by a lock file beside it (https://man7.org/linux/man-pages/man2/flock.2.html).

Under SQLite's own busy waiting, some processes would starve. The lock file also has the number of turns, so that each
process sees without a look at the database whether another may have written.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

WAIT_SECONDS = 30.0
"""How long a write waits for its turn."""

_PAUSE = 0.01

_COUNT_BYTES = 8


class Turnstile:
    """One process's place in the queue. Where no lock file can be created it is open: nothing is written there."""

    def __init__(self, path: Path) -> None:
        self._file = _open_lock(path)
        self._counts = self._file is not None and _make_room(self._file)
        self._own, self._has_turn = 0, False

    def try_enter(self) -> bool:
        """Take the turn if it is free; whether it was."""
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        self._count_turn()
        return True

    @contextmanager
    def wait_for_turn(self) -> Iterator[None]:
        """Wait for the turn, and leave at the end."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._count_turn()
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        if self._has_turn:
            self._write_count(self._read_count() + 1)
            self._has_turn = False
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def count_others(self) -> int | None:
        """How many turns other processes have had; None while one of them has its turn, and where it is not known.

        Any thread may ask; while another thread takes or leaves the turn of this process it is not known.
        """
        if not self._counts:
            return None
        own, count = self._own, self._read_count()
        if (count % 2 and not self._has_turn) or own != self._own:
            return None
        return (count + 1) // 2 - own

    def _count_turn(self) -> None:
        if self._counts:
            count = self._read_count()
            self._write_count(count + 1 + count % 2)  # odd: a process was killed in its turn
            self._own += 1
            self._has_turn = True  # last, see `count_others`

    def _read_count(self) -> int:
        """Twice the turns so far, of all processes, and one less while one of them has its turn."""
        return int.from_bytes(os.pread(self._file, _COUNT_BYTES, 0), "little") if self._file is not None else 0

    def _write_count(self, count: int) -> None:
        if self._file is not None:
            with suppress(OSError):  # a broken disk: others look at the file again before long
                os.pwrite(self._file, count.to_bytes(_COUNT_BYTES, "little"), 0)

    def close(self) -> None:
        """Leave, and close the lock file."""
        if self._file is not None:
            self.leave()
            self._counts = False
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


def _make_room(file: int) -> bool:
    """Take the place of the number on the disk, so that it can be written when the disk is full; whether that is known.

    macOS lacks the call, and so do some file systems: nothing is counted there.
    """
    try:
        os.posix_fallocate(file, 0, _COUNT_BYTES)
    except (OSError, AttributeError):
        return False
    return True
