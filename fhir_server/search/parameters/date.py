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
    APPROXIMATELY,
    Alternatives,
    Criteria,
    ParameterType,
    Surroundings,
    any_of,
    prefixed,
    wrong,
)
from fhir_server.search.query import Clause, DateRange, LastUpdated, Test
from fhir_server.search.registry import Parameter


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The intervals that the prefix and the date ask for."""
    if parameter.code == "_lastUpdated":
        return any_of(LastUpdated(tests) for tests in _point_alternatives(parameter, text, criteria))
    return any_of(DateRange(parameter.code, tests) for tests in alternatives(parameter, text, criteria))


def alternatives(parameter: Parameter, text: str, criteria: Criteria) -> Alternatives:
    """The tests on an interval entry."""
    prefix, low, high = _searched(parameter, text, criteria)
    match prefix:
        case "eq":  # the second test follows from the others; it bounds the scan of an index on `low`
            return ((Test("low", "ge", low), Test("low", "le", high), Test("high", "le", high)),)
        case "ne":
            return (Test("low", "lt", low),), (Test("high", "gt", high),)
        case "gt":
            return ((Test("high", "gt", high),),)
        case "lt":
            return ((Test("low", "lt", low),),)
        case "ge":
            return (Test("low", "ge", low),), (Test("high", "gt", high),)
        case "le":
            return (Test("high", "le", high),), (Test("low", "lt", low),)
        case "sa":
            return ((Test("low", "gt", high),),)
        case "eb":
            return ((Test("high", "lt", low),),)
    return ((Test("low", "le", high), Test("high", "ge", low)),)


def _point_alternatives(parameter: Parameter, text: str, criteria: Criteria) -> Alternatives:
    """The same for a stored point, where low and high are one: each prefix but `ne` is a single range."""
    prefix, low, high = _searched(parameter, text, criteria)
    match prefix:
        case "eq" | "ap":
            return ((Test("low", "ge", low), Test("low", "le", high)),)
        case "ne":
            return (Test("low", "lt", low),), (Test("low", "gt", high),)
        case "gt" | "sa":
            return ((Test("low", "gt", high),),)
        case "lt" | "eb":
            return ((Test("low", "lt", low),),)
        case "ge":
            return ((Test("low", "ge", low),),)
    return ((Test("low", "le", high),),)


def _searched(parameter: Parameter, text: str, criteria: Criteria) -> tuple[str, int, int]:
    """Prefix and interval of the search value, widened for `ap`."""
    prefix, value = prefixed(unescape(text))
    try:
        low, high = parse_interval(value, criteria.zone)
    except ValueError as error:
        encoded = " In a URL `+` is written `%2B`." if " " in value else ""
        raise wrong(parameter, text, f"{error} Prefixes: eq, ne, gt, lt, ge, le, sa, eb, ap.{encoded}") from None
    if prefix == "ap":
        distance = max(low - criteria.now, criteria.now - high, 0) // APPROXIMATELY
        return prefix, low - distance, high + distance
    return prefix, low, high


def _date(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    return (parse_interval(value, around.zone),)


def _instant(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    """R4: "a fixed point in time … with an effective width of 0", however few digits its seconds have."""
    low, _ = parse_interval(value, around.zone)
    return ((low, low),)


def _period(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    start, end = value.get("start"), value.get("end")
    if not start and not end:
        return ()
    low = parse_interval(start, around.zone)[0] if start else OPEN_LOW
    high = parse_interval(end, around.zone)[1] if end else OPEN_HIGH
    # A period that ends before it starts breaks per-1; it is found by both its ends rather than nowhere.
    return ((low, high) if low <= high else (high, low),)


def _timing(value: Any, around: Surroundings) -> tuple[DateEntry, ...]:
    """R4: "the specified scheduling details are ignored and only the outer limits matter"."""
    limits = [parse_interval(event, around.zone) for event in value.get("event", ()) if event]
    bounds = value.get("repeat", {}).get("boundsPeriod")
    if bounds:
        limits.extend(_period(bounds, around))
    return ((min(low for low, _ in limits), max(high for _, high in limits)),) if limits else ()


DATE = ParameterType(
    kind="dates",
    extract={"date": _date, "dateTime": _date, "instant": _instant, "Period": _period, "Timing": _timing},
    clause=clause,
    prefixes=True,
    sort_kind="date",
)
