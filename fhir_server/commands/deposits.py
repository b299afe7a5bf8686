"""`fhir-server deposits`: what the bank got, matched with what payers say they paid (docs/payments.md)."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import open_server
from fhir_server.commands.terminal import make_printable
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.request import Caller
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers.posting.deposits import OpenMoney, list_open_money, settle_deposits
from fhir_server.workers.posting.writes import read_today
from mappers.billing.deposits import Deposit, read_deposits
from mappers.billing.fields import find_reference, to_amount

_LARGEST = 10 * 1024 * 1024
_LOOK_BACK = timedelta(days=90)


def deposits(
    file: Annotated[Path | None, typer.Argument(help="CSV with the columns trace, amount and date.")] = None,
    since: Annotated[
        str, typer.Option(help="List remittances paid since this day; 90 days where it is left out.")
    ] = "",
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Match the bank's deposits with remittances, and list what has no other half."""
    found = [] if file is None else _read(file)
    try:
        day = date.fromisoformat(since) if since else None
    except ValueError:
        typer.echo(f"`{since}` is no day; write it as `2026-03-02`.", err=True)
        raise typer.Exit(2) from None
    try:
        asyncio.run(_run(store, found, day))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _read(file: Path) -> list[Deposit]:
    """The deposits of a file; ends the command where one of its lines is wrong, so that nothing of it is stored."""
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("it is larger than 10 MiB; part it")
        found, issues = read_deposits(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        typer.echo(f"`{file}` cannot be read: {error}.", err=True)
        raise typer.Exit(1) from None
    for issue in issues:
        typer.echo(f"{file}, {issue.expression[0]}: {make_printable(issue.diagnostics)}", err=True)
    if issues:
        typer.echo("Nothing was stored.", err=True)
        raise typer.Exit(1)
    return found


async def _run(store: str | None, found: list[Deposit], since: date | None) -> None:
    settings = read_settings() if store is None else read_settings(store=store)
    async with open_server(settings) as server:
        caller = Caller(settings.base_url)
        matched = await settle_deposits(server.context, caller, found)
        since = since or read_today(server.context) - _LOOK_BACK
        open_money = await list_open_money(server.context, caller, since)
    typer.echo(f"{matched} deposits found their remittance.")
    _show(open_money, since)


def _show(found: OpenMoney, since: date) -> None:
    table = Table("deposit without a remittance")
    for task in found.deposits:
        table.add_row(make_printable(str(task.get("description", ""))))
    Console().print(table)
    table = Table("paid", "trace", "amount", "payer", "remittance", title=f"Without a deposit, since {since}")
    for each in found.remittances:
        issuer = each.get("paymentIssuer") or {}
        payer = find_reference(issuer) or str(issuer.get("display", ""))
        trace = str((each.get("paymentIdentifier") or {}).get("value", ""))
        cells = (str(each.get("paymentDate", "")), trace, f"{to_amount(each['paymentAmount']):.2f}", payer, each["id"])
        table.add_row(*map(make_printable, cells))
    Console().print(table)
