"""`fhir-server serve`: the HTTP server with one or more workers."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import math
import os
import signal
import socket
import sys
from typing import Annotated, Any

import typer
import uvicorn

from fhir_server.app import STORES, open_store, served_types, unknown_store, without_password
from fhir_server.fhir import definitions
from fhir_server.settings import Settings, WrongSetting, misspelt, settings_of_environment
from fhir_server.store.protocol import StoreError

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def serve(
    store: Annotated[str | None, typer.Option(help="sqlite:///…, mongodb://… or memory:// (FHIR_STORE).")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes on the one store.")] = 1,
    allow_unauthenticated: Annotated[bool, typer.Option(help="Serve other machines; no one is identified.")] = False,
) -> None:
    """Serve the FHIR API over HTTP."""
    if not is_loopback(host) and not allow_unauthenticated:
        _refuse(
            f"Listening on {host} would let other machines in, and no authentication is configured. "
            "Use 127.0.0.1, or say --allow-unauthenticated."
        )
    if store is not None:
        os.environ["FHIR_STORE"] = store
    settings = _settings()
    for sentence in misspelt(os.environ):
        typer.echo(sentence, err=True)
    _check_store(settings, workers)
    if (fault := _listening_fault(host, port)) is not None:
        _refuse(fault)
    # uvicorn repeats the signal that stopped it once all is finished: the end of a graceful stop is a success
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    name = f"[{host}]" if ":" in host else host
    _print_urls(f"http://{name}:{port}{settings.path.rstrip('/')}", without_password(settings.store))
    uvicorn.run(
        "fhir_server.app:create",
        factory=True,
        host=host,
        port=port,
        workers=workers if workers > 1 else None,
        access_log=False,
        log_config=_log_config(settings.log_level),
        timeout_graceful_shutdown=math.ceil(settings.request_timeout),
        proxy_headers=False,
        server_header=False,
        date_header=True,
        lifespan="on",
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


def _settings() -> Settings:
    try:
        return settings_of_environment()
    except WrongSetting as error:
        _refuse(str(error))
        raise


def _refuse(sentence: str) -> None:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


def _check_store(settings: Settings, workers: int) -> None:
    """Refuse a store that cannot be served, before several workers try: uvicorn would end with status 0."""
    if settings.store.partition(":")[0] not in STORES:
        _refuse(str(unknown_store(settings.store)))
    if workers == 1:
        return
    if settings.store.startswith("memory:"):
        _refuse("A memory:// store lives in one process; use --workers 1, or sqlite:///PATH.")
    try:
        served_types(settings, definitions.load())
        asyncio.run(_open_and_close(settings.store))
    except (StoreError, ValueError, OSError) as error:
        _refuse(str(error))


async def _open_and_close(uri: str) -> None:
    await (await open_store(uri)).close()


def _listening_fault(host: str, port: int) -> str | None:
    """Why nothing can listen there, or None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            return f"{host} is no address or name of this machine; choose one with --host."
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"Port {port} on {host} is taken by another program; choose one with --port."
            return f"Nothing can listen on port {port} of {host}: {error.strerror}; choose others."
    return None


def _print_urls(base: str, store: str) -> None:
    typer.echo(f"FHIR R4 server on {base} (store {store}). Try:")
    for path in (
        "/metadata",
        "/Patient?_sort=birthdate&_count=5",
        "/Observation?code=http://loinc.org|8867-4&_include=Observation:patient",
        "/Appointment?date=ge2026-01-01&status=booked",
    ):
        typer.echo(f"  curl -s '{base}{path}'")


def _log_config(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "fhir_server.api.log.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"uvicorn": {"handlers": ["stderr"], "level": level.upper(), "propagate": False}},
    }
