"""Worker processes behind one port: this process accepts, and hands each connection to the worker with the fewest.

If the workers accepted themselves, chance would distribute the connections: the few that live long, those of an EHR or
a proxy, could all be in one worker while the others idle. A connection is handed over as a descriptor on a Unix socket
(SCM_RIGHTS, https://man7.org/linux/man-pages/man7/unix.7.html); what it carries never passes through this process.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import uvicorn
from uvicorn.config import STARTUP_FAILURE

_CONNECTION, _READY, _CLOSED = b"c", b"r", b"-"
_RETRY_SECONDS = 0.05
_RESTART_SECONDS = 1.0
_MOST_WAITING = 64
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Log = Callable[[str], None]


class WorkerServer(uvicorn.Server):
    """A server that receives its connections over `channel`; it stops gracefully when the channel ends."""

    def __init__(self, config: uvicorn.Config, channel: socket.socket) -> None:
        super().__init__(config)
        self._channel = channel
        self._opening: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then receive connections."""
        await super().startup(sockets=[])
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._serve_connections)
        self._send(_READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the connections that were already handed over, and stop."""
        self._serve_connections()
        asyncio.get_running_loop().remove_reader(self._channel)
        await asyncio.gather(*self._opening, return_exceptions=True)
        await super().shutdown(sockets=[])

    def _serve_connections(self) -> None:
        """Begin to serve the connections that wait in the channel."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # the accepting process stops or is gone
                loop.remove_reader(self._channel)
                self.should_exit = True
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                opening = loop.create_task(loop.connect_accepted_socket(self._make_protocol, connection))
                self._opening.add(opening)
                opening.add_done_callback(self._forget_opening)

    def _forget_opening(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            self._send(_CLOSED)

    def _make_protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        connection_lost = protocol.connection_lost

        def report_loss(exc: Exception | None) -> None:
            connection_lost(exc)
            self._send(_CLOSED)

        protocol.connection_lost = report_loss  # type: ignore[method-assign]
        return protocol

    def _send(self, message: bytes) -> None:
        # While it stops, the other side reads no more, and needs no message.
        with suppress(OSError):
            self._channel.send(message)


@dataclass(slots=True)
class Worker:
    """A worker process as the accepting process knows it; `open` is the number of its connections."""

    process: int
    channel: socket.socket
    ready: bool = False
    open: int = 0


class Workers:
    """Accepts on `listeners` for `number` processes, each of which runs `serve` with its end of a channel.

    A worker that ends is started again; if the first to start fails, all stop. `log` receives a sentence for both.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], number: int, serve: Callable[[socket.socket], int], log: Log
    ) -> None:
        self._listeners = listeners
        self._serve = serve
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._waiting: deque[socket.socket] = deque()
        self._restarts: deque[float] = deque([0.0] * number)
        self._listens = self._stops = False
        self._status = 0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then finish open requests. The exit status: 0, or that of a failed start."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        self._selector.register(woken, selectors.EVENT_READ, partial(woken.recv, 64))
        while not self._stops:
            self._start_due_workers()
            for key, _ in self._selector.select(self._find_timeout()):
                key.data()
            self._hand_over_waiting()
            if self._waiting:  # every channel is full
                time.sleep(_RETRY_SECONDS)
        self._finish()
        return self._status

    def _stop(self, *_: object) -> None:
        if self._stops:  # the second signal: do not wait for open requests
            for worker in self._workers:
                with suppress(ProcessLookupError):
                    os.kill(worker.process, signal.SIGINT)
        self._stops = True

    def _find_timeout(self) -> float | None:
        """Seconds until the next restart or retry, which no descriptor signals; None when there is none."""
        if self._waiting:
            return 0.0
        return max(0.0, self._restarts[0] - time.monotonic()) if self._restarts else None

    def _start_due_workers(self) -> None:
        while self._restarts and self._restarts[0] <= time.monotonic():
            self._restarts.popleft()
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
        self._selector.register(ours, selectors.EVENT_READ, partial(self._read_messages, worker))

    def _become_worker(self, channel: socket.socket, others: Iterable[socket.socket]) -> None:
        """In the new process: serve, and exit without running the accepting process's exit code."""
        status = STARTUP_FAILURE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, lambda *_: sys.exit(0))
            self._selector.close()
            for each in others:  # left open here, they would never end for their readers
                each.close()
            status = self._serve(channel)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _read_messages(self, worker: Worker) -> None:
        """Read a worker's messages; the end of its channel is the end of the worker."""
        try:
            messages = worker.channel.recv(4096)
        except OSError:
            messages = b""
        worker.open -= messages.count(_CLOSED)
        if _READY in messages:
            worker.ready = True
            self._listen()
        if not messages:
            self._replace_worker(worker)

    def _replace_worker(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)
        worker.channel.close()
        _, code = os.waitpid(worker.process, 0)
        status = os.waitstatus_to_exitcode(code)
        if worker.ready:
            self._log(f"Worker {worker.process} ended with status {status}; another one is started.")
            self._restarts.appendleft(0.0)
        elif any(each.ready for each in self._workers):
            self._log(f"Worker {worker.process} did not start (status {status}); it is tried again.")
            self._restarts.append(time.monotonic() + _RESTART_SECONDS)
        else:
            self._status, self._stops = STARTUP_FAILURE, True

    def _listen(self) -> None:
        """Begin to accept, once a worker can answer."""
        if not self._listens:
            self._listens = True
            for listener in self._listeners:
                listener.setblocking(False)
                listener.listen(uvicorn.Config("").backlog)
                self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            return
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # the client has closed it again
            return
        except OSError:  # too many descriptors are open
            time.sleep(_RETRY_SECONDS)
            return
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting.append(connection)

    def _hand_over_waiting(self) -> None:
        while self._waiting and self._hand_over(self._waiting[0]):
            self._waiting.popleft().close()

    def _hand_over(self, connection: socket.socket) -> bool:
        """Hand it to the worker with the fewest connections whose channel is not full; False when all are full."""
        for worker in sorted([each for each in self._workers if each.ready], key=lambda each: each.open):
            try:
                socket.send_fds(worker.channel, [_CONNECTION], [connection.fileno()])
            except OSError:
                continue
            worker.open += 1
            return True
        return False

    def _finish(self) -> None:
        """Let every worker finish its open requests, within its own time limit."""
        for listener in self._listeners:
            listener.close()
        self._hand_over_waiting()
        for worker in self._workers:
            with suppress(OSError):
                worker.channel.shutdown(socket.SHUT_WR)
        while self._workers:
            os.waitpid(self._workers[-1].process, 0)
            self._workers.pop().channel.close()
