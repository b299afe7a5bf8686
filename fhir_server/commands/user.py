"""`fhir-server user`: people who log in here (docs/access.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import find_roles, open_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.users import User, add_user, change_user, list_users
from fhir_server.settings import Settings, read_settings
from fhir_server.store.protocol import Store, StoreError

user = typer.Typer(no_args_is_help=True, help="People who log in here.")

StoreOption = Annotated[str | None, typer.Option("--store", help="Store URI (FHIR_STORE).")]
NameArgument = Annotated[str, typer.Argument(help="The name by which the person logs in.")]
PasswordOption = Annotated[
    str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True, help="Asked for where it is not given.")
]


@user.command()
def add(
    name: NameArgument,
    role: Annotated[str, typer.Option(help="A role of profiles/roles.json.")],
    password: PasswordOption,
    fhir_user: Annotated[str, typer.Option(help="Who it is, such as Practitioner/quill or Patient/ana.")] = "",
    store: StoreOption = None,
) -> None:
    """Add a person."""

    async def make(store: Store, settings: Settings) -> None:
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        await add_user(store, User(name, role, "", now, fhir_user), password, find_roles(settings))
        typer.echo(f"`{name}` can log in.")

    _run(store, make)


@user.command("list")
def list_(store: StoreOption = None) -> None:
    """Print who can log in, and as what."""

    async def show(store: Store, settings: Settings) -> None:
        table = Table("name", "role", "person", "state")
        for each in await list_users(store):
            cells = (each.name, each.role, each.fhir_user, "disabled" if each.disabled else "")
            table.add_row(*map(make_printable, cells))
        Console().print(table)

    _run(store, show)


@user.command()
def password(name: NameArgument, password: PasswordOption, store: StoreOption = None) -> None:
    """Give a person another password."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, password=password)
        typer.echo(f"`{name}` has another password.")

    _run(store, change)


@user.command()
def disable(name: NameArgument, store: StoreOption = None) -> None:
    """Let a person log in no more; all tokens are worthless within five seconds."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, disabled=True)
        typer.echo(f"`{name}` is disabled.")

    _run(store, change)


@user.command()
def enable(name: NameArgument, store: StoreOption = None) -> None:
    """Let a disabled person log in again."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, disabled=False)
        typer.echo(f"`{name}` can log in again.")

    _run(store, change)


def _run(store: str | None, work: Callable[[Store, Settings], Awaitable[None]]) -> None:
    """Do something with a store; an error is a sentence and status 1."""

    async def with_store() -> None:
        settings = read_settings() if store is None else read_settings(store=store)
        opened = await open_store(settings.store)
        try:
            await work(opened, settings)
        finally:
            await opened.close()

    try:
        asyncio.run(with_store())
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
