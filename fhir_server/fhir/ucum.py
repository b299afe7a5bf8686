"""UCUM units in canonical form, so that commensurable quantities can be compared (https://ucum.org/ucum).

So that only equal quantities are equal, these have dimensions of their own: the mole (in UCUM a mere number), each
arbitrary unit (`[IU]`, as in UCUM) and each annotation (`{1.73_m2}`, ignored in UCUM). Logarithmic units are not
converted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, pi

SYSTEM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class CanonicalUnit:
    """A unit in terms of the base units `unit` (such as `g.m-3`): amount × factor + offset.

    Results have 12 significant digits, which rounds the errors of floats away on both sides of a comparison.
    """

    unit: str
    factor: float
    offset: float = 0.0

    def to_base_units(self, amount: float) -> float:
        """An amount of this unit in base units."""
        return float(f"{amount * self.factor + self.offset:.12g}")

    def convert(self, amount: float, other: CanonicalUnit) -> float:
        """An amount of this unit in another, commensurable unit."""
        return float(f"{(amount * self.factor + self.offset - other.offset) / other.factor:.12g}")


@dataclass(frozen=True, slots=True)
class _Size:
    """A factor and the exponent of each base unit, none of them 0."""

    factor: float
    powers: Mapping[str, int]

    def multiply(self, other: _Size, exponent: int) -> _Size:
        """This × other to the power of `exponent`."""
        powers = dict(self.powers)
        for name, power in other.powers.items():
            powers[name] = powers.get(name, 0) + power * exponent
        nonzero = {name: power for name, power in powers.items() if power}
        return _Size(self.factor * other.factor**exponent, nonzero)


_ONE = _Size(1.0, {})

_BASES = ("m", "s", "g", "rad", "K", "C", "cd", "mol")
_ARBITRARY = frozenset(
    {"[IU]", "[arb'U]", "[USP'U]", "[anti'Xa'U]", "[GPL'U]", "[MPL'U]", "[APL'U]", "[beth'U]", "[CFU]"}
    | {"[PFU]", "[FFU]", "[CCID_50]", "[TCID_50]", "[EID_50]", "[PNU]", "[Lf]", "[AU]", "[BAU]", "[knk'U]"}
    | {"[mclg'U]", "[tb'U]", "[D'ag'U]", "[todd'U]", "[dye'U]", "[smgy'U]", "[bdsk'U]", "[ka'U]", "[ELU]"}
    | {"[EU]", "[pH]"}
)

# Unit → its factor and the unit it is a multiple of; metric units take prefixes, the plain ones do not.
_METRIC: Mapping[str, tuple[float, str]] = {
    "L": (1, "dm3"),
    "l": (1, "dm3"),
    "ar": (100, "m2"),
    "t": (1e6, "g"),
    "u": (1.6605402e-24, "g"),
    "sr": (1, "rad2"),
    "Hz": (1, "s-1"),
    "N": (1, "kg.m/s2"),
    "Pa": (1, "N/m2"),
    "bar": (1e5, "Pa"),
    "m[Hg]": (133322.0, "Pa"),
    "m[H2O]": (9806.65, "Pa"),
    "J": (1, "N.m"),
    "W": (1, "J/s"),
    "cal": (4.184, "J"),
    "cal_th": (4.184, "J"),
    "cal_IT": (4.1868, "J"),
    "eV": (1.60217733e-19, "J"),
    "erg": (1e-7, "J"),
    "dyn": (1e-5, "N"),
    "P": (1, "dyn.s/cm2"),
    "A": (1, "C/s"),
    "V": (1, "J/C"),
    "F": (1, "C/V"),
    "Ohm": (1, "V/A"),
    "S": (1, "Ohm-1"),
    "Wb": (1, "V.s"),
    "T": (1, "Wb/m2"),
    "H": (1, "Wb/A"),
    "lm": (1, "cd.sr"),
    "lx": (1, "lm/m2"),
    "Bq": (1, "s-1"),
    "Ci": (3.7e10, "Bq"),
    "Gy": (1, "J/kg"),
    "Sv": (1, "J/kg"),
    "RAD": (0.01, "Gy"),
    "REM": (0.01, "Sv"),
    "R": (2.58e-4, "C/kg"),
    "kat": (1, "mol/s"),
    "U": (1, "umol/min"),
    "eq": (1, "mol"),
    "osm": (1, "mol"),
    "st": (1, "m3"),
}
_PLAIN: Mapping[str, tuple[float, str]] = {
    "10*": (10, "1"),
    "10^": (10, "1"),
    "%": (0.01, "1"),
    "[ppth]": (1e-3, "1"),
    "[ppm]": (1e-6, "1"),
    "[ppb]": (1e-9, "1"),
    "[pptr]": (1e-12, "1"),
    "[pi]": (pi, "1"),
    "[HPF]": (1, "1"),
    "[LPF]": (100, "1"),
    "min": (60, "s"),
    "h": (60, "min"),
    "d": (24, "h"),
    "wk": (7, "d"),
    "mo": (30.4375, "d"),
    "a": (365.25, "d"),
    "deg": (pi / 180, "rad"),
    "'": (1 / 60, "deg"),
    "''": (1 / 3600, "deg"),
    "atm": (101325, "Pa"),
    "[psi]": (6894.757293168, "Pa"),
    "[in_i'Hg]": (25.4, "mm[Hg]"),
    "[in_i'H2O]": (25.4, "mm[H2O]"),
    "[Cal]": (1, "kcal_th"),
    "[in_i]": (2.54, "cm"),
    "[in_us]": (100 / 39.37, "cm"),
    "[ft_i]": (12, "[in_i]"),
    "[ft_us]": (12, "[in_us]"),
    "[yd_i]": (3, "[ft_i]"),
    "[mi_i]": (5280, "[ft_i]"),
    "[mi_us]": (5280, "[ft_us]"),
    "[nmi_i]": (1852, "m"),
    "[sin_i]": (1, "[in_i]2"),
    "[sft_i]": (1, "[ft_i]2"),
    "[acr_us]": (43560, "[ft_us]2"),
    "[gr]": (64.79891, "mg"),
    "[lb_av]": (7000, "[gr]"),
    "[oz_av]": (437.5, "[gr]"),
    "[stone_av]": (14, "[lb_av]"),
    "[ston_av]": (2000, "[lb_av]"),
    "[oz_tr]": (480, "[gr]"),
    "[car_m]": (0.2, "g"),
    "[lbf_av]": (4.4482216152605, "N"),
    "[gal_us]": (231, "[in_i]3"),
    "[qt_us]": (0.25, "[gal_us]"),
    "[pt_us]": (0.5, "[qt_us]"),
    "[cup_us]": (0.5, "[pt_us]"),
    "[foz_us]": (1 / 128, "[gal_us]"),
    "[tbs_us]": (0.5, "[foz_us]"),
    "[tsp_us]": (1 / 3, "[tbs_us]"),
    "[cup_m]": (240, "mL"),
    "[foz_m]": (30, "mL"),
    "[tbs_m]": (15, "mL"),
    "[tsp_m]": (5, "mL"),
    "[drp]": (0.05, "mL"),
    "[Ch]": (1 / 3, "mm"),
    "[degR]": (5 / 9, "K"),
    "[diop]": (1, "m-1"),
}
_LARGE = {"Y": 1e24, "Z": 1e21, "E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "h": 1e2, "da": 1e1}
_SMALL = {"d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18, "z": 1e-21}
_PREFIXES: Mapping[str, float] = {**_LARGE, **_SMALL, "y": 1e-24}
_SCALES: Mapping[str, CanonicalUnit] = {
    "Cel": CanonicalUnit("K", 1.0, 273.15),
    "[degF]": CanonicalUnit("K", 5 / 9, 459.67 * 5 / 9),
}
"""Scales with a zero point of their own; they cannot be part of an expression."""

_TOKEN = re.compile(
    r"(?P<symbol>10[*^]|(?:\[[^\[\]\s]+\]|[A-Za-z_%'\"])+)(?P<exponent>[+-]?[0-9]+)?|(?P<number>[0-9]+)"
    r"|(?P<annotation>\{[^{}]*\})|(?P<sign>[./()])",
    re.ASCII,
)
_DEPTH_LIMIT = 20
LONGEST = 256
"""Characters of a code that is read; those in use have fewer than 60."""


def parse_unit(code: str) -> CanonicalUnit | None:
    """The unit of a UCUM code; None when it is no UCUM unit, cannot be converted, or is longer than any that is used.

    `mg/dL` is 10 `g.m-3`, `10*3/uL` is 10^12 `m-3`; `{score}` alone is None: nothing converts to it.
    """
    return _parse_unit(code) if len(code) <= LONGEST else None


@lru_cache(maxsize=4096)
def _parse_unit(code: str) -> CanonicalUnit | None:
    if code in _SCALES:
        return _SCALES[code]
    size = _parse_expression(code)
    if size is None or (size.powers and all(name[0] == "{" for name in size.powers)):
        return None
    names = sorted(size.powers)
    text = ".".join(f"{name}{'' if size.powers[name] == 1 else size.powers[name]}" for name in names)
    return CanonicalUnit(text or "1", float(f"{size.factor:.15g}"))


def _parse_expression(code: str) -> _Size | None:
    """The size of an expression; None when it cannot be read."""
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(code):
        token = _TOKEN.match(code, position)
        if token is None:
            return None
        tokens.append(token)
        position = token.end()
    try:
        size, end = _parse_term(tokens, 0, 0)
    except (ValueError, ArithmeticError):  # unreadable, beyond what a float holds, or divided by 0
        return None
    return size if end == len(tokens) and 0 < size.factor < inf else None


def _parse_term(tokens: list[re.Match[str]], at: int, depth: int) -> tuple[_Size, int]:
    """Components joined by `.` and `/`, read from the left, and the position after them; raises ValueError."""
    if depth > _DEPTH_LIMIT:
        raise ValueError("too deep")
    size, exponent = _ONE, 1
    if at < len(tokens) and tokens[at].group() == "/":
        exponent, at = -1, at + 1
    while True:
        part, at = _parse_component(tokens, at, depth)
        size = size.multiply(part, exponent)
        if at >= len(tokens) or tokens[at].group() not in (".", "/"):
            return size, at
        exponent, at = (1 if tokens[at].group() == "." else -1), at + 1


def _parse_component(tokens: list[re.Match[str]], at: int, depth: int) -> tuple[_Size, int]:
    """A unit with its exponent, a number, an annotation or a term in parentheses, and the position after it."""
    if at >= len(tokens):
        raise ValueError("a unit is missing")
    token = tokens[at]
    if token.group() == "(":
        size, at = _parse_term(tokens, at + 1, depth + 1)
        if at >= len(tokens) or tokens[at].group() != ")":
            raise ValueError("a parenthesis is open")
        return size, at + 1
    if token["annotation"]:
        return _annotate(_ONE, token), at + 1
    if token["number"]:
        size = _Size(float(token["number"]), {})
    elif token["symbol"]:
        size = _ONE.multiply(_find_symbol(token["symbol"]), int(token["exponent"] or 1))
    else:
        raise ValueError("a unit is missing")
    if at + 1 < len(tokens) and tokens[at + 1]["annotation"]:
        return _annotate(size, tokens[at + 1]), at + 2
    return size, at + 1


def _annotate(size: _Size, annotation: re.Match[str]) -> _Size:
    return size.multiply(_Size(1.0, {annotation.group(): 1}), 1)


def _find_symbol(symbol: str) -> _Size:
    """The size of one unit with or without a prefix; raises ValueError for an unknown one."""
    if (unit := _find_unit(symbol)) is not None:
        return unit
    for length in (2, 1):
        prefix, rest = symbol[:length], symbol[length:]
        size = _find_unit(rest) if prefix in _PREFIXES and rest not in _PLAIN else None
        if size is not None:
            return _Size(size.factor * _PREFIXES[prefix], size.powers)
    raise ValueError(f"`{symbol}` is no unit")


@lru_cache(maxsize=4096)
def _find_unit(symbol: str) -> _Size | None:
    """The size of a unit without prefix; None for an unknown one."""
    if symbol == "[iU]":
        symbol = "[IU]"
    if symbol in _BASES or symbol in _ARBITRARY:
        return _Size(1.0, {symbol: 1})
    row = _METRIC.get(symbol) or _PLAIN.get(symbol)
    if row is None:
        return None
    factor, unit = row
    size = _parse_expression(unit)
    assert size is not None
    return _Size(size.factor * factor, size.powers)
