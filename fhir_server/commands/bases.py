"""`fhir-server bases`: the base URLs by which the resources of a store were written (docs/bases.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from fhir_server.app import open_server
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.bases import KnownBases
from fhir_server.settings import BASE_URL, read_settings
from fhir_server.store.protocol import StoreError

bases = typer.Typer(no_args_is_help=True, help="By which base URLs the resources of a store were written.")

StoreOption = Annotated[str | None, typer.Option("--store", help="Store URI (FHIR_STORE).")]
UrlArgument = Annotated[str, typer.Argument(help="Base URL, such as https://fhir.clinic.example/fhir.")]


@bases.command("list")
def list_(store: StoreOption = None) -> None:
    """Print each of them."""

    async def show(known: KnownBases) -> None:
        typer.echo("\n".join(known.known) or "None is known; `fhir-server bases add URL` names one.")

    _run(store, show)


@bases.command()
def add(url: UrlArgument, store: StoreOption = None) -> None:
    """Name another one; a reindex then takes references below it for this server's own."""
    base = url.rstrip("/")
    if not BASE_URL.fullmatch(base):
        typer.echo(f"`{url}` is no base URL; write it whole, such as `https://fhir.clinic.example/fhir`.", err=True)
        raise typer.Exit(2)

    async def keep(known: KnownBases) -> None:
        await known.remember(base)
        typer.echo(f"{base} is a base URL of this store. Resources that were stored before need `fhir-server reindex`.")

    _run(store, keep)


@bases.command()
def retire(url: UrlArgument, store: StoreOption = None) -> None:
    """Forget one; a reindex then takes references below it for foreign ones."""

    async def forget(known: KnownBases) -> None:
        if not await known.retire(url.rstrip("/")):
            raise ValueError(f"`{url}` is no base URL of this store; `fhir-server bases list` prints them.")
        typer.echo(f"{url} is retired. References below it stay what they are until `fhir-server reindex`.")

    _run(store, forget)


def _run(store: str | None, work: Callable[[KnownBases], Awaitable[None]]) -> None:
    """Do something with the bases of a store; an error is a sentence and status 1."""

    async def with_bases() -> None:
        settings = read_settings() if store is None else read_settings(store=store)
        async with open_server(settings) as server:
            await work(server.context.bases)

    try:
        asyncio.run(with_bases())
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
