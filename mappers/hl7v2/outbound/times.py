"""dateTime, instant, date, time and Period become DTM, TM and DR, with the precision and the offset that they have."""

from __future__ import annotations

import re
from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import TEXT_EXTENSION
from mappers.hl7v2.datatypes.times import TM, read_moment
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.outbound.codes import compose
from mappers.hl7v2.outbound.receiver import Writing

DATE_TIME = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d))?)?)?", re.ASCII)


def write_moment(value: str) -> str:
    """`2024-03-05T12:00:00-06:00` as `20240305120000-0600`, `2024-03` as `202403`; "" where it is no dateTime."""
    found = DATE_TIME.fullmatch(value)
    if not found:
        return ""
    *parts, offset = (each or "" for each in found.groups())
    return "".join(parts) + ("+0000" if offset == "Z" else offset.replace(":", ""))


def write_date_time(holder: Resource, name: str, writing: Writing) -> str:
    """Takes a dateTime out of what holds it: the text as the partner sent it, where it still means the same."""
    value = str(holder.pop(name, "") or "")
    beside = holder.get(f"_{name}", {})
    texts = [each for each in beside.get("extension", []) if each.get("url") == TEXT_EXTENSION]
    sent = str(texts[0].get("valueString", "")) if texts else ""
    moment = read_moment(sent, writing.zone) if sent else None
    if sent and (not value or (moment and moment.value == value)):
        return sent
    written = write_moment(value)
    if value and not written:
        holder[name] = value
    return written


def write_time(holder: Resource, name: str) -> str:
    """Takes a time of day, as TM."""
    value = str(holder.pop(name))
    beside = holder.get(f"_{name}", {}).get("extension", [])
    sent = next((str(each.get("valueString", "")) for each in beside if each.get("url") == TEXT_EXTENSION), "")
    plain = value.replace(":", "")
    return sent if TM.fullmatch(sent) and plain.startswith(sent) else plain


def write_period(period: Resource, writing: Writing) -> Composite | None:
    """A Period as DR."""
    return compose(write_date_time(period, "start", writing), write_date_time(period, "end", writing))


def take_period(owner: Resource, writing: Writing, name: str = "period") -> tuple[str, str]:
    """Takes the start and the end of a Period of a data type; "" for what is not told."""
    period: Any = owner.get(name)
    if not isinstance(period, dict):
        return "", ""
    return write_date_time(period, "start", writing), write_date_time(period, "end", writing)
