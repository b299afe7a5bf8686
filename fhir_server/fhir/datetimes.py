"""Dates and times as closed intervals in µs since 1970 UTC: a partial date covers its whole span (https://hl7.org/fhir/R4/search.html#date).

Forms and calendar rules: https://hl7.org/fhir/R4/datatypes.html#dateTime.
"""

from __future__ import annotations

import functools
import re
from calendar import isleap, monthrange
from datetime import UTC, date, datetime, timedelta, tzinfo

SECOND = 1_000_000
DAY = 86_400 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]+)?)?"
_OFFSET = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_match_moment = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_CLOCK}{_OFFSET}?", re.ASCII).fullmatch
_match_date = re.compile(r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?", re.ASCII).fullmatch
_find_fraction = re.compile(r"\.([0-9]+)").search


def parse_interval(text: str, zone: tzinfo = UTC) -> tuple[int, int]:
    """The closed interval [low, high] that a date, dateTime, instant or partial form covers, in µs since 1970 UTC.

    A value without an offset is read in `zone`. A leap second (`:60`) is the second before it, in its own minute.
    Raises ValueError with a sentence for any other form and for days that the calendar does not have.
    """
    if len(text) > 10:
        return _parse_moment(text, zone)
    if not _match_date(text):
        raise ValueError(_explain_forms(text))
    try:
        return _parse_days(text, zone)
    except ValueError:
        raise ValueError(f"`{text}` is not a day of the calendar.") from None


@functools.lru_cache(maxsize=256)  # the writes of one commit share their time
def format_instant(micros: int) -> str:
    """`2026-11-23T08:00:00.000Z` for µs since 1970 UTC (truncated to milliseconds)."""
    return (_NAIVE_EPOCH + timedelta(0, 0, micros)).isoformat(timespec="milliseconds") + "Z"


def find_later(first: str, second: str) -> str:
    """The one of two dates or instants that begins later; `first` where `second` is none, or no date."""
    try:
        return second if parse_interval(second)[0] > parse_interval(first)[0] else first
    except ValueError:
        return first


def _parse_moment(text: str, zone: tzinfo) -> tuple[int, int]:
    """The interval of a date with a time to the minute, the second or a fraction of one."""
    if not _match_moment(text):
        raise ValueError(_explain_forms(text))
    is_leap = text[17:19] == "60"
    try:
        moment = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if is_leap else text)
    except ValueError:
        raise ValueError(f"`{text}` is not a day of the calendar.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    since = moment - _EPOCH
    low = since.days * DAY + since.seconds * SECOND + since.microseconds
    if text[16:17] != ":":
        return low, low + 60 * SECOND - 1
    if text[19:20] != ".":
        return low, low + SECOND - 1
    # Digits beyond the microsecond are dropped; both ends are then the same microsecond.
    digits = len(_find_fraction(text)[1])  # type: ignore[index]
    return low, low + (10 ** (6 - digits) - 1 if digits < 6 else 0)


def _parse_days(text: str, zone: tzinfo) -> tuple[int, int]:
    """The interval of a year, month or day; ValueError when the calendar has no such day."""
    year = int(text[:4])
    month = int(text[5:7]) if len(text) > 4 else 1
    ordinal = date(year, month, int(text[8:10]) if len(text) > 7 else 1).toordinal()
    if len(text) == 10:
        after = ordinal + 1
    elif len(text) == 7:
        after = ordinal + monthrange(year, month)[1]
    else:
        after = ordinal + (366 if isleap(year) else 365)
    return _find_midnight(ordinal, zone), _find_midnight(after, zone) - 1


def _find_midnight(ordinal: int, zone: tzinfo) -> int:
    """The first µs of a day in `zone`; the day after 9999-12-31 takes the offset of that day."""
    if zone is UTC:
        return (ordinal - _EPOCH_ORDINAL) * DAY
    last = datetime.max.toordinal()
    since = datetime.fromordinal(min(ordinal, last)).replace(tzinfo=zone) - _EPOCH
    return since.days * DAY + since.seconds * SECOND + max(0, ordinal - last) * DAY


def _explain_forms(text: str) -> str:
    return (
        f"`{text}` is not a date: write `2026`, `2026-11`, `2026-11-23`, `2026-11-23T08:00Z` or "
        "`2026-11-23T08:00:00.000+01:00` (an offset is `Z` or at most `14:00`)."
    )
