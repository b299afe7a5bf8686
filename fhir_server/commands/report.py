"""`fhir-server report`: receivables, finances, denials and productivity at the terminal (docs/reports.md)."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as Screen

from fhir_server.app import open_server, spare_collections
from fhir_server.commands.terminal import make_printable
from fhir_server.fhir.outcome import FhirError
from fhir_server.operations.payments.report import make_table
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.requests.request import Caller
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from mappers.billing.report_tables import Table, list_cells, sum_money, write_csv

report = typer.Typer(no_args_is_help=True, help="Show a report of the practice's money as a table.")

_Date = Annotated[str, typer.Option(help="The day, such as `2026-03-31`; today where it is left out.")]
_Start = Annotated[
    str, typer.Option(help="The first day; the first of the month of the last day where it is left out.")
]
_End = Annotated[str, typer.Option(help="The last day; today where it is left out.")]
_Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
_Store = Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")]


@report.command("ar-aging")
def ar_aging(
    date: _Date = "",
    by: Annotated[str, typer.Option(help="`payer`, `patient`, `provider` or `location`.")] = "payer",
    age_from: Annotated[str, typer.Option(help="`service` or `responsibility`.")] = "service",
    csv: _Csv = False,
    store: _Store = None,
) -> None:
    """Show what is open on a day, by its age."""
    _run(store, csv, "ar-aging", {"date": date, "by": by, "age-from": age_from})


@report.command("provider-adjustments")
def provider_adjustments(
    date: _Date = "",
    by: Annotated[str, typer.Option(help="`reference` or `payer`.")] = "reference",
    csv: _Csv = False,
    store: _Store = None,
) -> None:
    """Show what payers have kept back or advanced outside of claims, and is open."""
    _run(store, csv, "provider-adjustments", {"date": date, "by": by})


@report.command("financial-summary")
def financial_summary(
    start: _Start = "",
    end: _End = "",
    days: Annotated[str, typer.Option(help="Days that days in receivables look back: `90` or `365`.")] = "90",
    csv: _Csv = False,
    store: _Store = None,
) -> None:
    """Show charges, payments, adjustments, rates and delays of a period."""
    _run(store, csv, "financial-summary", {"start": start, "end": end, "days": days})


@report.command("denials")
def denials(
    start: _Start = "",
    end: _End = "",
    by: Annotated[str, typer.Option(help="`reason`, `payer`, `provider` or `month`.")] = "reason",
    csv: _Csv = False,
    store: _Store = None,
) -> None:
    """Show the denials of a period, the largest sums first."""
    _run(store, csv, "denials", {"start": start, "end": end, "by": by})


@report.command("productivity")
def productivity(start: _Start = "", end: _End = "", csv: _Csv = False, store: _Store = None) -> None:
    """Show visits, charges and money of a period by provider."""
    _run(store, csv, "productivity", {"start": start, "end": end})


def _run(store: str | None, csv: bool, name: str, values: dict[str, str]) -> None:
    asked = Parameters(name, {key: [value] for key, value in values.items() if value})
    try:
        table = asyncio.run(_make(store, name, asked))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if csv:
        typer.echo(write_csv(table).replace("\r\n", "\n"), nl=False)
    else:
        Console().print(make_screen(table))


async def _make(store: str | None, name: str, asked: Parameters) -> Table:
    settings = read_settings() if store is None else read_settings(store=store)
    async with open_server(settings) as server:
        spare_collections()
        return await make_table(server.context, Caller(settings.base_url), name, asked, None)


def make_screen(table: Table) -> Screen:
    """A table for a terminal, with the sums of money under it."""
    header, lines = list_cells(table)
    period = str(table.end) if table.start == table.end else f"{table.start} to {table.end}"
    screen = Screen(title=f"{table.name} {period}")
    for number, title in enumerate(header):
        screen.add_column(title, justify="right" if number > int(bool(table.by)) else "left", overflow="fold")
    for line in lines:
        screen.add_row(*map(make_printable, line))
    if table.by and table.rows:
        screen.add_section()
        screen.add_row("", "", *sum_money(table))
    return screen
