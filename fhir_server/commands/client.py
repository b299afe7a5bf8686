"""`fhir-server client`: systems and apps that get tokens here (docs/access.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import open_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.clients import Client, add_client, list_clients, read_public_keys, revoke_client
from fhir_server.settings import read_settings
from fhir_server.store.protocol import Store, StoreError

client = typer.Typer(no_args_is_help=True, help="Systems and apps that get tokens here.")

StoreOption = Annotated[str | None, typer.Option("--store", help="Store URI (FHIR_STORE).")]
NameArgument = Annotated[str, typer.Argument(help="The client's name, its `client_id`.")]


@client.command()
def add(
    name: NameArgument,
    scope: Annotated[str, typer.Option(help="The most that it gets, such as 'system/Observation.rs'.")],
    keys: Annotated[Path | None, typer.Option(help="Of a system: file of its public keys, a JSON Web Key Set.")] = None,
    redirect: Annotated[list[str] | None, typer.Option(help="Of an app: a URL at which it goes on.")] = None,
    store: StoreOption = None,
) -> None:
    """Register a system, with its keys, or an app, with its URLs."""

    async def make(store: Store) -> None:
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        await add_client(store, Client(name, scope, _read_keys(keys), now, redirect or []))
        typer.echo(f"`{name}` gets tokens at [base]/auth/token.")

    _run(store, make)


def _read_keys(file: Path | None) -> list[dict[str, Any]]:
    try:
        return [] if file is None else read_public_keys(orjson.loads(file.read_bytes()))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"`{file}` is not JSON: {error}.") from None


@client.command("list")
def list_(store: StoreOption = None) -> None:
    """Print the clients with their scopes and the names of their keys."""

    async def show(store: Store) -> None:
        table = Table("client", "scopes", "keys or URLs", "since")
        for each in await list_clients(store):
            since = datetime.fromtimestamp(each.created / 1_000_000, UTC).strftime("%Y-%m-%d")
            cells = (each.id, each.scopes, " ".join([*(key["kid"] for key in each.keys), *each.redirects]), since)
            table.add_row(*map(make_printable, cells))
        Console().print(table)

    _run(store, show)


@client.command()
def revoke(name: NameArgument, store: StoreOption = None) -> None:
    """Forget a client; its tokens are worthless within five seconds."""

    async def remove(store: Store) -> None:
        if not await revoke_client(store, name):
            raise ValueError(f"There is no client `{name}`; `fhir-server client list` prints them.")
        typer.echo(f"The client `{name}` is revoked.")

    _run(store, remove)


def _run(store: str | None, work: Callable[[Store], Awaitable[None]]) -> None:
    """Do something with a store; an error is a sentence and status 1."""

    async def with_store() -> None:
        settings = read_settings() if store is None else read_settings(store=store)
        opened = await open_store(settings.store)
        try:
            await work(opened)
        finally:
            await opened.close()

    try:
        asyncio.run(with_store())
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
