"""Number and quantity criteria: https://hl7.org/fhir/R4/search.html#number, #quantity."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from fhir_server.fhir.outcome import Invalid
from fhir_server.search.index import Index
from fhir_server.search.parameters.number import parse_number
from fhir_server.search.query import Bound, NumberRange, Or
from fhir_server.search.registry import Registry

PREFIXES = {"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"}
UCUM = "http://unitsofmeasure.org"


def risk(probability: Any) -> dict[str, Any]:
    return {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": probability}]}


def measured(**quantity: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "valueQuantity": quantity}


@pytest.mark.parametrize(
    ("text", "value", "least", "beyond"),
    [
        # R4: "100: Values that equal 100, to 3 significant figures precision, … [99.5 ... 100.5)"
        ("100", 100, 99.5, 100.5),
        # R4: "100.00: … to 5 significant figures precision, … [99.995 ... 100.005)"
        ("100.00", 100, 99.995, 100.005),
        # R4: "1e2: … to 1 significant figures precision, so this is actually searching for … [95 ... 105)"
        ("1e2", 100, 95, 105),
        ("1.0e2", 100, 95, 105),
        ("1.00e2", 100, 99.5, 100.5),
        ("5.40e-3", 0.0054, 0.005395, 0.005405),
        ("-5.4", -5.4, -5.45, -5.35),
        ("0", 0, -0.5, 0.5),
        ("+7", 7, 6.5, 7.5),
    ],
)
def test_implicit_precision(registry: Registry, text: str, value: float, least: float, beyond: float) -> None:
    assert parse_number(registry.parameters("RiskAssessment")["probability"], text) == (value, least, beyond)


@pytest.mark.parametrize(
    ("stored", "found_by"),
    [
        # The search value is 5.4: eq and ne take [5.35, 5.45); for the others "the implicit precision of the number is
        # ignored"; ap takes a tenth on both sides, [4.86, 5.94].
        (5.4, {"eq", "ge", "le", "ap"}),
        (5.35, {"eq", "lt", "le", "eb", "ap"}),
        (5.449, {"eq", "gt", "ge", "sa", "ap"}),
        (5.45, {"ne", "gt", "ge", "sa", "ap"}),
        (5.3, {"ne", "lt", "le", "eb", "ap"}),
        (4.85, {"ne", "lt", "le", "eb"}),
        (5.95, {"ne", "gt", "ge", "sa"}),
    ],
)
def test_every_prefix_of_a_number(finds: Callable[..., bool], stored: float, found_by: set[str]) -> None:
    assert {p for p in PREFIXES if finds(risk(stored), "probability", f"{p}5.4")} == found_by
    assert {p for p in PREFIXES if finds(measured(value=stored), "value-quantity", f"{p}5.4")} == found_by


@pytest.mark.parametrize(
    ("comparator", "found_by"),
    [
        # The stored quantity is `<5.4`, `<=5.4`, `>5.4`, `>=5.4`; the search value is 5.4.
        ("<", {"ne", "lt", "le", "eb", "ap"}),
        ("<=", {"ne", "lt", "le", "ge", "ap"}),
        (">", {"ne", "gt", "ge", "sa", "ap"}),
        (">=", {"ne", "gt", "ge", "le", "ap"}),
    ],
)
def test_a_comparator_opens_the_range(finds: Callable[..., bool], comparator: str, found_by: set[str]) -> None:
    stored = measured(value=5.4, comparator=comparator)
    assert {p for p in PREFIXES if finds(stored, "value-quantity", f"{p}5.4")} == found_by


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("5.4", True),
        (f"5.4|{UCUM}|mg", True),
        (f"5.4|{UCUM}|g", False),
        ("5.4|http://other|mg", False),
        # "[number]||[code]: … a unit with the code, irrespective of system", in code or unit
        ("5.4||", True),  # clients write any unit so
        ("5.4||mg", True),
        ("5.4||milligram", True),
        ("5.4||g", False),
        (f"gt5|{UCUM}|mg", True),
        (f"gt6|{UCUM}|mg", False),
    ],
)
def test_units(finds: Callable[..., bool], value: str, found: bool) -> None:
    stored = measured(value=5.4, unit="milligram", system=UCUM, code="mg")
    assert finds(stored, "value-quantity", value) is found


def test_money_is_a_quantity_of_a_currency(finds: Callable[..., bool]) -> None:
    invoice = {"resourceType": "Invoice", "totalGross": {"value": 48, "currency": "EUR"}}
    assert finds(invoice, "totalgross", "48|urn:iso:std:iso:4217|EUR")
    assert finds(invoice, "totalgross", "48||EUR")
    assert not finds(invoice, "totalgross", "48|urn:iso:std:iso:4217|USD")


def test_ranges_keep_both_ends(index: Index) -> None:
    def ages(**onset: Any) -> Any:
        return index.make_entries("Condition", {"resourceType": "Condition", "onsetRange": onset}).numbers.get(
            "onset-age"
        )

    year = {"unit": "a", "system": UCUM, "code": "a"}
    unit = f"{UCUM}\x1fa\x1fa"
    assert ages(low={"value": 3, **year}, high={"value": 5, **year}) == (("", 3, 5, unit),)
    assert ages(low={"value": 3, **year}) == (("", 3, inf, unit),)
    assert ages(high={"value": 5, **year}) == (("", -inf, 5, unit),)
    assert ages() is None


def test_sampled_data_is_searched_by_its_bounds(index: Index) -> None:
    # value-quantity: "just search on the bounds of the values in sampled data"; E, U and L are no values.
    data = {"origin": {"value": 10, "unit": "mV"}, "period": 1, "factor": 0.5, "dimensions": 1, "data": "4 E -2 L 8"}
    entries = index.make_entries("Observation", {"resourceType": "Observation", "valueSampledData": data})
    assert entries.numbers["value-quantity"] == (("", 9, 14, "\x1f\x1fmV"),)


def test_eq_is_one_bounded_range(clause_of: Callable[..., Any]) -> None:
    tests = (Bound("low", "ge", 99.5), Bound("low", "lt", 100.5), Bound("high", "lt", 100.5))
    assert clause_of("RiskAssessment", "probability", "100") == NumberRange("probability", tests)
    assert clause_of("Observation", "value-quantity", "ne100||pieces") == Or(
        (
            NumberRange("value-quantity", (Bound("low", "lt", 99.5),), unit=(None, "pieces")),
            NumberRange("value-quantity", (Bound("high", "ge", 100.5),), unit=(None, "pieces")),
        )
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probability", "five"),
        ("probability", "1,5"),
        ("probability", ""),
        ("probability", "gt"),
        ("probability", "1e9999"),
        ("probability", "NaN"),
        ("probability", "0x10"),
    ],
)
def test_a_bad_number_is_named(clause_of: Callable[..., Any], name: str, value: str) -> None:
    with pytest.raises(Invalid, match=r"is not valid: a number is written like"):
        clause_of("RiskAssessment", name, value)


@pytest.mark.parametrize("value", ["5.4|mg", "5.4||||", "5.4|http://x|", "5|a|b|c", "|http://x|mg"])
def test_a_bad_quantity_is_named(clause_of: Callable[..., Any], value: str) -> None:
    with pytest.raises(Invalid, match="`value-quantity="):
        clause_of("Observation", "value-quantity", value)
