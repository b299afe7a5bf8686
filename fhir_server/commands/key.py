"""`fhir-server key`: the keys with which this server signs who logged in (docs/access.md)."""

from __future__ import annotations

import typer

from fhir_server.app import read_clock
from fhir_server.commands.on_store import StoreOption, run_on_store
from fhir_server.security.signing_keys import list_public_keys, rotate_signing_key
from fhir_server.settings import Settings
from fhir_server.store.protocol import Store

key = typer.Typer(no_args_is_help=True, help="Keys by which apps verify who logged in.")


@key.command("list")
def list_(store: StoreOption = None) -> None:
    """Print the ids of the keys that are published; the first one signs."""

    async def show(store: Store, settings: Settings) -> None:
        for each in await list_public_keys(store, read_clock):
            typer.echo(each["kid"])

    run_on_store(store, show)


@key.command()
def rotate(store: StoreOption = None) -> None:
    """Sign with a new key from now on; the one before is published until what it signed has ended."""

    async def change(store: Store, settings: Settings) -> None:
        typer.echo(f"The key `{await rotate_signing_key(store, read_clock)}` signs from now on.")

    run_on_store(store, change)
