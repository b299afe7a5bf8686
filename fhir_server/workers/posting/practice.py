"""What the books of the whole practice are made of, as somebody sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import date, timedelta
from typing import NamedTuple

from fhir_server.fhir.outcome import TooCostly, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, Bound, Clause, DateRange, Equals, Ids, LastUpdated
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
from fhir_server.workers.posting.reading import cut, find_by, find_texts, list_paid_visits, read_named
from fhir_server.workers.posting.writes import find_zone, read_today
from mappers.billing import codes
from mappers.billing.book_elements import BOOKED, read_for_books
from mappers.billing.closing import close_books, continue_books
from mappers.billing.fields import Resource, find_extension, find_reference, make_reference
from mappers.billing.ledger import Books, make_books

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
    """What a report is made of: the closing that it begins with, if there is one, and resources by reference."""

    closing: Closing | None
    resources: dict[str, Resource]

    def make_books(self) -> Books:
        """The books until now."""
        if self.closing is None:
            return make_books(self.resources)
        return continue_books(self.closing.books, self.resources, self.closing.day)


async def read_practice(context: Context, caller: Caller, until: date, most: int | None = MOST) -> Practice:
    """All that the books are made of, as somebody sees it, from the latest closing until a day on.

    Who may not see all begins without a closing, which is of all. Raises TooCostly for more than `most` resources.
    """
    reader = context.reader(caller)
    closing = None if context.policy.restricts(caller.principal) else await find_closing(context, until)
    practice = Practice(closing, {})
    # in this order, since each kind is stored after those that it names: what an active payment names is there, then
    for type in BOOKED:
        where = EVERYTHING if closing is None else _find_later(context, type, closing.day)
        await _add(practice.resources, reader, type, where, most)
    if closing is not None:
        await _add_older(practice, reader, most)
    practice.resources.update(await read_named(find_by(reader), practice.resources.values()))
    return practice


def _find_later(context: Context, type: str, day: date) -> Clause:
    """What may count after a closed day."""
    zone = find_zone(context)
    if type == "ChargeItem":
        return DateRange("entered-date", (Bound("high", "ge", find_instant(day, zone)),))
    return LastUpdated((Bound("low", "ge", find_instant(day - _MARGIN, zone)),))


async def _add(found: dict[str, Resource], reader: Reader, type: str, where: Clause, most: int | None) -> None:
    async for raw in find_texts(reader, type, where):
        each = read_for_books(type, raw)
        found[make_reference(each)] = each
        if most is not None and len(found) > most:
            text = f"The report would read more than {most} resources. Run it as `fhir-server report` on the server."
            raise TooCostly(text)


async def _add_older(practice: Practice, reader: Reader, most: int | None) -> None:
    """What is older and named by what came since: claims, answers, charges, Invoices, and the claims of paid visits."""
    found, opening = practice.resources, practice.closing.books if practice.closing else None
    lines = {entry.line for entry in opening.entries} if opening else set()
    appointments = [each for each in lines if each.startswith("Appointment/")]
    appointments += list_paid_visits(found.values())
    for part in cut(sorted(set(appointments))):
        await _add(found, reader, "Encounter", Equals("appointment", part), most)
    visits = {name for each in found.values() for name in _list_named(each) if name.startswith("Encounter/")}
    visits |= {name for name in found if name.startswith("Encounter/")}
    for part in cut(sorted(visits)):
        await _add(found, reader, "Claim", Equals("encounter", part), most)
    for _ in range(_AGAIN):
        named = {name for each in found.values() for name in _list_named(each)}
        missing = sorted(name for name in named - found.keys() if name.partition("/")[0] in BOOKED)
        if not missing:
            return
        before = len(found)
        for type in BOOKED:
            for part in cut([each.partition("/")[2] for each in missing if each.startswith(f"{type}/")]):
                await _add(found, reader, type, Ids(part), most)
        if len(found) == before:
            return


async def close_month(context: Context, caller: Caller, month: str, pause: Pause) -> date:
    """Close a month that is over, with those before it; what was closed stays. Its last day.

    `pause` waits so many seconds: what had begun to be written when the month was shut is stored then.
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
    await pause(context.settings.request_timeout + _LONGEST_COMMIT)
    practice = await read_practice(context, caller, day - _MARGIN, most=None)
    books = await context.long_work.run(len(practice.resources) * 512, _close, practice, day)
    await keep_closing(context, month, books)
    return day


def _close(practice: Practice, day: date) -> Books:
    return close_books(practice.make_books(), day)


def _list_named(resource: Resource) -> Iterator[str]:
    """The references by which the books tell what belongs together."""
    match resource["resourceType"]:
        case "PaymentReconciliation":
            for detail in resource.get("detail", ()):
                yield from (find_reference(detail.get("response")), find_reference(detail.get("request")))
        case "ClaimResponse":
            yield find_reference(resource.get("request"))
        case "Invoice":
            yield find_reference(find_extension(resource, codes.CLAIM_REFERENCE))
            yield from (find_reference(each.get("chargeItemReference")) for each in resource.get("lineItem", ()))
        case "Claim":
            yield from (find_reference(each.get("claim")) for each in resource.get("related", ()))
            for item in resource.get("item", ()):
                yield find_reference(find_extension(item, codes.CHARGE_ITEM))
