"""Text and numbers as X12 wants them, and the numbering of levels (X12.6)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.x12.elements import is_date, is_time
from mappers.x12.loop import to_decimal
from mappers.x12.segment import make_segment
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.writer import ControlNumbers, Envelope, clean, number_levels, write_decimal, write_interchange

BASIC = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !\"&'()+,-./;?=")


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("Zoë Núñez", 60, "ZOE NUNEZ"),
        ("  two   spaces ", 60, "TWO SPACES"),
        ("a*b~c:d^e", 60, "A B C D E"),
        ("O'Brien-Smith", 60, "O'BRIEN-SMITH"),
        ("line\none", 60, "LINE ONE"),
        ("ABCDEF", 3, "ABC"),
        ("AB CD", 3, "AB"),
        ("王", 10, ""),
        (None, 10, ""),
        (12, 10, "12"),
    ],
)
def test_text_is_cleaned(text: object, size: int, expected: str) -> None:
    assert clean(text, size) == expected


def test_the_extended_set_keeps_a_mail_address() -> None:
    assert clean("ann_b@clinic.example", 80, extended=True) == "ann_b@clinic.example"


@given(st.text(max_size=80), st.integers(1, 60))
def test_clean_text_is_basic_short_trimmed_and_stays_as_it_is(text: str, size: int) -> None:
    cleaned = clean(text, size)
    assert set(cleaned) <= BASIC
    assert len(cleaned) <= size
    assert cleaned == cleaned.strip() == clean(cleaned, size)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("100.00", "100"),
        ("0.50", "0.5"),
        ("-12.30", "-12.3"),
        ("1E+3", "1000"),
        ("0", "0"),
        ("-0.00", "0"),
        ("0.005", "0.005"),
    ],
)
def test_numbers_have_no_exponent_and_no_needless_zeros(number: str, expected: str) -> None:
    assert write_decimal(Decimal(number)) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_a_number_that_is_written_is_read_as_it_was(number: Decimal) -> None:
    assert to_decimal(write_decimal(number)) == number


@pytest.mark.parametrize("text", ["", "1e5", "1-2", "--1", "1.2.3", ".", "-", "NaN", "Infinity", "１", "1 0"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert to_decimal(text) is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("20260228", True),
        ("20260229", False),
        ("20240229", True),
        ("20261301", False),
        ("260131", True),
        ("2026013", False),
        ("2026013A", False),
    ],
)
def test_dates(text: str, valid: bool) -> None:
    assert is_date(text) == valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [("2359", True), ("2400", False), ("1260", False), ("120059", True), ("120060", False), ("12", False)],
)
def test_times(text: str, valid: bool) -> None:
    assert is_time(text) == valid


def test_levels_are_numbered_by_their_order() -> None:
    levels = [make_segment("HL", "", "", code, "") for code in ("20", "22", "23", "22", "20", "22")]
    assert ["*".join(level.elements) for level in number_levels(levels)] == [
        "HL*1**20*1", "HL*2*1*22*1", "HL*3*2*23*0", "HL*4*1*22*0", "HL*5**20*1", "HL*6*5*22*0",
    ]  # fmt: skip


def test_an_interchange_without_sets_holds_its_ta1_alone() -> None:
    numbers = ControlNumbers(12, 3, datetime(2026, 1, 15, 12, 0))
    text = write_interchange(Envelope("A", "B"), numbers, TABLE_999, [], "TA1*000000001*260115*1200*A*000~")
    assert text.split("~")[1:] == ["TA1*000000001*260115*1200*A*000", "IEA*0*000000012", ""]
