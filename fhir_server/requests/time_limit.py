"""The time limit of a request: it ends a write only before the commit was handed to the store.

A request that is cut short while it waits has stored nothing. From the moment that the store has the commit the limit
is lifted: the answer waits for what came of it, and a resource that was stored is never answered with 408.

One timer of the event loop serves all limits in force: a timer for each request would cost it more than the rest here.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar, Token
from types import TracebackType

from fhir_server.fhir.outcome import TimedOut

GIVEN_UP = (
    "The request took longer than {:g} seconds, the limit (setting `request_timeout`), and was given up: nothing of it "
    "was stored, and nothing will be."
)

_EARLY = 0.001
"""Seconds by which the timer of an event loop may come too early."""

_limit: ContextVar[TimeLimit | None] = ContextVar("time limit of the request", default=None)


def lift() -> float | None:
    """Let what was begun come to its end; the deadline that was in force, None where there was none (any more)."""
    limit = _limit.get()
    return None if limit is None else limit.lift()


class TimeLimits:
    """The time limits in force on one event loop, by their deadlines on its clock."""

    def __init__(self) -> None:
        self._deadlines: dict[TimeLimit, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def end_after(self, seconds: float, deadline: float | None = None, sentence: str = GIVEN_UP) -> TimeLimit:
        """Limit what is inside of `with` to `seconds`, or until `deadline` on the loop's clock. Raises TimedOut.

        `sentence` is what the error tells, `{:g}` the seconds in it.
        """
        return TimeLimit(self, seconds, deadline, sentence)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, asked for once: each time costs a call of the system (in CPython below 3.12)."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def add(self, limit: TimeLimit, deadline: float) -> None:
        """A limit comes into force."""
        self._deadlines[limit] = deadline
        if deadline < self._next:
            self._wait_until(deadline)

    def remove(self, limit: TimeLimit) -> float | None:
        """The deadline of a limit that is no longer in force, None where it was not. The timer is left as it is."""
        return self._deadlines.pop(limit, None)

    def _wait_until(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = deadline
        self._timer = self.loop.call_at(deadline, self._end_late)

    def _end_late(self) -> None:
        """End what is late, and wait for the next deadline."""
        self._next, self._timer = math.inf, None
        late = self.loop.time() + _EARLY
        for limit in [limit for limit, deadline in self._deadlines.items() if deadline <= late]:
            self.remove(limit)
            limit.end()
        if self._deadlines:
            self._wait_until(min(self._deadlines.values()))


class TimeLimit:
    """A time limit on the task that enters it, as `asyncio.timeout` is one."""

    __slots__ = ("_cancelling", "_deadline", "_is_over", "_limits", "_seconds", "_sentence", "_task", "_token")

    _task: asyncio.Task[object]
    _token: Token[TimeLimit | None]

    def __init__(self, limits: TimeLimits, seconds: float, deadline: float | None, sentence: str) -> None:
        self._limits = limits
        self._seconds = seconds
        self._deadline = deadline
        self._sentence = sentence
        self._is_over = False

    def __enter__(self) -> None:
        loop = self._limits.loop
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._token = _limit.set(self)
        deadline = self._deadline
        self._limits.add(self, loop.time() + self._seconds if deadline is None else deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _limit.reset(self._token)
        self._limits.remove(self)
        # a cancellation by somebody else stays one
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimedOut(self._sentence.format(self._seconds)) from None

    def lift(self) -> float | None:
        """See the function of this name."""
        return self._limits.remove(self)

    def end(self) -> None:
        """The time is over."""
        self._is_over = True
        self._task.cancel()
