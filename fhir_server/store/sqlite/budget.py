"""What a search on a connection may take: time, rows, and the patience of its lane (https://www.sqlite.org/c3ref/progress_handler.html).

SQLite counts no rows, but the steps of its virtual machine: a row that is looked at and tested takes about
STEPS_PER_ROW of them.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fhir_server.store.protocol import Budget, BudgetExceeded

STEPS_PER_ROW = 25
STEPS_PER_MICROSECOND = 50

# SQLite goes on counting where a statement's last run ended, so that the first look comes early by chance: with several
# looks to a limit it is met within a share of 1 : _LOOKS.
_LOOKS = 8
# Of a trial: it is short, and goes on for longer than meant rather than wait for the interpreter often.
_LOOKS_AT_TRIALS = 3
# Each look takes the GIL from a busy event loop: seldom enough, and still some hundred times a second.
_STEPS_PER_LOOK = 200_000

T = TypeVar("T")


TOO_MANY = "The criteria name more values than the database takes in one question. Ask for fewer at once."
_TOO_LARGE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG})
_is_too_large = re.compile("too (many|large|big|complex|much)|stack overflow|at most [0-9]+ tables").search


class Slow(Exception):
    """A search that is not done within its lane's patience; nothing is wrong with it."""


class Meter:
    """Stops what runs on a connection. `patience`: seconds after which `Slow` is raised, None where nobody waits."""

    def __init__(self, connection: sqlite3.Connection, budget: Budget, patience: float | None = None) -> None:
        self._connection = connection
        self._budget = budget
        self._patience = patience
        self._steps_allowed = budget.rows * STEPS_PER_ROW
        self._each = max(1, min(_STEPS_PER_LOOK, self._steps_allowed // _LOOKS))
        self._began = float("inf")
        self._steps = 0
        self._trial_ends: float | None = None
        self._stopped: Exception | None = None

    @contextmanager
    def question(self) -> Iterator[None]:
        """One question with the whole budget. Raises BudgetExceeded or Slow."""
        self._began, self._steps, self._stopped = time.monotonic(), 0, None
        self._connection.set_progress_handler(self._look, self._each)
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_INTERRUPT and self._stopped is not None:
                raise self._stopped from error
            if code in _TOO_LARGE and _is_too_large(str(error)):
                raise BudgetExceeded(TOO_MANY) from error
            raise
        finally:
            self._connection.set_progress_handler(None, 0)

    def attempt(self, work: Callable[[], T], microseconds: float) -> T | None:
        """What the work gives, or None when it is not done after about that time."""
        each, ends = self._each, self._trial_ends
        self._each = max(1, min(each, int(microseconds * STEPS_PER_MICROSECOND) // _LOOKS_AT_TRIALS))
        # The thread's own time: waiting for the interpreter is no work. A trial within a trial ends with it.
        until = time.thread_time() + microseconds / 1e6
        self._trial_ends = until if ends is None else min(ends, until)
        self._connection.set_progress_handler(self._look, self._each)
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT or self._stopped is not None:
                raise
            return None
        finally:
            self._trial_ends, self._each = ends, each
            self._connection.set_progress_handler(self._look, self._each)

    def _look(self) -> bool:
        """Whether to stop."""
        self._steps += self._each
        took = time.monotonic() - self._began
        if took >= self._budget.seconds:
            self._stopped = self._budget.build_time_error()
        elif self._steps >= self._steps_allowed:
            self._stopped = self._budget.build_rows_error()
        elif self._patience is not None and took >= self._patience:
            self._stopped = Slow()
        return self._stopped is not None or (self._trial_ends is not None and time.thread_time() >= self._trial_ends)
