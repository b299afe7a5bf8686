"""Dates as intervals: https://hl7.org/fhir/R4/datatypes.html#dateTime, https://hl7.org/fhir/R4/search.html#date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.datetimes import format_instant, parse_interval

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def micros(text: str) -> int:
    """µs of a full UTC time such as `2026-11-23T08:00:00.000000`."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2026", "2026-01-01T00:00:00", "2026-12-31T23:59:59.999999"),
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("1900", "1900-01-01T00:00:00", "1900-12-31T23:59:59.999999"),
        ("2000", "2000-01-01T00:00:00", "2000-12-31T23:59:59.999999"),
        ("2026-02", "2026-02-01T00:00:00", "2026-02-28T23:59:59.999999"),
        ("2024-02", "2024-02-01T00:00:00", "2024-02-29T23:59:59.999999"),
        ("2026-12", "2026-12-01T00:00:00", "2026-12-31T23:59:59.999999"),
        ("2026-11-23", "2026-11-23T00:00:00", "2026-11-23T23:59:59.999999"),
        ("2026-11-23T08:00Z", "2026-11-23T08:00:00", "2026-11-23T08:00:59.999999"),
        ("2026-11-23T08:00+02:00", "2026-11-23T06:00:00", "2026-11-23T06:00:59.999999"),
        ("2026-11-23T08:00:07Z", "2026-11-23T08:00:07", "2026-11-23T08:00:07.999999"),
        ("2026-11-23T08:00:07", "2026-11-23T08:00:07", "2026-11-23T08:00:07.999999"),
        ("2026-11-23T08:00:07.5Z", "2026-11-23T08:00:07.500000", "2026-11-23T08:00:07.599999"),
        ("2026-11-23T08:00:07.123Z", "2026-11-23T08:00:07.123000", "2026-11-23T08:00:07.123999"),
        ("2026-11-23T08:00:07.123-05:00", "2026-11-23T13:00:07.123000", "2026-11-23T13:00:07.123999"),
        ("2026-11-23T08:00:07.123456Z", "2026-11-23T08:00:07.123456", "2026-11-23T08:00:07.123456"),
        ("2026-11-23T08:00:07.123456789Z", "2026-11-23T08:00:07.123456", "2026-11-23T08:00:07.123456"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59", "2016-12-31T23:59:59.999999"),
        ("2016-12-31T23:59:60.25Z", "2016-12-31T23:59:59.250000", "2016-12-31T23:59:59.259999"),
        ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T23:59:59.999999"),
        ("9999-12-31", "9999-12-31T00:00:00", "9999-12-31T23:59:59.999999"),
        ("9999", "9999-01-01T00:00:00", "9999-12-31T23:59:59.999999"),
        ("2026-11-23T00:00:00+14:00", "2026-11-22T10:00:00", "2026-11-22T10:00:00.999999"),
    ],
)
def test_a_partial_date_covers_its_whole_span(text: str, low: str, high: str) -> None:
    assert parse_interval(text) == (micros(low), micros(high))


@pytest.mark.parametrize(
    ("text", "zone", "low", "high"),
    [
        ("2026-11-23", BERLIN, "2026-11-22T23:00:00", "2026-11-23T22:59:59.999999"),
        ("2026-11-23T08:00:00", BERLIN, "2026-11-23T07:00:00", "2026-11-23T07:00:00.999999"),
        ("2026-11-23T08:00:00Z", BERLIN, "2026-11-23T08:00:00", "2026-11-23T08:00:00.999999"),
        # Summer time starts on 2026-03-29 in Berlin (a day of 23 hours) and ends on 2026-11-01 in New York (25 hours).
        ("2026-03-29", BERLIN, "2026-03-28T23:00:00", "2026-03-29T21:59:59.999999"),
        ("2026-11-01", NEW_YORK, "2026-11-01T04:00:00", "2026-11-02T04:59:59.999999"),
        ("2026", NEW_YORK, "2026-01-01T05:00:00", "2027-01-01T04:59:59.999999"),
    ],
)
def test_a_value_without_offset_is_taken_in_the_zone(text: str, zone: ZoneInfo, low: str, high: str) -> None:
    assert parse_interval(text, zone) == (micros(low), micros(high))


@pytest.mark.parametrize("text", ["0001", "9999", "9999-12-31", "0001-01-01", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("zone", [ZoneInfo("Asia/Tokyo"), NEW_YORK])
def test_the_ends_of_the_calendar_have_intervals_in_every_zone(text: str, zone: ZoneInfo) -> None:
    low, high = parse_interval(text, zone)
    assert low < high


@pytest.mark.parametrize("text", ["2026-02-29", "2026-13", "2026-00", "2026-11-31", "2026-06-31T10:00:00Z", "0000"])
def test_days_that_no_calendar_has_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"`{text}` is not a day of the calendar"):
        parse_interval(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20261123",
        "2026-W01",
        "26-11-23",
        "2026-1-1",
        "2026-11-23T",
        "2026-11-23T08Z",
        "2026-11-23 08:00:00Z",
        "2026-11-23T24:00:00Z",  # "The time "24:00" is not allowed"
        "2026-11-23T08:60:00Z",
        "2026-11-23T08:00:61Z",
        "2026-11-23T08:00:00+15:00",
        "2026-11-23T08:00:00+14:30",
        "2026-11-23T08:00:00,5Z",
        "2026-11-23Z",
        "２０２６-11-23",
        "today",
    ],
)
def test_other_forms_are_refused_with_the_valid_ones(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date: write `2026`"):
        parse_interval(text)


def test_an_instant_is_written_to_the_millisecond() -> None:
    assert format_instant(micros("2026-11-23T08:00:00.000000")) == "2026-11-23T08:00:00.000Z"
    assert format_instant(micros("2026-11-23T08:00:00.123999")) == "2026-11-23T08:00:00.123Z"
    assert format_instant(micros("1969-12-31T23:59:59.999000")) == "1969-12-31T23:59:59.999Z"


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_what_instant_writes_interval_reads(moment: datetime) -> None:
    whole = (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1) * 1000
    assert parse_interval(format_instant(whole)) == (whole, whole + 999)


@given(st.text(max_size=30))
def test_arbitrary_text_is_an_interval_or_a_value_error(text: str) -> None:
    try:
        low, high = parse_interval(text)
    except ValueError:
        return
    assert low <= high
