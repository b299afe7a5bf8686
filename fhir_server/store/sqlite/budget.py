"""The limits of a search on a connection: time, rows, and the patience of its lane (https://www.sqlite.org/c3ref/progress_handler.html).

SQLite counts the steps of its virtual machine instead of rows: reading and testing a row takes about STEPS_PER_ROW.
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

# SQLite goes on counting where a statement's last run ended, so that the first check may come early: with several
# checks to a limit, it is missed by one part in _CHECKS at most.
_CHECKS = 8
# Of a trial: it is short, and may take longer than meant rather than wait for the interpreter often.
_CHECKS_OF_TRIAL = 3
# Each check takes the GIL from a busy event loop: this is seldom enough, and still some hundred times a second.
_STEPS_PER_CHECK = 200_000

T = TypeVar("T")

TOO_MANY_VALUES = "The criteria name more values than the database takes in one question. Ask for fewer at once."
_TOO_LARGE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG})
_is_too_large = re.compile("too (many|large|big|complex|much)|stack overflow|at most [0-9]+ tables").search


class Slow(Exception):
    """A search takes longer than the patience of its lane; nothing is wrong with it."""


class Meter:
    """Stops the statements of a connection at their limits. `patience`: seconds until it raises Slow (None: never)."""

    def __init__(self, connection: sqlite3.Connection, budget: Budget, patience: float | None = None) -> None:
        self._connection = connection
        self._budget = budget
        self._patience = patience
        self._steps_allowed = budget.rows * STEPS_PER_ROW
        self._interval = max(1, min(_STEPS_PER_CHECK, self._steps_allowed // _CHECKS))
        self._start = float("inf")
        self._steps = 0
        self._trial_ends: float | None = None
        self._stopped: Exception | None = None

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Give what runs here the whole budget, as one question. Raises BudgetExceeded or Slow."""
        self._start, self._steps, self._stopped = time.monotonic(), 0, None
        self._connection.set_progress_handler(self._check, self._interval)
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_INTERRUPT and self._stopped is not None:
                raise self._stopped from error
            if code in _TOO_LARGE and _is_too_large(str(error)):
                raise BudgetExceeded(TOO_MANY_VALUES) from error
            raise
        finally:
            self._connection.set_progress_handler(None, 0)

    def attempt(self, work: Callable[[], T], microseconds: float) -> T | None:
        """The result of the work, or None when it is not done after about that time."""
        interval, trial_ends = self._interval, self._trial_ends
        self._interval = max(1, min(interval, int(microseconds * STEPS_PER_MICROSECOND) // _CHECKS_OF_TRIAL))
        # The thread's own time: waiting for the interpreter does not count. A trial within a trial ends with it.
        until = time.thread_time() + microseconds / 1e6
        self._trial_ends = until if trial_ends is None else min(trial_ends, until)
        self._connection.set_progress_handler(self._check, self._interval)
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT or self._stopped is not None:
                raise
            return None
        finally:
            self._trial_ends, self._interval = trial_ends, interval
            self._connection.set_progress_handler(self._check, self._interval)

    def _check(self) -> bool:
        """Whether to stop."""
        self._steps += self._interval
        took = time.monotonic() - self._start
        if took >= self._budget.seconds:
            self._stopped = self._budget.build_time_error()
        elif self._steps >= self._steps_allowed:
            self._stopped = self._budget.build_rows_error()
        elif self._patience is not None and took >= self._patience:
            self._stopped = Slow()
        return self._stopped is not None or (self._trial_ends is not None and time.thread_time() >= self._trial_ends)
