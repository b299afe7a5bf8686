"""Number parameters: stored values are exact, a search value has its precision (https://hl7.org/fhir/R4/search.html#number).

R4: `100` is [99.5, 100.5), `100.00` is [99.995, 100.005), `1e2` is [95, 105). So the precision is half a unit of the
last digit written, and a number in exponent notation counts as having at least two digits (`1e2` is `1.0e2`). It
applies to `eq`, `ne` and (with a tenth of the value) `ap`; for the other prefixes R4 says it is ignored.
"""

from __future__ import annotations

import re
from decimal import Decimal
from math import inf, nextafter
from typing import Any, Literal

from fhir_server.search.entries import NumberEntry
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
from fhir_server.search.query import Bound, Clause, NumberRange
from fhir_server.search.registry import Parameter

End = Literal["low", "high"]

FORM = "a number is written like `5`, `-5.40` or `gt5.4e-3`; prefixes: eq, ne, gt, lt, ge, le, sa, eb, ap."
_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII).fullmatch


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The numbers that the prefix and the value ask for."""
    return make_or(NumberRange(parameter.code, bounds) for bounds in parse_alternatives(parameter, unescape(text)))


def parse_alternatives(parameter: Parameter, text: str, low: End = "low", high: End = "high") -> Alternatives:
    """The bounds on a number entry; a composite that keeps one number at each end names the same end twice."""
    prefix, number = split_prefix(text)
    value, least, beyond = parse_number(parameter, number)
    match prefix:
        case "eq":  # the second test bounds the scan of an index on `low`
            bounds = (Bound(low, "ge", least), Bound(low, "lt", beyond), Bound(high, "lt", beyond))
            return (tuple(dict.fromkeys(bounds)),)
        case "ne":
            return (Bound(low, "lt", least),), (Bound(high, "ge", beyond),)
        case "gt":
            return ((Bound(high, "gt", value),),)
        case "lt":
            return ((Bound(low, "lt", value),),)
        case "ge":
            return ((Bound(high, "ge", value),),)
        case "le":
            return ((Bound(low, "le", value),),)
        case "sa":
            return ((Bound(low, "gt", value),),)
        case "eb":
            return ((Bound(high, "lt", value),),)
    tenth = abs(value) / APPROXIMATION
    return ((Bound(low, "le", max(value + tenth, beyond)), Bound(high, "ge", min(value - tenth, least))),)


def parse_number(parameter: Parameter, text: str) -> tuple[float, float, float]:
    """(value, lowest value meant, first value above those meant); Invalid for what is no number."""
    number = _NUMBER(text)
    if not number:
        raise reject(parameter, text, FORM)
    whole, fraction, exponent = number.groups()
    digits = len(fraction or "")
    if exponent and not digits and len(whole.lstrip("+-")) == 1:
        digits = 1
    value = Decimal(text)
    half = Decimal(5).scaleb(int(exponent or 0) - digits - 1)
    exact = float(value)
    # Stored values are floats: with so many digits that half a unit is less than their distance, only one is meant.
    return exact, float(value - half), max(float(value + half), nextafter(exact, inf))


def _extract_number(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    amount = float(value)  # an integer beyond 2^53 too, or one store would compare it more exactly than another
    return (("", amount, amount, ""),)


def _extract_range(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """The two ends of a Range; an end that is missing is open."""
    low, high = (value.get(end, {}).get("value") for end in ("low", "high"))
    if low is None and high is None:
        return ()
    return (("", -inf if low is None else float(low), inf if high is None else float(high), ""),)


NUMBER = ParameterType(
    kind="numbers",
    extractors={
        **dict.fromkeys(("integer", "decimal", "positiveInt", "unsignedInt"), _extract_number),
        "Range": _extract_range,
    },
    parse_clause=parse_clause,
    prefixes=True,
    sort_kind="number",
)
