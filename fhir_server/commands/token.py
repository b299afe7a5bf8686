"""`fhir-server token`: tokens for interface engines and scripts (docs/access.md)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import find_roles, read_clock
from fhir_server.commands.on_store import StoreOption, run_on_store
from fhir_server.commands.terminal import make_printable
from fhir_server.security.static_tokens import StaticToken, create_token, list_tokens, revoke_token
from fhir_server.settings import Settings
from fhir_server.store.protocol import Store

token = typer.Typer(no_args_is_help=True, help="Tokens for interface engines and scripts.")

NameOption = Annotated[str, typer.Option("--name", help="A name of your own for it.")]

_DURATION = re.compile(r"([1-9][0-9]{0,4})([dh])")
_HOUR = 3600 * 1_000_000


@token.command()
def create(
    name: NameOption,
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces, such as 'system/Observation.cruds'.")] = "",
    role: Annotated[str, typer.Option(help="A role of profiles/roles.json, whose scopes it has as well.")] = "",
    patient: Annotated[str, typer.Option(help="Id of the patient whom `patient/` scopes speak of.")] = "",
    expires: Annotated[str, typer.Option(help="How long it is good: days (90d) or hours (12h).")] = "90d",
    organization: Annotated[str, typer.Option(help="What `{organization}` is in the role's scopes.")] = "",
    store: StoreOption = None,
) -> None:
    """Make a token and print it, once."""

    async def make(store: Store, settings: Settings) -> None:
        now = read_clock()
        made = StaticToken(name, scope, role, patient, now, now + _parse_duration(expires), 0, organization)
        typer.echo(await create_token(store, made, find_roles(settings)))
        typer.echo(f"It is good until {_show(made.expires)} and is not shown again.", err=True)

    run_on_store(store, make)


@token.command("list")
def list_(store: StoreOption = None) -> None:
    """Print what each token allows, until when, and when it was last used."""

    async def show(store: Store, settings: Settings) -> None:
        table = Table("name", "role", "scopes", "patient", "expires", "last used")
        for each in await list_tokens(store):
            used = _show(each.used) if each.used else "never"
            cells = (each.name, each.role, each.scopes, each.patient, _show(each.expires), used)
            table.add_row(*map(make_printable, cells))
        Console().print(table)

    run_on_store(store, show)


@token.command()
def revoke(name: NameOption, store: StoreOption = None) -> None:
    """Make a token worthless; all processes know it within five seconds."""

    async def remove(store: Store, settings: Settings) -> None:
        if not await revoke_token(store, name):
            raise ValueError(f"There is no token `{name}`; `fhir-server token list` prints them.")
        typer.echo(f"The token `{name}` is revoked.")

    run_on_store(store, remove)


def _show(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _parse_duration(text: str) -> int:
    """µs of a text such as `90d`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no duration; write days or hours, such as `90d` or `12h`.")
    return int(match[1]) * (24 * _HOUR if match[2] == "d" else _HOUR)
