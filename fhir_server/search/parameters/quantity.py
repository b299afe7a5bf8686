"""Quantity parameters: a number and perhaps its unit (https://hl7.org/fhir/R4/search.html#quantity).

A quantity with a comparator (`<5`) is the open range that it stands for; units are compared as written.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

from fhir_server.search.entries import SEPARATOR, NumberEntry
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import number
from fhir_server.search.parameters.criteria import (
    Alternatives,
    Criteria,
    ParameterType,
    Surroundings,
    any_of,
    wrong,
)
from fhir_server.search.query import Clause, NumberRange
from fhir_server.search.registry import Parameter

FORM = "a quantity is `[prefix]value`, `[prefix]value|system|code` or `[prefix]value||code` (code or unit)."
CURRENCY = "urn:iso:std:iso:4217"

Unit = tuple[str | None, str]


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The quantities that prefix, value and unit ask for."""
    unit, alternatives = parsed(parameter, text)
    return any_of(NumberRange(parameter.code, tests, unit=unit) for tests in alternatives)


def parsed(parameter: Parameter, text: str) -> tuple[Unit | None, Alternatives]:
    """The unit (None for any) and the tests on the number."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1:
        return None, number.alternatives(parameter, parts[0])
    if len(parts) != 3 or not parts[2]:
        raise wrong(parameter, text, FORM)
    return (parts[1] or None, parts[2]), number.alternatives(parameter, parts[0])


def _quantity(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    amount = value.get("value")
    if amount is None:
        return ()
    comparator = value.get("comparator")
    low, high = _compared(comparator, amount) if comparator else (amount, amount)
    return (("", low, high, _unit(value)),)


def _compared(comparator: str, amount: float) -> tuple[float, float]:
    match comparator:
        case "<":
            return -inf, nextafter(amount, -inf)
        case "<=":
            return -inf, amount
        case ">":
            return nextafter(amount, inf), inf
    return amount, inf


def _unit(value: Any) -> str:
    system, code, unit = value.get("system", ""), value.get("code", ""), value.get("unit", "")
    return f"{system}{SEPARATOR}{code}{SEPARATOR}{unit}" if system or code or unit else ""


def _money(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    amount, currency = value.get("value"), value.get("currency")
    if amount is None:
        return ()
    return (("", amount, amount, f"{CURRENCY}{SEPARATOR}{currency}{SEPARATOR}{currency}" if currency else ""),)


def _range(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """From low to high, a missing end open, in the unit of either end."""
    low, high = value.get("low", {}), value.get("high", {})
    least, most = low.get("value"), high.get("value")
    if least is None and most is None:
        return ()
    return (("", -inf if least is None else least, inf if most is None else most, _unit(low) or _unit(high)),)


def _sampled_data(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """R4 on Observation.value-quantity: "just search on the bounds of the values in sampled data"."""
    origin = value.get("origin", {})
    zero, factor = origin.get("value", 0), value.get("factor", 1)
    points = [zero + factor * point for point in map(_sample, value.get("data", "").split()) if point is not None]
    points += [limit for limit in (value.get("lowerLimit"), value.get("upperLimit")) if limit is not None]
    return (("", min(points), max(points), _unit(origin)),) if points else ()


def _sample(text: str) -> float | None:
    """A data point; `E` (error), `U` and `L` (beyond the limits) are none."""
    try:
        return float(text)
    except ValueError:
        return None


QUANTITY = ParameterType(
    kind="numbers",
    extract={
        **dict.fromkeys(("Quantity", "SimpleQuantity", "Age", "Duration", "Distance", "Count"), _quantity),
        "Money": _money,
        "Range": _range,
        "SampledData": _sampled_data,
    },
    clause=clause,
    prefixes=True,
    sort_kind="number",
)
