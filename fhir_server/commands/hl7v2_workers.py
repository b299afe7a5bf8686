"""Worker processes that take HL7 v2 messages by MLLP behind one port, on one store (docs/hl7v2.md)."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import typer

from fhir_server.api.log import Log, make_log
from fhir_server.app import Knowledge, hide_secrets, load_knowledge, open_server, open_store, spare_collections
from fhir_server.commands.certificate import RELOAD_SIGNAL, CertificateWatch
from fhir_server.commands.worker_channel import WorkerChannel
from fhir_server.commands.worker_processes import Patience, Workers
from fhir_server.requests.context import Context
from fhir_server.settings import Settings
from fhir_server.store import sqlite
from fhir_server.store.protocol import StoreError
from fhir_server.transports.mllp import Limits, Listener, Take
from fhir_server.workers.hl7v2_intake import split_answers, take_message

try:
    from uvloop import run
except ImportError:  # Windows
    from asyncio import run  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Listening:
    """What a listener is: its settings, the limits of all workers together, its certificate and the key's files."""

    settings: Settings
    limits: Limits
    tls: ssl.SSLContext | None = None
    files: tuple[Path, Path | None] | None = None


def listen_with_workers(listening: Listening, sockets: Sequence[socket.socket], number: int) -> int:
    """Take messages by so many processes until SIGTERM or Ctrl-C; the exit status. Raises what forbids a start."""
    settings = listening.settings
    log = make_log(sys.stderr.buffer, settings.log_level)
    try:
        known = load_knowledge(settings)
        asyncio.run(_open_once(settings.store))  # its faults are told once, and not by every worker
    except BaseException:
        for each in sockets:
            each.close()
        raise
    check_file = sqlite.watch_file(settings.store).check if settings.store.startswith("sqlite:") else None
    share = replace(listening, limits=share_limits(listening.limits, number))
    gc.collect()
    gc.freeze()

    def serve_worker(channel: socket.socket) -> int:
        if check_file is not None:
            check_file()
        run(_take_messages(share, known, channel, log))
        return 0

    host, port = sockets[0].getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    text = f"HL7 v2 by MLLP on {name}:{port} (store {hide_secrets(settings.store)}, {_count(number)})."
    patience = Patience(settings.watchdog_seconds, settings.request_timeout)
    workers = Workers(sockets, number, serve_worker, partial(log, "warning"), patience, partial(_announce, text))
    if listening.tls is not None:
        workers.pass_on(RELOAD_SIGNAL)
    return workers.run()


def share_limits(limits: Limits, number: int) -> Limits:
    """The part of each of so many workers in what may be at once: connections, and long messages."""
    connections, large = (-(-each // number) for each in (limits.connections, limits.large_messages))
    return replace(limits, connections=connections, large_messages=large)


def make_taker(context: Context, log: Log) -> Take:
    """What stores the messages of a listener: acknowledgements after the commit, none where nothing was written."""

    async def take(raw: bytes) -> list[bytes] | None:
        try:
            received = await take_message(context, context.settings.base_url, raw)
        except StoreError as error:
            log("error", "message not stored", error=type(error).__name__)
            return None
        return split_answers(received.acknowledgement)

    return take


async def wait_for_end(stopped: asyncio.Event) -> None:
    """Return at SIGTERM, at Ctrl-C, or once the event is set; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    await stopped.wait()


async def _take_messages(listening: Listening, known: Knowledge, channel: socket.socket, log: Log) -> None:
    """In a worker: take the messages of the connections that are handed over, until the channel ends."""
    stopped = asyncio.Event()
    async with open_server(listening.settings, known=known) as server:
        spare_collections()
        listener = Listener(make_taker(server.context, log), log, listening.limits)
        at_turn = _watch_certificate(listening, log)
        connections = WorkerChannel(channel, listener.make_protocol, listening.tls, stopped.set, at_turn)
        connections.open()
        await wait_for_end(stopped)
        await connections.close()
        await listener.stop()


def _watch_certificate(listening: Listening, log: Log) -> Callable[[], None]:
    if listening.tls is None or listening.files is None:
        return lambda: None
    certificate, key = listening.files
    files = (str(certificate), None if key is None else str(key))
    watch = CertificateWatch(listening.tls, files, partial(log, "warning"))
    watch.reload_at_signal()
    return watch.check


async def _open_once(uri: str) -> None:
    await (await open_store(uri)).close()


def _announce(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
