"""DTM, TS, DT, TM and DR become dateTime, instant, date, time and Period.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html#Heading47. Precision is kept: a year stays a year. R4 wants seconds and
an offset beside hours (https://hl7.org/fhir/R4/datatypes.html#dateTime); what is filled in for that is told by an
extension that keeps the text as it was sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple

from mappers.hl7v2.context import Cell, Primitive, keep_text
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.partner import find_zone

DTM = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(\.\d{1,9})?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)
TM = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(\.\d{1,9})?)?)?(?:[+-]\d{4})?", re.ASCII)


AMBIGUITIES = {"gap": "falls into the hour that the clock leaves out", "overlap": "exists twice; the earlier is meant"}

NONE = 99
"""The number of a component that no data type has."""


class Moment(NamedTuple):
    """A point in time as FHIR writes it. `exact` is False where something had to be filled in."""

    value: str
    exact: bool
    instant: datetime | None
    ambiguous: str = ""


def choose_zone(message_time: str, zone_name: str) -> tzinfo:
    """The zone of times without offset: the partner's where it agrees with the offset of MSH-7, else that offset."""
    zone = find_zone(zone_name)
    found = DTM.fullmatch(message_time)
    if not found or not found[8] or not found[4]:
        return zone
    offset = _read_offset(found[8])
    moment = read_moment(message_time, UTC)
    if offset is None or moment is None or moment.instant is None:
        return zone
    agrees = moment.instant.astimezone(zone).utcoffset() == offset.utcoffset(None)
    return zone if agrees else offset


def read_moment(text: str, zone: tzinfo) -> Moment | None:
    """Reads a DTM; None where it is none or names a day or hour that does not exist."""
    found = DTM.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, shift = found.groups()
    try:
        local = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    if hour is None:
        return Moment("-".join(each for each in (year, month, day) if each), shift is None, None)
    offset = _read_offset(shift) if shift else None
    if shift and offset is None:
        return None
    aware = local.replace(tzinfo=offset or zone)
    problem = "" if offset else _find_ambiguity(aware, zone)
    microseconds = int((fraction or ".")[1:7].ljust(6, "0"))
    try:
        text_offset = _write_offset(aware.utcoffset())
        instant = aware.astimezone(UTC).replace(microsecond=microseconds)
    except OverflowError:
        return None
    value = f"{local:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + (fraction or "") + text_offset
    return Moment(value, bool(shift and second), instant, problem)


def _read_offset(text: str) -> timezone | None:
    hours, minutes = int(text[1:3]), int(text[3:5])
    if hours > 14 or minutes > 59:
        return None
    size = timedelta(hours=hours, minutes=minutes)
    return timezone(-size if text[0] == "-" else size)


def _write_offset(offset: timedelta | None) -> str:
    minutes = int((offset or timedelta()).total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _find_ambiguity(aware: datetime, zone: tzinfo) -> str:
    """`gap` for a local time that the clock leaves out, `overlap` for one that it shows twice."""
    first, second = aware.utcoffset(), aware.replace(fold=1).utcoffset()
    if first == second:
        return ""
    back = aware.astimezone(UTC).astimezone(zone)
    return "overlap" if back.replace(tzinfo=None) == aware.replace(tzinfo=None) else "gap"


def _read(text: str, cell: Cell) -> Moment | None:
    """Reads a time and warns where it is none, or its local time does not exist or exists twice."""
    moment = read_moment(text, cell.context.zone)
    if moment is None:
        cell.warn("102", f"`{text[:40]}` is no date or time; it is kept as text.")
    elif moment.ambiguous:
        cell.warn("102", f"The local time `{text[:40]}` {AMBIGUITIES[moment.ambiguous]}.")
    return moment


def ts_to_date_time(value: Composite, cell: Cell, *, with_hours: bool = False) -> Any:
    """A dateTime; a Primitive with the text where it had to be completed or is no time."""
    text = value.text()
    if not text:
        return None
    moment = _read(text, cell)
    if moment is None or (with_hours and moment.instant is None):
        return Primitive(None, keep_text(text))
    return moment.value if moment.exact else Primitive(moment.value, keep_text(text))


def ts_to_instant(value: Composite, cell: Cell) -> Any:
    """An instant, which needs hours; a time without them gives only the text."""
    return ts_to_date_time(value, cell, with_hours=True)


def ts_to_date(value: Composite, cell: Cell) -> Any:
    """A date: hours are left out, and kept by the row of `patient-birthTime` or the like."""
    text = value.text()
    if not text:
        return None
    moment = _read(text, cell)
    return moment.value[:10] if moment else Primitive(None, keep_text(text))


def ts_to_time_of_birth(value: Composite, cell: Cell) -> Any:
    """The dateTime of PID-7 where it has hours, else nothing."""
    moment = read_moment(value.text(), cell.context.zone)
    return moment.value if moment and moment.instant else None


def tm_to_time(value: Composite, cell: Cell) -> Any:
    """A time of day with seconds."""
    text = value.text()
    found = TM.fullmatch(text)
    if not found or int(found[1]) > 23 or int(found[2] or 0) > 59 or int(found[3] or 0) > 59:
        cell.warn("102", f"`{text[:40]}` is no time of day; it is kept as text.")
        return Primitive(None, keep_text(text))
    written = f"{found[1]}:{found[2] or '00'}:{found[3] or '00'}{found[4] or ''}"
    return written if found[3] else Primitive(written, keep_text(text))


def dr_to_period(value: Composite, cell: Cell) -> dict[str, Any] | None:
    """A Period from a range of two times."""
    return read_period(value, (1, 2, NONE), cell) or None


def read_period(value: Composite, numbers: tuple[int, int, int], cell: Cell) -> dict[str, Any]:
    """A Period from two components, else from a range in a third; `NONE` stands for a component that is not there."""
    *ends, both = numbers
    period: dict[str, Any] = {}
    if len(value.parts) < min(numbers):
        return period
    for name, number in zip(("start", "end"), ends, strict=True):
        put_primitive(period, name, ts_to_date_time(value.part(number), cell))
    return period or dr_to_period(value.part(both), cell) or {}


def dr_to_date_time(value: Composite, cell: Cell) -> Any:
    """The dateTime of a range that has no end, else nothing."""
    return None if value.text(2) else ts_to_date_time(value.part(1), cell)


def dr_to_closed_period(value: Composite, cell: Cell) -> Any:
    """The Period of a range that has an end, else nothing."""
    return dr_to_period(value, cell) if value.text(2) else None


def put_primitive(target: dict[str, Any], name: str, value: Any) -> None:
    """Sets an element, and its extensions beside it where the value has some."""
    if isinstance(value, Primitive):
        if value.value is not None:
            target[name] = value.value
        if value.extension:
            target[f"_{name}"] = {"extension": value.extension}
    elif value is not None:
        target[name] = value


def add_minutes(moment: str, minutes: float | None) -> str:
    """A FHIR dateTime with an offset, moved by minutes; "" without minutes, and in the last year that there is."""
    if not minutes or moment.startswith("9999"):
        return ""
    return (datetime.fromisoformat(moment) + timedelta(minutes=minutes)).isoformat()
