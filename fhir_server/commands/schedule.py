"""`fhir-server schedule`: a day or a week of the practice as a table at the terminal (docs/scheduling.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, tzinfo
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import open_server
from fhir_server.commands.terminal import make_printable
from fhir_server.fhir.outcome import FhirError
from fhir_server.operations.scheduling.sheet import Sheet, read_sheet
from fhir_server.requests.request import Caller
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from mappers.scheduling.day_sheet import Line, Load, list_lines, measure_load
from mappers.scheduling.intervals import Interval
from mappers.scheduling.wall_clock import day_interval, to_local


def schedule(
    day: Annotated[str, typer.Option(help="A day, such as `2026-03-02`; today when neither is given.")] = "",
    week: Annotated[str, typer.Option(help="The week, from Monday, of a day such as `2026-03-02`.")] = "",
    actor: Annotated[
        list[str] | None, typer.Option(help="Only this `Practitioner/1` or `Location/2`; may be repeated.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Show who comes when on a day, or how full each day of a week is."""
    if day and week:
        typer.echo("Give either --day or --week.", err=True)
        raise typer.Exit(2)
    try:
        wanted = date.fromisoformat(day or week) if day or week else None
    except ValueError:
        typer.echo(f"`{day or week}` is no day; write it as `2026-03-02`.", err=True)
        raise typer.Exit(2) from None
    try:
        asyncio.run(_show(store, wanted, bool(week), actor or []))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


async def _show(store: str | None, day: date | None, whole_week: bool, actors: Sequence[str]) -> None:
    settings = read_settings() if store is None else read_settings(store=store)
    async with open_server(settings) as server:
        sheet = await read_sheet(server.context, Caller(settings.base_url), actors, day, whole_week)
    Console().print(make_week(sheet) if whole_week else make_day(sheet))
    for issue in sheet.issues:
        typer.echo(issue, err=True)


def make_day(sheet: Sheet) -> Table:
    """Visits and blocks by time, and under them what is still free with whom."""
    (day,) = sheet.days
    window = day_interval(day, sheet.zone)
    table = Table(title=f"{day:%A} {day} ({sheet.zone})")
    for title in ("time", "with", "patient", "place", "status", "about"):
        table.add_column(title, overflow="fold")
    lines = list_lines(sheet.request, window)
    for line in lines:
        table.add_row(*map(make_printable, _to_cells(line, sheet)))
    table.add_section()
    for calendar in sheet.request.calendars:
        load = measure_load(sheet.request, calendar, window, lines)
        table.add_row("", make_printable(sheet.names[calendar.schedule]), "", "", "", _describe(load, sheet.zone))
    return table


def make_week(sheet: Sheet) -> Table:
    """A line for each calendar, a column for each day: visits, booked of open hours, the next free time."""
    table = Table(title=f"{sheet.days[0]} to {sheet.days[-1]} ({sheet.zone})")
    table.add_column("with", overflow="fold")
    windows = [day_interval(day, sheet.zone) for day in sheet.days]
    for day in sheet.days:
        table.add_column(f"{day:%a} {day:%m-%d}", overflow="fold")
    lines = list_lines(sheet.request, Interval(windows[0].start, windows[-1].end))
    for calendar in sheet.request.calendars:
        loads = (measure_load(sheet.request, calendar, window, lines) for window in windows)
        cells = [_describe(load, sheet.zone) for load in loads]
        table.add_row(make_printable(sheet.names[calendar.schedule]), *cells)
    return table


def _to_cells(line: Line, sheet: Sheet) -> tuple[str, ...]:
    time = f"{_clock(line.time.start, sheet.zone)}–{_clock(line.time.end, sheet.zone)}"
    return time, line.whom, line.patient, line.place, line.status, line.about


def _describe(load: Load, zone: tzinfo) -> str:
    """`3 visits, 1:30 of 8:00 h, free 10:15`."""
    if not load.open and not load.visits:
        return "closed"
    visits = "1 visit" if load.visits == 1 else f"{load.visits} visits"
    free = f", free {_clock(load.free, zone)}" if load.free is not None else ", nothing free"
    return f"{visits}, {_hours(load.booked)} of {_hours(load.open)} h{free}"


def _hours(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _clock(instant: int, zone: tzinfo) -> str:
    return to_local(instant, zone).strftime("%H:%M")
