"""Months that are closed: the books of their last day, kept with the store, from which reports go on (docs/reports.md).

`closing/until` has the last closed day. `closing/kept/<month>` says how many parts a month has: of the balances
(`closing/balances/<month>/<part>`), and of the first answers to claims (`closing/answers/<month>/<part>`). A part is of
JSON, compressed and cut. Answers are of all claims ever and only some reports ask for them, so that they stand apart.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

import msgspec
import orjson

from fhir_server.requests.context import Context
from fhir_server.store.operations import ValueIs
from fhir_server.store.protocol import Store
from fhir_server.workers.posting.writes import read_today
from fhir_server.writes.state import State
from mappers.billing.ledger import Answer, Books

_UNTIL = "closing/until"
_MONTHS = "closing/kept/"
_PART = 4 * 1024 * 1024
_QUICK = 1
"""The level of compression: a closing is read often."""
MONTH_FORM = "%Y-%m"


class Closing(NamedTuple):
    """The books of the last day of a month."""

    day: date
    books: Books


async def read_closed(state: State) -> date | None:
    """The last day that is closed: nothing is posted on it or before it any more.

    What is decided by it is stored only as long as it stays the last one.
    """
    text = await state.context.unrestricted.get_value(_UNTIL)
    state.assertions.append(ValueIs(_UNTIL, text))
    return None if text is None else date.fromisoformat(text.decode())


async def read_posting_day(state: State) -> date:
    """The day on which something counts that is posted now: today, where today is not closed."""
    today, closed = read_today(state.context), await read_closed(state)
    return today if closed is None or closed < today else closed + timedelta(days=1)


async def shut(context: Context, day: date) -> None:
    """From now on nothing is posted on this day or before it: what was decided otherwise is decided again."""
    store = context.unrestricted
    before = await store.get_value(_UNTIL)
    while before is None or date.fromisoformat(before.decode()) < day:
        if await store.put_value_if(_UNTIL, str(day).encode(), before):
            break
        before = await store.get_value(_UNTIL)
    await store.wait_for_open_transactions()


async def find_closing(context: Context, until: date, answers: bool = True) -> Closing | None:
    """The latest closing of a day until this one; `answers`: with the first answers to claims."""
    store = context.unrestricted
    days = [day for month in await list_months(context) if (day := find_last_day(month)) <= until]
    if not days:
        return None
    return Closing(max(days), await _read_books(store, max(days).strftime(MONTH_FORM), answers))


async def list_months(context: Context) -> list[str]:
    """The months whose books are kept, the earliest first."""
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await context.unrestricted.list_values(_MONTHS, after)
        found += [key.removeprefix(_MONTHS) for key, _ in page.values]
        after = page.next
    return found


async def keep_closing(context: Context, month: str, books: Books) -> None:
    """Keep the books of a month; the last write makes them count, and the first who keeps them is right."""
    store = context.unrestricted
    kept = {"balances": replace(books, answers=()), "answers": books.answers}
    numbers = {name: await _keep(store, f"closing/{name}/{month}", value) for name, value in kept.items()}
    await store.put_value_if(f"{_MONTHS}{month}", orjson.dumps(numbers), None)


async def _keep(store: Store, key: str, value: object) -> int:
    """Keep a value in parts; their number."""
    text = zlib.compress(msgspec.json.encode(value), _QUICK)
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    for number, part in enumerate(parts):
        await _put(store, f"{key}/{number:06}", part)
    return len(parts)


async def _put(store: Store, key: str, value: bytes) -> None:
    while not await store.put_value_if(key, value, await store.get_value(key)):
        pass


async def _read_books(store: Store, month: str, answers: bool) -> Books:
    numbers = orjson.loads(await store.get_value(f"{_MONTHS}{month}") or b"{}")
    text = await _read_parts(store, f"closing/balances/{month}", numbers.get("balances", 0))
    books = msgspec.json.decode(text, type=Books)
    if not answers:
        return books
    text = await _read_parts(store, f"closing/answers/{month}", numbers.get("answers", 0))
    return replace(books, answers=msgspec.json.decode(text, type=tuple[Answer, ...]))


async def _read_parts(store: Store, key: str, number: int) -> bytes:
    parts = [await store.get_value(f"{key}/{n:06}") for n in range(number)]
    return zlib.decompress(b"".join(each or b"" for each in parts))


def find_last_day(month: str) -> date:
    """The last day of a month such as `2026-03`. Raises ValueError."""
    first = datetime.strptime(month, MONTH_FORM).date()
    return (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)


def find_instant(day: date, zone: tzinfo) -> int:
    """The first instant of a day in the practice's zone, µs since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000
