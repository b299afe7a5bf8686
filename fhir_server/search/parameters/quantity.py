"""Quantity parameters: a number and perhaps its unit (https://hl7.org/fhir/R4/search.html#quantity).

A quantity with a comparator (`<5`) is the open range that it stands for. Quantities in UCUM units have a second entry,
in base units, under the pseudo-parameter `element:canonical`: a criterion in a UCUM unit holds in all commensurable
ones. Other units are compared as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import inf, isclose, nextafter
from typing import Any

from fhir_server.fhir import ucum
from fhir_server.search.entries import SEPARATOR, NumberEntry
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import number
from fhir_server.search.parameters.criteria import (
    Alternatives,
    Criteria,
    Extractor,
    ParameterType,
    Surroundings,
    make_or,
    reject,
)
from fhir_server.search.parameters.element_keys import list_element_names
from fhir_server.search.query import Bound, Clause, NumberRange
from fhir_server.search.registry import Parameter

FORM = "a quantity is `[prefix]value`, `[prefix]value|system|code` or `[prefix]value||code` (code or unit)."
CANONICAL = ":canonical"
CURRENCY = "urn:iso:std:iso:4217"

Unit = tuple[str | None, str]
Bounds = tuple[Bound, ...]

_BASE = ucum.CanonicalUnit("", 1.0)
_ROUNDING = 3e-11  # two steps of the 12 digits that conversions keep

COMMON_UNITS = (
    *("g/L", "g/dL", "mg/L", "mg/dL", "mg/mL", "ug/L", "ug/dL", "ug/mL", "ng/L", "ng/dL", "ng/mL", "pg/mL"),
    *("mol/L", "mmol/L", "umol/L", "nmol/L", "pmol/L", "meq/L", "10*3/uL", "10*6/uL", "10*9/L", "10*12/L"),
    *("/uL", "U/L", "U/mL", "ukat/L", "[IU]/L", "[IU]/mL", "k[IU]/L", "m[IU]/L", "m[IU]/mL", "mm[Hg]", "kPa"),
    *("cm[H2O]", "Cel", "[degF]", "K", "m", "cm", "mm", "[in_i]", "[ft_i]", "kg", "g", "mg", "ug", "ng", "pg"),
    *("[lb_av]", "[oz_av]", "L", "dL", "mL", "uL", "fL", "[foz_us]", "s", "min", "h", "d", "wk", "mo", "a"),
    *("/min", "/s", "/h", "Hz", "kg/m2", "g/m2", "L/min", "mL/min", "mL/s", "mL/h", "%", "1", "mmol", "umol"),
    *("nmol", "meq", "mg/kg", "ug/kg", "g/kg", "mg/d", "g/d", "kcal", "kJ"),
)
"""Units that a composite is also searched in, if commensurable; it has no entries in base units for them."""
_COMMON_CODES = frozenset(COMMON_UNITS)


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The quantities that prefix, value and unit ask for."""
    return match_base_units(parameter.code, list_element_names(parameter), *parse_quantity(parameter, text))


def match_base_units(code: str, names: Iterable[str], unit: Unit | None, alternatives: Alternatives) -> Clause:
    """The bounds on entries of `code` as they are written, and on those of `names` in base units."""
    exact = [NumberRange(code, bounds, unit=unit) for bounds in alternatives]
    scale = _find_scale(unit)
    if unit is None or scale is None:
        return make_or(exact)
    convert_entries = [
        NumberRange(name + CANONICAL, bounds, unit=("", scale.unit))
        for name in names
        for bounds in _convert_alternatives(alternatives, scale, _BASE)
    ]
    return make_or(convert_entries if unit[0] else (*exact, *convert_entries))


def iterate_units(unit: Unit | None, alternatives: Alternatives) -> Iterator[tuple[str, Unit | None, Bounds]]:
    """(suffix of the name, unit, bounds): in the unit given, in each unit of `COMMON`, and in base units.

    For composites, whose entries are in base units for other units than those of `COMMON` alone: for all, that would
    cost more than all else that is indexed.
    """
    scale = _find_scale(unit)
    for bounds in alternatives:
        yield "", unit, bounds
    if scale is None:
        return
    for code, other in _list_commensurable(scale.unit):
        if (ucum.SYSTEM, code) != unit:
            for bounds in _convert_alternatives(alternatives, scale, other):
                yield "", (ucum.SYSTEM, code), bounds
    for bounds in _convert_alternatives(alternatives, scale, _BASE):
        yield CANONICAL, ("", scale.unit), bounds


def _find_scale(unit: Unit | None) -> ucum.CanonicalUnit | None:
    """The searched unit in base units, if it is (or, without a system, may be) a UCUM unit that can be converted."""
    return ucum.parse_unit(unit[1]) if unit and unit[0] in (None, ucum.SYSTEM) else None


def _convert_alternatives(
    alternatives: Alternatives, scale: ucum.CanonicalUnit, other: ucum.CanonicalUnit
) -> Alternatives:
    """The same bounds in another unit. A range narrower than the rounding of conversions still holds one value."""
    ends = {bound.value: scale.convert(bound.value, other) for bounds in alternatives for bound in bounds}
    lowest, highest = min(ends), max(ends)
    if lowest < highest and isclose(ends[lowest], ends[highest], rel_tol=_ROUNDING):
        ends[highest] = nextafter(ends[highest], inf)
    return tuple(tuple(replace(bound, value=ends[bound.value]) for bound in bounds) for bounds in alternatives)


@lru_cache(maxsize=64)
def _list_commensurable(base: str) -> Sequence[tuple[str, ucum.CanonicalUnit]]:
    """The common units with these base units."""
    known = [(code, ucum.parse_unit(code)) for code in COMMON_UNITS]
    return [(code, scale) for code, scale in known if scale is not None and scale.unit == base]


def parse_quantity(parameter: Parameter, text: str) -> tuple[Unit | None, Alternatives]:
    """The unit (None for any) and the bounds on the number."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1:
        return None, number.parse_alternatives(parameter, parts[0])
    if len(parts) == 3 and not parts[1] and not parts[2]:  # `8.0||`, as some clients write any unit
        return None, number.parse_alternatives(parameter, parts[0])
    if len(parts) != 3 or not parts[2]:
        raise reject(parameter, text, FORM)
    return (parts[1] or None, parts[2]), number.parse_alternatives(parameter, parts[0])


def _extract_quantity(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    amount = value.get("value")
    if amount is None:
        return ()
    amount, comparator = float(amount), value.get("comparator")
    low, high = _apply_comparator(comparator, amount) if comparator else (amount, amount)
    return (("", low, high, _encode_unit(value)),)


def _extract_base_units(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """The entry of a quantity under `element:canonical`; none for a unit that cannot be converted."""
    if value.get("system") != ucum.SYSTEM:
        return ()
    amount, scale = value.get("value"), ucum.parse_unit(value.get("code", ""))
    if amount is None or scale is None:
        return ()
    amount, comparator = scale.to_base_units(amount), value.get("comparator")
    low, high = _apply_comparator(comparator, amount) if comparator else (amount, amount)
    return (("", low, high, f"{SEPARATOR}{scale.unit}{SEPARATOR}"),)


def _make_base_unit_extractor(extract: Extractor, but: frozenset[str] = frozenset()) -> Extractor:
    """The same for what has several values in one unit, `but` for these units."""

    def convert_entries(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
        found: list[NumberEntry] = []
        for key, low, high, unit in extract(value, around):
            system, _, rest = unit.partition(SEPARATOR)
            code = rest.partition(SEPARATOR)[0]
            scale = ucum.parse_unit(code) if system == ucum.SYSTEM and code not in but else None
            if scale is not None:
                found.append(
                    (key, scale.to_base_units(low), scale.to_base_units(high), f"{SEPARATOR}{scale.unit}{SEPARATOR}")
                )
        return tuple(found)

    return convert_entries


def _apply_comparator(comparator: str, amount: float) -> tuple[float, float]:
    match comparator:
        case "<":
            return -inf, nextafter(amount, -inf)
        case "<=":
            return -inf, amount
        case ">":
            return nextafter(amount, inf), inf
    return amount, inf


def _encode_unit(value: Any) -> str:
    system, code, unit = value.get("system", ""), value.get("code", ""), value.get("unit", "")
    return f"{system}{SEPARATOR}{code}{SEPARATOR}{unit}" if system or code or unit else ""


def _extract_money(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    value, currency = value.get("value"), value.get("currency")
    if value is None:
        return ()
    amount = float(value)
    return (("", amount, amount, f"{CURRENCY}{SEPARATOR}{currency}{SEPARATOR}{currency}" if currency else ""),)


def _extract_range(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """From low to high, a missing end open, in the unit of either end."""
    low, high = value.get("low", {}), value.get("high", {})
    least, most = low.get("value"), high.get("value")
    if least is None and most is None:
        return ()
    least, most = -inf if least is None else float(least), inf if most is None else float(most)
    return (("", least, most, _encode_unit(low) or _encode_unit(high)),)


def _extract_sampled_data(value: Any, around: Surroundings) -> tuple[NumberEntry, ...]:
    """R4 on Observation.value-quantity: "just search on the bounds of the values in sampled data"."""
    origin = value.get("origin", {})
    zero, factor = origin.get("value", 0), value.get("factor", 1)
    points = [zero + factor * point for point in map(_parse_sample, value.get("data", "").split()) if point is not None]
    points += [limit for limit in (value.get("lowerLimit"), value.get("upperLimit")) if limit is not None]
    return (("", float(min(points)), float(max(points)), _encode_unit(origin)),) if points else ()


def _parse_sample(text: str) -> float | None:
    """A data point; `E` (error), `U` and `L` (beyond the limits) are none."""
    try:
        return float(text)
    except ValueError:
        return None


_QUANTITIES = ("Quantity", "SimpleQuantity", "Age", "Duration", "Distance", "Count")

CANONICAL_EXTRACTORS: Mapping[str, Extractor] = {
    **dict.fromkeys(_QUANTITIES, _extract_base_units),
    "Range": _make_base_unit_extractor(_extract_range),
    "SampledData": _make_base_unit_extractor(_extract_sampled_data),
}

UNCOMMON_EXTRACTORS: Mapping[str, Extractor] = {
    **dict.fromkeys(_QUANTITIES, _make_base_unit_extractor(_extract_quantity, _COMMON_CODES)),
    "Range": _make_base_unit_extractor(_extract_range, _COMMON_CODES),
    "SampledData": _make_base_unit_extractor(_extract_sampled_data, _COMMON_CODES),
}
"""The same for units that are not in COMMON."""

QUANTITY = ParameterType(
    kind="numbers",
    extractors={
        **dict.fromkeys(_QUANTITIES, _extract_quantity),
        "Money": _extract_money,
        "Range": _extract_range,
        "SampledData": _extract_sampled_data,
    },
    parse_clause=parse_clause,
    prefixes=True,
    sort_kind="number",
)
