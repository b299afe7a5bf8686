"""Units in base units, with the values of the UCUM tables (https://ucum.org/ucum)."""

from __future__ import annotations

import pytest

from fhir_server.fhir.ucum import parse_unit


@pytest.mark.parametrize(
    ("code", "unit", "factor"),
    [
        ("g", "g", 1),
        ("mg/dL", "g.m-3", 10),
        ("kg/m2", "g.m-2", 1000),
        ("10*3/uL", "m-3", 1e12),
        ("10^9/L", "m-3", 1e12),
        ("/min", "s-1", 1 / 60),
        ("dam", "m", 10),
        ("mm[Hg]", "g.m-1.s-2", 133322),
        ("cm[H2O]", "g.m-1.s-2", 98066.5),
        ("[lb_av]", "g", 453.59237),
        ("[in_i]", "m", 0.0254),
        ("[gal_us]", "m3", 0.003785411784),
        ("U/L", "m-3.mol.s-1", 1e-6 / 60 * 1000),
        ("m[IU]/mL", "[IU].m-3", 1000),
        ("k[iU]", "[IU]", 1000),
        ("g/(24.h)", "g.s-1", 1 / 86400),
        ("m/s2", "m.s-2", 1),
        ("J/kg", "m2.s-2", 1),
        ("%", "1", 0.01),
        ("mL/min/{1.73_m2}", "m3.s-1.{1.73_m2}-1", 1e-6 / 60),
        ("meq/L", "m-3.mol", 1),
    ],
)
def test_a_unit_in_base_units(code: str, unit: str, factor: float) -> None:
    found = parse_unit(code)
    assert found is not None
    assert found.unit == unit
    assert found.factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "foo",
        "{score}",
        "mcg",
        "mg/",
        "mg dL",
        "(mg",
        "mg)",
        "m[Hg",
        "Cel/min",
        "k%",
        "10*9/l/l]",
        "é",
        "B[V]",
        "." * 99,
    ],
)
def test_what_cannot_be_converted_has_none(code: str) -> None:
    """UCUM: prefixes go with metric units alone; `Cel` is a special unit and no factor of an expression here."""
    assert parse_unit(code) is None


def test_deep_nesting_and_huge_exponents_are_no_units() -> None:
    assert parse_unit("(" * 500 + "m" + ")" * 500) is None
    assert parse_unit("Ym999") is None
    assert parse_unit("m/0") is None


def test_scales_have_a_zero_of_their_own() -> None:
    celsius, fahrenheit = parse_unit("Cel"), parse_unit("[degF]")
    assert celsius and fahrenheit
    assert celsius.to_base_units(0) == 273.15
    assert fahrenheit.to_base_units(32) == 273.15
    assert fahrenheit.convert(212, celsius) == 100


def test_rounding_makes_equal_what_floats_would_not() -> None:
    milligram, gram = parse_unit("mg"), parse_unit("g")
    assert milligram and gram
    assert [milligram.to_base_units(n / 10) for n in range(1, 2000)] == [
        gram.to_base_units(n / 10000) for n in range(1, 2000)
    ]
