"""Worker processes behind one port: this process accepts, and hands each connection to the worker that has the fewest.

If the workers accepted themselves, chance would share out the connections: the few that live long, those of an EHR or a
proxy, could all lie in one worker while the others idle. A connection is handed over as a descriptor on a Unix socket
(SCM_RIGHTS, https://man7.org/linux/man-pages/man7/unix.7.html); what it carries never passes through this process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from fhir_server.commands.single_server import TURN_SECONDS, StoppingServer, watch_certificate
from fhir_server.commands.worker_channel import CLOSED, CONNECTION, MOST_WAITING, READY, WorkerChannel
from fhir_server.requests.describe_error import describe_error

_RETRY_SECONDS = 0.05
_RESTART_SECONDS = 1.0
_LONGEST_RESTART_SECONDS = 60.0
_STEADY_SECONDS = 60.0
"""A worker that lived so long did not die of its start: the next one is started at once."""
_AT_ONCE = 2
"""Deaths in a row after which a worker is still replaced at once."""
_SLOW_SECONDS = 3.0
"""Seconds without a turn of its loop after which a worker gets no new connections while another one turns."""
_TRACEBACK_SECONDS = 0.5
_KILL_SECONDS = 10.0
_ENDING_PAUSE = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

TRACEBACK_SIGNAL = signal.SIGUSR1
"""At this signal a worker writes where each of its threads is, names of functions alone, to stderr."""

Log = Callable[..., None]
"""(message, **fields) → None."""


class WorkerServer(StoppingServer):
    """A server whose connections come over `channel`; it stops gracefully when the channel ends."""

    def __init__(self, config: uvicorn.Config, channel: socket.socket, warn: Callable[[str], None]) -> None:
        super().__init__(config)
        self._socket, self._warn = channel, warn
        self._channel: WorkerChannel | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then take connections."""
        await super().startup(sockets=[])
        check = watch_certificate(self.config, self._warn)
        self._channel = WorkerChannel(self._socket, self._make_protocol, self.config.ssl, self._end, check)
        self._channel.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve what was handed over already, and stop."""
        if self._channel is not None:
            await self._channel.close()
        await super().shutdown(sockets=[])

    def _end(self) -> None:
        self.should_exit = True

    def _make_protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        made: asyncio.Protocol = kind(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


@dataclass(slots=True)
class Worker:
    """A worker process as the accepting one sees it; `open` is the number of its connections.

    `silent`: seconds since it told that its loop turns; `started`: by the monotonic clock.
    """

    process: int
    channel: socket.socket
    ready: bool = False
    open: int = 0
    silent: float = 0.0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds workers are waited for: for a turn of a loop that stands still, for what is in flight."""

    still: float = 30.0
    finishing: float = 60.0


class Workers:
    """Accepts on `listeners` for `number` processes, each of which runs `serve` with its end of a channel.

    A worker that ends is started again, later and later when that goes on; if none was ready yet, all stop. One whose
    loop stands still is replaced. `say` tells of each; `announce` is called once the port listens.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        number: int,
        serve: Callable[[socket.socket], int],
        say: Log,
        patience: Patience | None = None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        self._announce = announce
        self._limits = patience or Patience()
        self._looked = time.monotonic()
        self._failures = 0
        self._listeners = listeners
        self._serve = serve
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._waiting: deque[socket.socket] = deque()
        self._restarts = [0.0] * number
        self._told_at = 0.0
        self._listens = self._stops = False
        self._status = 0
        self._passed: set[signal.Signals] = set()

    def pass_on(self, number: signal.Signals) -> None:
        """Give a signal that this process gets to all workers; before they have a handler for it they ignore it."""
        self._passed.add(number)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT and finish what is in flight. The exit status: 0, or that of a failed start."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        for number in self._passed:
            signal.signal(number, self._tell_workers)
        self._selector.register(woken, selectors.EVENT_READ, partial(woken.recv, 64))
        while not self._stops:
            self._start_those_due()
            self._watch()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._hand_over_waiting()
            if self._waiting:  # no worker takes any more just now
                time.sleep(_RETRY_SECONDS)
        self._finish()
        return self._status

    def _stop(self, *_: object) -> None:
        if self._stops:  # asked a second time: wait no longer for what is in flight
            for worker in self._workers:
                _signal(worker, signal.SIGKILL)
        self._stops = True

    def _tell_workers(self, number: int, *_: object) -> None:
        for worker in self._workers:
            _signal(worker, number)

    def _patience(self) -> float | None:
        """Seconds until something is due that no descriptor tells of."""
        if self._waiting:
            return 0.0
        due = max(0.0, min(self._restarts) - time.monotonic()) if self._restarts else TURN_SECONDS
        return min(due, TURN_SECONDS)

    def _watch(self) -> None:
        """Replace the workers whose loops stand still.

        However long this process was away itself, as on a suspended machine, counts as one turn.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, TURN_SECONDS), now
        for worker in self._workers:
            worker.silent += passed if worker.ready else 0.0
            if worker.silent > self._limits.still:
                self._say(
                    f"Worker {worker.process} stands still: no turn of its event loop for {self._limits.still:g} "
                    "seconds. What it was doing follows; it is ended and replaced."
                )
                _signal(worker, TRACEBACK_SIGNAL)
                time.sleep(_TRACEBACK_SECONDS)
                _signal(worker, signal.SIGKILL)
                worker.silent = 0.0

    def _start_those_due(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._restarts if moment <= now]
        self._restarts = [moment for moment in self._restarts if moment > now]
        for _ in due:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            channels = [worker.channel for worker in self._workers]
            self._become_worker(theirs, [ours, *channels, *self._listeners, *self._waiting])
        theirs.close()
        ours.setblocking(False)
        worker = Worker(process, ours)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._hear, worker))

    def _become_worker(self, channel: socket.socket, others: Iterable[socket.socket]) -> None:
        """In the new process: serve, and end without what the accepting process would do at its end."""
        status = STARTUP_FAILURE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, lambda *_: sys.exit(0))
            for number in self._passed:
                signal.signal(number, signal.SIG_IGN)
            faulthandler.register(TRACEBACK_SIGNAL)
            self._selector.close()
            for each in others:  # kept open here, they would never end for whoever reads them
                each.close()
            status = self._serve(channel)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:
            status = 0
        except BaseException as error:
            self._say("A worker failed.", error=describe_error(error))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _hear(self, worker: Worker) -> None:
        """What a worker says; the end of its channel is its own."""
        try:
            said = worker.channel.recv(4096)
        except OSError:
            said = b""
        worker.silent = 0.0
        worker.open -= said.count(CLOSED)
        if READY in said:
            worker.ready = True
            self._listen()
        if not said:
            self._remove_worker(worker)

    def _remove_worker(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)
        worker.channel.close()
        _, code = os.waitpid(worker.process, 0)
        status = os.waitstatus_to_exitcode(code)
        if worker.ready:
            pause = self._choose_pause(worker)
            when = f" in {pause:g} seconds, since workers keep ending" if pause else ""
            self._say(f"Worker {worker.process} ended with status {status}; another one is started{when}.")
            self._restarts.append(time.monotonic() + pause if pause else 0.0)
        elif self._listens:  # one was ready once, so that this is no failed start of the whole
            pause = max(_RESTART_SECONDS, self._choose_pause(worker))
            when = f"it is tried again in {pause:g} seconds"
            self._say(f"Worker {worker.process} did not start (status {status}); {when}.")
            self._restarts.append(time.monotonic() + pause)
        else:
            self._status, self._stops = STARTUP_FAILURE, True

    def _choose_pause(self, worker: Worker) -> float:
        """Seconds until the next start after a death: none after a long life, more and more after short ones."""
        steady = time.monotonic() - worker.started >= _STEADY_SECONDS
        self._failures = 0 if steady else self._failures + 1
        further = self._failures - _AT_ONCE
        return 0.0 if further <= 0 else min(_RESTART_SECONDS * 2 ** min(further - 1, 16), _LONGEST_RESTART_SECONDS)

    def _listen(self) -> None:
        """Begin to accept: not before a worker can answer."""
        if not self._listens:
            self._listens = True
            for listener in self._listeners:
                listener.setblocking(False)
                listener.listen(uvicorn.Config("").backlog)
                self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
            self._announce()

    def _accept(self, listener: socket.socket) -> None:
        if len(self._waiting) >= MOST_WAITING:
            return
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # closed again
            return
        except OSError as error:  # too many are open on this machine
            self._tell_seldom(f"No connection can be taken: {error.strerror}; raise the limit on open files.")
            time.sleep(_RETRY_SECONDS)
            return
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting.append(connection)

    def _hand_over_waiting(self) -> None:
        while self._waiting and self._handed_over(self._waiting[0]):
            self._waiting.popleft().close()

    def _handed_over(self, connection: socket.socket) -> bool:
        """Whether a worker took it: the one with the fewest connections whose channel is not full."""
        ready = [each for each in self._workers if each.ready]
        for worker in sorted(ready, key=lambda each: (each.silent > _SLOW_SECONDS, each.open)):
            try:
                socket.send_fds(worker.channel, [CONNECTION], [connection.fileno()])
            except OSError:
                continue
            worker.open += 1
            return True
        return False

    def _finish(self) -> None:
        """Let every worker finish what it has; how long it may take is its own limit."""
        for listener in self._listeners:
            listener.close()
        self._hand_over_waiting()
        for worker in self._workers:
            with suppress(OSError):
                worker.channel.shutdown(socket.SHUT_WR)
        until = time.monotonic() + self._limits.finishing + _KILL_SECONDS
        while self._workers:
            if time.monotonic() > until:
                for worker in self._workers:
                    self._say(f"Worker {worker.process} did not stop in time and is ended.")
                    _signal(worker, signal.SIGKILL)
                until += _KILL_SECONDS
            for worker in [each for each in self._workers if os.waitpid(each.process, os.WNOHANG)[0]]:
                self._workers.remove(worker)
                worker.channel.close()
            time.sleep(_ENDING_PAUSE)

    def _tell_seldom(self, sentence: str) -> None:
        if time.monotonic() - self._told_at > _LONGEST_RESTART_SECONDS:
            self._told_at = time.monotonic()
            self._say(sentence)


def _signal(worker: Worker, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker.process, number)
