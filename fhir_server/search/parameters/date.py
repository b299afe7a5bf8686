"""Date parameters: intervals against an interval (https://hl7.org/fhir/R4/search.html#date, #prefix).

With the search value covering [sl, sh] and a stored value [low, high]:

| prefix | holds when | R4 |
|---|---|---|
| eq | low ≥ sl and high ≤ sh | "the range of the search value fully contains the range of the target value" |
| ne | low < sl or high > sh | it does not contain it |
| gt, lt | high > sh; low < sl | the range above (below) the search value overlaps the target |
| ge, le | gt or eq; lt or eq | |
| sa, eb | low > sh; high < sl | they do not overlap, and the target lies above (below) |
| ap | they overlap, the search value widened by a tenth of its distance to now | |
"""

from __future__ import annotations

from typing import Any

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.search.entries import OPEN_HIGH, OPEN_LOW, DateEntry
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import (
    APPROXIMATION,
    Alternatives,
    Criteria,
    ParameterType,
    Surroundings,
    make_or,
    reject,
    split_prefix,
)
from fhir_server.search.query import Bound, Clause, DateRange, LastUpdated
from fhir_server.search.registry import Parameter


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The intervals that the prefix and the date ask for."""
    if parameter.code == "_lastUpdated":
        return make_or(LastUpdated(bounds) for bounds in _parse_point_alternatives(parameter, text, criteria))
    return make_or(DateRange(parameter.code, bounds) for bounds in parse_alternatives(parameter, text, criteria))


def parse_alternatives(parameter: Parameter, text: str, criteria: Criteria) -> Alternatives:
    """The bounds on an interval entry."""
    prefix, low, high = _parse_interval(parameter, text, criteria)
    match prefix:
        case "eq":  # the second test follows from the others; it bounds the scan of an index on `low`
            return ((Bound("low", "ge", low), Bound("low", "le", high), Bound("high", "le", high)),)
        case "ne":
            return (Bound("low", "lt", low),), (Bound("high", "gt", high),)
        case "gt":
            return ((Bound("high", "gt", high),),)
        case "lt":
            return ((Bound("low", "lt", low),),)
        case "ge":
            return (Bound("low", "ge", low),), (Bound("high", "gt", high),)
        case "le":
            return (Bound("high", "le", high),), (Bound("low", "lt", low),)
        case "sa":
            return ((Bound("low", "gt", high),),)
        case "eb":
            return ((Bound("high", "lt", low),),)
    return ((Bound("low", "le", high), Bound("high", "ge", low)),)


def _parse_point_alternatives(parameter: Parameter, text: str, criteria: Criteria) -> Alternatives:
    """The same for a stored point, where low and high are one: each prefix but `ne` is a single range."""
    prefix, low, high = _parse_interval(parameter, text, criteria)
    match prefix:
        case "eq" | "ap":
            return ((Bound("low", "ge", low), Bound("low", "le", high)),)
        case "ne":
            return (Bound("low", "lt", low),), (Bound("low", "gt", high),)
        case "gt" | "sa":
            return ((Bound("low", "gt", high),),)
        case "lt" | "eb":
            return ((Bound("low", "lt", low),),)
        case "ge":
            return ((Bound("low", "ge", low),),)
    return ((Bound("low", "le", high),),)


def _parse_interval(parameter: Parameter, text: str, criteria: Criteria) -> tuple[str, int, int]:
    """Prefix and interval of the search value, widened for `ap`."""
    prefix, value = split_prefix(unescape(text))
    try:
        low, high = parse_interval(value, criteria.zone)
    except ValueError as error:
        encoded = " In a URL `+` is written `%2B`." if " " in value else ""
        raise reject(parameter, text, f"{error} Prefixes: eq, ne, gt, lt, ge, le, sa, eb, ap.{encoded}") from None
    if prefix == "ap":
        distance = max(low - criteria.now, criteria.now - high, 0) // APPROXIMATION
        return prefix, low - distance, high + distance
    return prefix, low, high


def _extract_date(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    return (parse_interval(value, around.zone),)


def _extract_instant(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    """R4: "a fixed point in time … with an effective width of 0", however few digits its seconds have."""
    low, _ = parse_interval(value, around.zone)
    return ((low, low),)


def _extract_period(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    start, end = value.get("start"), value.get("end")
    if not start and not end:
        return ()
    low = parse_interval(start, around.zone)[0] if start else OPEN_LOW
    high = parse_interval(end, around.zone)[1] if end else OPEN_HIGH
    # A period that ends before it starts breaks per-1; it is found by both its ends rather than nowhere.
    return ((low, high) if low <= high else (high, low),)


def _extract_timing(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    """R4: "the specified scheduling details are ignored and only the outer limits matter"."""
    limits = [parse_interval(event, around.zone) for event in value.get("event", ()) if event]
    bounds = value.get("repeat", {}).get("boundsPeriod")
    if bounds:
        limits.extend(_extract_period(bounds, around))
    return ((min(low for low, _ in limits), max(high for _, high in limits)),) if limits else ()


DATE = ParameterType(
    kind="dates",
    extractors={
        "date": _extract_date,
        "dateTime": _extract_date,
        "instant": _extract_instant,
        "Period": _extract_period,
        "Timing": _extract_timing,
    },
    parse_clause=parse_clause,
    prefixes=True,
    sort_kind="date",
)
