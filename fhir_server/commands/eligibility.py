"""`fhir-server eligibility`: the insurance of a day's visits asked about (docs/x12.md)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.commands.messages import run_with_store
from fhir_server.commands.terminal import make_printable
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.workers.posting.writes import read_today
from fhir_server.workers.x12_visits import Asked, ask_for_day


def eligibility(
    day: Annotated[str, typer.Option(help="A day, such as `2026-03-02`; today where it is left out.")] = "",
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Ask the payers about the coverages of all who come on a day, each once; status 1 where one cannot be asked."""
    try:
        wanted = date.fromisoformat(day) if day else None
    except ValueError:
        typer.echo(f"`{day}` is no day; write it as `2026-03-02`.", err=True)
        raise typer.Exit(2) from None

    async def ask(context: Context, caller: Caller) -> None:
        asked = await ask_for_day(context, caller, wanted or read_today(context))
        Console().print(make_table(asked) if asked else "Nobody comes on that day.")
        if any(each.reason for each in asked):
            raise typer.Exit(1)

    run_with_store(store, ask)


def make_table(asked: Sequence[Asked]) -> Table:
    """A row for each coverage, with its delivery or why there is none."""
    table = Table()
    for title in ("visit", "patient", "coverage", "what"):
        table.add_column(title, overflow="fold")
    for each in asked:
        what = each.reason or (f"asked: {each.task}" if each.made else f"asked before: {each.task}")
        table.add_row(*map(make_printable, (each.start, each.patient, each.coverage, what)))
    return table
