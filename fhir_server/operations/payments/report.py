"""`$ar-aging`, `$financial-summary` and the other reports: the books in figures (docs/reports.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta

import orjson

from fhir_server.fhir.outcome import Invalid
from fhir_server.operations.payments.ledger import CSV, SIZE_OF_ONE, read_day
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.workers.posting.practice import MOST, Practice, read_practice
from fhir_server.workers.posting.sendings import read_sendings
from fhir_server.workers.posting.writes import encode, read_now, read_today
from mappers.billing.ledger import Books
from mappers.billing.report_tables import (
    Table,
    list_aging,
    list_denials,
    list_productivity,
    list_provider_adjustments,
    list_summary,
    make_measure_report,
    write_csv,
)
from mappers.billing.reports import (
    Sending,
    age_receivables,
    collect_sent,
    list_open_provider_adjustments,
    measure_productivity,
    rank_denials,
    summarize_finances,
)
from mappers.scheduling.day_sheet import name_whole

Compute = Callable[[Books, Mapping[str, Sending]], Table]
Read = Callable[[Context, Parameters], tuple[date, Compute]]
"""Gives the last day whose closing the report may begin with, and how it is computed."""
_DAY = timedelta(days=1)


async def report(context: Context, request: Request) -> Response:
    """200 with the report of what the caller may see, as a MeasureReport or CSV."""
    name = request.path[-1].removeprefix("$")
    asked = read_parameters(context, request, PARAMETERS[name])
    table = await make_table(context, request.caller, name, asked, None if request.job else MOST)
    if request.media_type == CSV:
        return Response(200, write_csv(table).encode(), content_type=f"{CSV}; charset=utf-8; header=present")
    return Response(200, encode(make_measure_report(table, read_now(context))))


async def make_table(context: Context, caller: Caller, name: str, asked: Parameters, most: int | None) -> Table:
    """A report of at most so many resources. Raises Invalid for what it cannot be asked, TooCostly."""
    until, compute = _REPORTS[name](context, asked)
    about_sending = name in _ABOUT_SENDING
    practice = await read_practice(context, caller, until, most, answers=about_sending)
    claims = practice.rows.claims if about_sending else ()
    sendings = await read_sendings(context, caller, claims)
    if most is None:  # the thread of long work is that of requests, which would wait
        table = await asyncio.to_thread(_make, compute, practice, sendings)
    else:
        table = await context.long_work.run(SIZE_OF_ONE * practice.rows.count(), _make, compute, practice, sendings)
    stored = await context.reader(caller).read_many([key for key, _ in table.rows if "/" in key])
    directory = {key: orjson.loads(each.raw) for key, each in stored.items() if each.raw is not None}
    return replace(table, names={key: name_whole(key, directory) for key in directory})


def _make(compute: Compute, practice: Practice, sendings: Mapping[str, Sending]) -> Table:
    return compute(practice.make_books(), sendings)


def _read_aging(context: Context, asked: Parameters) -> tuple[date, Compute]:
    day = read_day(context, asked, "date")
    age_from = _choose(asked, "age-from", ("service", "responsibility"))
    by = _choose(asked, "by", ("payer", "patient", "provider", "location"))
    return day, lambda books, _: list_aging(age_receivables(books, day, age_from, by), day, by)


def _read_provider_adjustments(context: Context, asked: Parameters) -> tuple[date, Compute]:
    day = read_day(context, asked, "date")
    by = _choose(asked, "by", ("reference", "payer"))
    return day, lambda books, _: list_provider_adjustments(list_open_provider_adjustments(books, day), day, by)


def _read_summary(context: Context, asked: Parameters) -> tuple[date, Compute]:
    start, end = _read_period(context, asked)
    days = int(_choose(asked, "days", ("90", "365")))
    return start - _DAY, lambda books, sendings: list_summary(
        summarize_finances(books, start, end, collect_sent(books, sendings), days), start, end
    )


def _read_denials(context: Context, asked: Parameters) -> tuple[date, Compute]:
    start, end = _read_period(context, asked)
    by = _choose(asked, "by", ("reason", "payer", "provider", "month"))
    return start - _DAY, lambda books, _: list_denials(rank_denials(books, start, end, by), start, end, by)


def _read_productivity(context: Context, asked: Parameters) -> tuple[date, Compute]:
    start, end = _read_period(context, asked)
    return start - _DAY, lambda books, _: list_productivity(measure_productivity(books, start, end), start, end)


def _read_period(context: Context, asked: Parameters) -> tuple[date, date]:
    """Both days included; where they are left out, the month until today."""
    end = read_day(context, asked, "end", read_today(context))
    start = read_day(context, asked, "start", end.replace(day=1))
    if start > end:
        text = f"The period ends on {end}, before it begins on {start}."
        raise Invalid(text, code="value", expression=("end",))
    return start, end


def _choose(asked: Parameters, name: str, choices: tuple[str, ...]) -> str:
    """One of the choices, the first where it is left out."""
    text = asked.text(name) or choices[0]
    if text not in choices:
        told = ", ".join(f"`{each}`" for each in choices)
        raise Invalid(f"`{name}` is one of {told}, not `{text}`.", code="value", expression=(name,))
    return text


_REPORTS: Mapping[str, Read] = {
    "ar-aging": _read_aging,
    "provider-adjustments": _read_provider_adjustments,
    "financial-summary": _read_summary,
    "denials": _read_denials,
    "productivity": _read_productivity,
}
_ABOUT_SENDING = ("financial-summary",)
"""Reports of the whole way of a claim: when it was sent, and what the first answer to it was."""
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "ar-aging": ("date", "age-from", "by"),
    "provider-adjustments": ("date", "by"),
    "financial-summary": ("start", "end", "days"),
    "denials": ("start", "end", "by"),
    "productivity": ("start", "end"),
}
"""By report, what it can be asked."""
