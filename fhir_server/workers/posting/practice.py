"""What the books of the whole practice are made of, as somebody sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import date, timedelta
from typing import NamedTuple

from fhir_server.fhir.outcome import TooCostly, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, Bound, Clause, DateRange, Equals, Ids, LastUpdated, Sort
from fhir_server.security.access import Reader
from fhir_server.workers.posting.closings import (
    Closing,
    find_closing,
    find_instant,
    find_last_day,
    keep_closing,
    list_months,
    shut,
)
from fhir_server.workers.posting.reading import BY_CHANGE, PAGE, cut, find_pages
from fhir_server.workers.posting.writes import find_zone, read_today
from mappers.billing.book_elements import BOOKED, BookReader
from mappers.billing.book_rows import BookRows
from mappers.billing.closing import close_books, continue_books
from mappers.billing.ledger import Books, make_books_of_rows

MOST = 200_000
"""Resources that a report may read."""

_AGAIN = 10
"""Rounds in which what is named is read: claims to later payers name those before them."""
# A clock that lags by so many days would still be found.
_MARGIN = timedelta(days=1)


_LONGEST_COMMIT = 30.0
"""Seconds that a write may wait for other processes after its time limit."""

Pause = Callable[[float], Awaitable[None]]


class Practice(NamedTuple):
    """What a report is made of: the closing that it begins with, if there is one, and what was read."""

    closing: Closing | None
    read: BookReader

    @property
    def rows(self) -> BookRows:
        return self.read.rows

    def make_books(self) -> Books:
        """The books until now."""
        self.rows.sort()
        if self.closing is None:
            return make_books_of_rows(self.rows)
        return continue_books(self.closing.books, self.rows, self.closing.day)


class _Reading(NamedTuple):
    """What is read as somebody sees it, at most so many resources, and where it goes."""

    reader: Reader
    practice: Practice
    most: int | None

    async def add(self, type: str, where: Clause, most: int | None, sort: tuple[Sort, ...] = ()) -> None:
        """Read the rows of a type. Raises TooCostly where they and those before are more than `most`."""
        count = self.practice.rows.count()
        async with aclosing(find_pages(self.reader, type, where, sort)) as pages:
            async for texts in pages:
                count += len(texts)
                if most is not None and count > most:
                    text = f"The report would read more than {most} resources. Run `fhir-server report` on the server."
                    raise TooCostly(text)
                self.practice.read.read_all(type, texts)


async def read_practice(
    context: Context, caller: Caller, until: date, most: int | None = MOST, answers: bool = True
) -> Practice:
    """All that the books are made of, as somebody sees it, from the latest closing until a day on.

    `answers`: with the first answers to claims that the closing knows. Who may not see all begins without a closing,
    which is of all. Raises TooCostly for more than `most` resources.
    """
    closing = None if context.policy.restricts(caller.principal) else await find_closing(context, until, answers)
    practice = Practice(closing, BookReader())
    reading = _Reading(context.reader(caller), practice, most)
    # in this order, since each kind is stored after those that it names: what an active payment names is there, then
    for type in BOOKED:
        where = EVERYTHING if closing is None else _find_later(context, type, closing.day)
        await reading.add(type, where, most, () if isinstance(where, DateRange) else BY_CHANGE)
    if closing is not None:
        await _add_older(reading, closing.books)
    coverages = {each.coverage for each in practice.rows.claims.values() if each.coverage}
    for part in cut(sorted(each.removeprefix("Coverage/") for each in coverages), PAGE):
        await reading.add("Coverage", Ids(part), None)
    for part in cut(sorted(_list_paid_visits(practice.rows))):
        await reading.add("Encounter", Equals("appointment", part), None)
    return practice


def _find_later(context: Context, type: str, day: date) -> Clause:
    """What may count after a closed day."""
    zone = find_zone(context)
    if type == "ChargeItem":
        return DateRange("entered-date", (Bound("high", "ge", find_instant(day, zone)),))
    return LastUpdated((Bound("low", "ge", find_instant(day - _MARGIN, zone)),))


async def _add_older(reading: _Reading, opening: Books) -> None:
    """What is older and named by what came since: claims, answers, charges, Invoices, and the claims of paid visits."""
    found, most = reading.practice.rows, reading.most
    appointments = {entry.line for entry in opening.entries if entry.line.startswith("Appointment/")}
    for part in cut(sorted(appointments | _list_paid_visits(found))):
        await reading.add("Encounter", Equals("appointment", part), most)
    visits = {name for name in _list_named(found) if name.startswith("Encounter/")} | set(found.visits)
    for part in cut(sorted(visits)):
        await reading.add("Claim", Equals("encounter", part), most)
    for _ in range(_AGAIN):
        missing = sorted({name for name in _list_named(found) if not found.has(name)})
        before = found.count()
        for type in BOOKED:
            for part in cut([each.partition("/")[2] for each in missing if each.startswith(f"{type}/")], PAGE):
                await reading.add(type, Ids(part), most)
        if found.count() == before:
            return


def _list_paid_visits(rows: BookRows) -> set[str]:
    """The Appointments that payments by hand name."""
    requests = (detail.request for each in rows.payments.values() if each.by_hand for detail in each.details)
    return {each for each in requests if each.startswith("Appointment/")}


async def close_month(context: Context, caller: Caller, month: str, pause: Pause) -> date:
    """Close a month that is over, with those before it; what was closed stays. Its last day.

    `pause` waits so many seconds, shortly after the end of the month: what was dated in it by the clock is stored then.
    Raises Unprocessable for a month that is not over.
    """
    day = find_last_day(month)
    if day >= read_today(context):
        raise Unprocessable(
            f"The month {month} is not over: its last day is {day}, and today is {read_today(context)}."
        )
    if month in await list_months(context):
        return day
    await shut(context, day)
    # a write may have been dated on the last day of the month before it was over, and be stored so long after that
    ended = find_instant(day + timedelta(days=1), find_zone(context)) / 1_000_000
    remaining = ended + context.settings.request_timeout + _LONGEST_COMMIT - context.clock() / 1_000_000
    if remaining > 0:
        await pause(remaining)
    practice = await read_practice(context, caller, day - _MARGIN, most=None)
    books = await context.long_work.run(practice.rows.count() * 512, _close, practice, day)
    await keep_closing(context, month, books)
    return day


def _close(practice: Practice, day: date) -> Books:
    return close_books(practice.make_books(), day)


def _list_named(rows: BookRows) -> Iterator[str]:
    """The references by which the books tell what belongs together."""
    for payment in rows.payments.values():
        for detail in payment.details:
            yield from (detail.response, detail.request)
    for response in rows.responses.values():
        yield response.claim
    for invoice in rows.invoices.values():
        yield invoice.claim
        yield from (charge for charge, _ in invoice.lines)
    for claim in rows.claims.values():
        yield from claim.related
        yield from (charge for _, charge in claim.lines)
