"""`fhir-server user`: people who log in here (docs/access.md)."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import find_roles, read_clock
from fhir_server.commands.on_store import StoreOption, run_on_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.totp import make_secret, make_uri
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
    totp: Annotated[bool, typer.Option("--totp", help="With a second factor, whose secret is printed once.")] = False,
    organization: Annotated[str, typer.Option(help="For which it works, such as Organization/north.")] = "",
    store: StoreOption = None,
) -> None:
    """Add a person."""

    async def make(store: Store, settings: Settings) -> None:
        now = read_clock()
        secret = make_secret() if totp else ""
        made = User(name, role, "", now, fhir_user, totp=secret, organization=organization)
        await add_user(store, made, password, find_roles(settings))
        typer.echo(f"`{name}` can log in.")
        _print_secret(made)

    run_on_store(store, make)


@user.command("list")
def list_(store: StoreOption = None) -> None:
    """Print who can log in, and as what."""

    async def show(store: Store, settings: Settings) -> None:
        table = Table("name", "role", "person", "state")
        for each in await list_users(store):
            states = ["disabled"] * each.disabled + ["second factor"] * bool(each.totp)
            cells = (each.name, each.role, each.fhir_user, ", ".join(states))
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
def totp(
    name: NameArgument,
    off: Annotated[bool, typer.Option("--off", help="Without a second factor from now on.")] = False,
    store: StoreOption = None,
) -> None:
    """Give a person a second factor, or another one; its secret is printed once."""

    async def change(store: Store, settings: Settings) -> None:
        changed = await change_user(store, name, totp="" if off else make_secret())
        typer.echo(f"`{name}` logs in {'without' if off else 'with'} a second factor.")
        _print_secret(changed)

    run_on_store(store, change)


def _print_secret(person: User) -> None:
    """What the authenticator app of a person needs, where there is a second factor."""
    if person.totp:
        typer.echo(f"For the authenticator app, now and never again: {person.totp}\n{make_uri(person, 'fhir-server')}")


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
