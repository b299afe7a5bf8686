"""`fhir-server serve`: the HTTP server with one or more workers."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn

from fhir_server.api.application import Application
from fhir_server.api.log import make_log
from fhir_server.app import STORES, create_server, hide_secrets, load_knowledge, make_unknown_store_error, open_store
from fhir_server.commands.certificate import RELOAD_SIGNAL, make_tls_context
from fhir_server.commands.http_protocol import BoundedProtocol
from fhir_server.commands.single_server import SingleServer
from fhir_server.commands.worker_processes import Patience, Workers, WorkerServer
from fhir_server.settings import COMMAND_VARIABLES, Settings, WrongSetting, find_misspelt, read_settings
from fhir_server.store import sqlite
from fhir_server.store.protocol import StoreError

MOST_WORKERS = 4
"""Worker processes when the number is left open: more are worth their memory only where many clients write little."""

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def serve(
    store: Annotated[str | None, typer.Option(help="sqlite:///…, mongodb://… or memory:// (FHIR_STORE).")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on the one store.", show_default="one a core, at most 4")
    ] = None,
    tls_certificate: Annotated[
        str | None, typer.Option(help="Certificate (PEM) for https (FHIR_TLS_CERTIFICATE).")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key, where that is another file (FHIR_TLS_KEY).")] = None,
    allow_unauthenticated: Annotated[
        bool, typer.Option(envvar=COMMAND_VARIABLES[0], help="Serve other machines; no one is identified.")
    ] = False,
) -> None:
    """Serve the FHIR API over HTTP."""
    for name, value in (("STORE", store), ("TLS_CERTIFICATE", tls_certificate), ("TLS_KEY", tls_key)):
        if value is not None:
            os.environ[f"FHIR_{name}"] = value
    settings = _read_settings()
    _check_certificate(settings)
    if not is_loopback(host) and not allow_unauthenticated:
        _check_exposure(settings, host)
    for sentence in find_misspelt(os.environ):
        typer.echo(sentence, err=True)
    number = choose_worker_count(settings.store, workers)
    listeners = open_listeners(host, port)
    name = f"[{host}]" if ":" in host else host
    port = listeners[0].getsockname()[1]
    base = f"{'https' if settings.tls_certificate else 'http'}://{name}:{port}{settings.path.rstrip('/')}"
    announce = partial(_print_urls, base, hide_secrets(settings.store))
    if not settings.store.startswith("memory:"):
        raise typer.Exit(_serve_with_workers(settings, listeners, number, announce))
    # uvicorn repeats the signal that stopped it once all is finished: the end of a graceful stop is a success
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config, warn = _make_config(settings, create_server), _warnings(settings)
    SingleServer(config, warn, settings.watchdog_seconds, announce).run(sockets=listeners)


def _check_exposure(settings: Settings, host: str) -> None:
    """Refuse to listen to other machines without authentication, or where tokens would cross the network in clear."""
    if settings.authentication == "off":
        _refuse(
            f"Listening on {host} would let other machines in, and no authentication is configured. Use 127.0.0.1, set "
            "FHIR_AUTHENTICATION=on, or say --allow-unauthenticated (FHIR_ALLOW_UNAUTHENTICATED=true)."
        )
    if not settings.tls_certificate and not (settings.proxies and settings.base_url.startswith("https:")):
        _refuse(
            f"Listening on {host} would let tokens cross the network in clear. Give it a certificate "
            "(--tls-certificate), or put a proxy with TLS before it: named in FHIR_PROXIES, its https address in "
            "FHIR_BASE_URL."
        )


def _check_certificate(settings: Settings) -> None:
    """Refuse a certificate or a key that cannot be loaded."""
    if not settings.tls_certificate and settings.tls_key:
        _refuse("`--tls-key` needs `--tls-certificate`.")
    try:
        make_tls_context(
            Path(settings.tls_certificate) if settings.tls_certificate else None,
            Path(settings.tls_key) if settings.tls_key else None,
            None,
        )
    except ValueError as error:
        _refuse(str(error))


def choose_worker_count(store: str, wanted: int | None) -> int:
    """How many worker processes serve a store: as many as asked for, else one for each core up to four."""
    if store.partition(":")[0] not in STORES:
        _refuse(str(make_unknown_store_error(store)))
    if not store.startswith("memory:"):
        return wanted or min(MOST_WORKERS, count_cores())
    if (wanted or 1) > 1:
        _refuse("A memory:// store lives in one process; use --workers 1, or sqlite:///PATH.")
    return 1


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve_with_workers(
    settings: Settings, listeners: Sequence[socket.socket], number: int, announce: Callable[[], None]
) -> int:
    """What all workers need is learnt before they are made, so that they share it. The exit status."""
    try:
        known = load_knowledge(settings)
        asyncio.run(_make_store(settings.store))  # its faults are told once, and not by every worker
        check_file = sqlite.watch_file(settings.store).check if settings.store.startswith("sqlite:") else _accept
    except (StoreError, ValueError, OSError) as error:
        for listener in listeners:
            listener.close()
        _refuse(str(error))
    gc.collect()
    gc.freeze()

    def serve_worker(channel: socket.socket) -> int:
        config = _make_config(settings, partial(create_server, known, check_file))
        WorkerServer(config, channel, _warnings(settings)).run()
        return 0

    patience = Patience(settings.watchdog_seconds, settings.request_timeout)
    workers = Workers(listeners, number, serve_worker, _warnings(settings), patience, announce)
    if settings.tls_certificate:
        workers.pass_on(RELOAD_SIGNAL)
    return workers.run()


def _warnings(settings: Settings) -> Callable[[str], None]:
    return partial(make_log(sys.stderr.buffer, settings.log_level), "warning")


def _make_config(settings: Settings, application: Callable[[], Application]) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        factory=True,
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        log_config=_make_log_config(settings.log_level),
        timeout_graceful_shutdown=math.ceil(settings.request_timeout),
        proxy_headers=False,
        server_header=False,
        date_header=True,
        lifespan="on",
        ssl_certfile=settings.tls_certificate or None,
        ssl_keyfile=settings.tls_key or None,
        h11_max_incomplete_event_size=64 * 1024,
    )


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach the address."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_settings() -> Settings:
    try:
        return read_settings()
    except WrongSetting as error:
        _refuse(str(error))


def _refuse(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


async def _make_store(uri: str) -> None:
    """Make the file if it is missing; no worker does."""
    await (await open_store(uri, create=True)).close()


def _accept() -> None:
    """There is no file to compare."""


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address of the host; refused with a sentence where there is none."""
    listeners: list[socket.socket] = []
    fault = f"{host} is no address or name of this machine; choose one with --host."
    with suppress(socket.gaierror):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                listeners.append(_bind(family, kind, protocol, address))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    _refuse(f"Port {port} on {host} is taken by another program; choose one with --port.")
                fault = f"Nothing can listen on port {port} of {host}: {error.strerror}; choose others."
    if not listeners:
        _refuse(fault)
    return listeners


def _bind(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # the other family has a socket of its own
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _print_urls(base: str, store: str) -> None:
    typer.echo(f"FHIR R4 server on {base} (store {store}). Try:")
    for path in (
        "/metadata",
        "/Patient?_sort=birthdate&_count=5",
        "/Observation?code=http://loinc.org|8867-4&_include=Observation:patient",
        "/Appointment?date=ge2026-01-01&status=booked",
    ):
        typer.echo(f"  curl -s '{base}{path}'")
    sys.stdout.flush()


def _make_log_config(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "fhir_server.api.log.LineFormatter", "plain": sys.stderr.isatty()}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
            for name in ("uvicorn", "asyncio")
        },
    }
