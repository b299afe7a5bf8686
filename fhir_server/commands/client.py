"""`fhir-server client`: systems and apps that get tokens here (docs/access.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import read_clock
from fhir_server.commands.on_store import StoreOption, run_on_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.clients import Client, add_client, list_clients, read_public_keys, revoke_client
from fhir_server.settings import Settings
from fhir_server.store.protocol import Store

client = typer.Typer(no_args_is_help=True, help="Systems and apps that get tokens here.")

NameArgument = Annotated[str, typer.Argument(help="The client's name, its `client_id`.")]


@client.command()
def add(
    name: NameArgument,
    scope: Annotated[str, typer.Option(help="The most that it gets, such as 'system/Observation.rs'.")],
    keys: Annotated[Path | None, typer.Option(help="Of a system: file of its public keys, a JSON Web Key Set.")] = None,
    redirect: Annotated[list[str] | None, typer.Option(help="Of an app: a URL at which it goes on.")] = None,
    launch: Annotated[str, typer.Option(help="Of an app: the URL at which an EHR starts it.")] = "",
    native: Annotated[bool, typer.Option("--native", help="It runs on a person's machine, on any port.")] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Of an app in the browser: the origin of its pages, https://growth.example."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Register a system, with its keys, or an app, with its URLs."""

    async def make(store: Store, settings: Settings) -> None:
        now = read_clock()
        await add_client(
            store, Client(name, scope, _read_keys(keys), now, redirect or [], launch, native, origin or [])
        )
        typer.echo(f"`{name}` gets tokens at [base]/auth/token.")

    run_on_store(store, make)


def _read_keys(file: Path | None) -> list[dict[str, Any]]:
    try:
        return [] if file is None else read_public_keys(orjson.loads(file.read_bytes()))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"`{file}` is not JSON: {error}.") from None


@client.command("list")
def list_(store: StoreOption = None) -> None:
    """Print the clients with their scopes and the names of their keys."""

    async def show(store: Store, settings: Settings) -> None:
        table = Table("client", "scopes", "keys or URLs", "since")
        for each in await list_clients(store):
            since = datetime.fromtimestamp(each.created / 1_000_000, UTC).strftime("%Y-%m-%d")
            cells = (each.id, each.scopes, " ".join([*(key["kid"] for key in each.keys), *each.redirects]), since)
            table.add_row(*map(make_printable, cells))
        Console().print(table)

    run_on_store(store, show)


@client.command()
def revoke(name: NameArgument, store: StoreOption = None) -> None:
    """Forget a client; its tokens are worthless within five seconds."""

    async def remove(store: Store, settings: Settings) -> None:
        if not await revoke_client(store, name):
            raise ValueError(f"There is no client `{name}`; `fhir-server client list` prints them.")
        typer.echo(f"The client `{name}` is revoked.")

    run_on_store(store, remove)
