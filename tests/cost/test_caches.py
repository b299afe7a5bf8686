"""What is kept from one request to the next takes little memory, whatever texts strangers send."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.api.address import is_own_name
from fhir_server.api.log_paths import make_path_writer
from fhir_server.api.negotiation import accepts_gzip, find_accepted_type, is_fhir_json
from fhir_server.fhir import ucum
from fhir_server.search.parameters.token_modifiers import TEXT_EXTRACTORS
from mappers.hl7v2.groups import find_structure

LONG, TIMES, MOST = 50_000, 200, 1_000_000


def is_named(text: str) -> bool:
    return is_own_name("", "", text)


def extract_text(text: str) -> Any:
    return TEXT_EXTRACTORS["Coding"]({"display": text}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [
        ucum.parse_unit,
        extract_text,
        is_named,
        find_accepted_type,
        is_fhir_json,
        accepts_gzip,
        make_path_writer("/fhir", frozenset(), b"key"),
    ],
)
def test_long_texts_leave_nothing(function: Callable[[str], Any]) -> None:
    """200 texts of 50,000 characters are 10 MB: of them less than a tenth stays."""
    function("x")
    tracemalloc.start()
    for number in range(TIMES):
        function(f"{number:0{LONG}d}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MOST


@pytest.mark.parametrize("function", [ucum.parse_unit, find_structure])
def test_many_texts_leave_little(function: Callable[[str], Any]) -> None:
    """Of 20,000 short texts the last few thousand stay at most."""
    tracemalloc.start()
    for number in range(4_000):
        function(f"x{'y' * 100}{number}")
    first, _ = tracemalloc.get_traced_memory()
    for number in range(20_000):
        function(f"z{'y' * 100}{number}")
    last, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert last - first < 2 * MOST


def test_units_that_repeat_or_multiply_are_no_units() -> None:
    """Nothing in use has as many characters as a code that is read, so that none is lost."""
    assert max(map(len, ("10*6.[CFU]/L", "mmol/(12.h.kg)", "{INR}", "meq/(8.h.kg)"))) < ucum.LONGEST
    assert ucum.parse_unit("m." * 200 + "m") is None
    assert ucum.parse_unit(".".join(f"{{a{number}}}" for number in range(60))) is None
    fits = "m." * 100 + "m"
    assert len(fits) <= ucum.LONGEST and ucum.parse_unit(fits) == ucum.CanonicalUnit("m101", 1.0)
