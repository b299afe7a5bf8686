"""`fhir-server user`: people who log in here (docs/access.md)."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import find_roles, read_clock
from fhir_server.commands.on_store import StoreOption, run_on_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.users import User, add_user, change_user, list_users
from fhir_server.settings import Settings
from fhir_server.store.protocol import Store

user = typer.Typer(no_args_is_help=True, help="People who log in here.")

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
        now = read_clock()
        await add_user(store, User(name, role, "", now, fhir_user), password, find_roles(settings))
        typer.echo(f"`{name}` can log in.")

    run_on_store(store, make)


@user.command("list")
def list_(store: StoreOption = None) -> None:
    """Print who can log in, and as what."""

    async def show(store: Store, settings: Settings) -> None:
        table = Table("name", "role", "person", "state")
        for each in await list_users(store):
            cells = (each.name, each.role, each.fhir_user, "disabled" if each.disabled else "")
            table.add_row(*map(make_printable, cells))
        Console().print(table)

    run_on_store(store, show)


@user.command()
def password(name: NameArgument, password: PasswordOption, store: StoreOption = None) -> None:
    """Give a person another password."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, password=password)
        typer.echo(f"`{name}` has another password.")

    run_on_store(store, change)


@user.command()
def disable(name: NameArgument, store: StoreOption = None) -> None:
    """Let a person log in no more; all tokens are worthless within five seconds."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, disabled=True)
        typer.echo(f"`{name}` is disabled.")

    run_on_store(store, change)


@user.command()
def enable(name: NameArgument, store: StoreOption = None) -> None:
    """Let a disabled person log in again."""

    async def change(store: Store, settings: Settings) -> None:
        await change_user(store, name, disabled=False)
        typer.echo(f"`{name}` can log in again.")

    run_on_store(store, change)
