"""Texts taken apart: what Unicode says of the whole, in pieces that no number of marks makes slow."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.letters import list_letters
from tests.cost.measuring import check_ratio_of_calls

ACUTE, BELOW = "\u0301", "\u0323"


@given(st.text(st.sampled_from(["a", "é", "Å", "ﬁ", "한", "\ufdfa", ACUTE, BELOW, "ß", "Ǖ", " ", "𝟙"]), max_size=200))
def test_pieces_give_what_the_whole_gives(text: str) -> None:
    """Marks change their order alone, and none is left."""
    whole = unicodedata.normalize("NFKD", text)
    assert list_letters(text) == "".join(sign for sign in whole if not unicodedata.combining(sign))


def test_letters_and_marks() -> None:
    assert list_letters("José ﬁn Å 한") == "Jose fin A " + "\u1112\u1161\u11ab"
    assert list_letters("a" + ACUTE * 1000 + "b") == "ab"


@pytest.mark.anyio
async def test_many_marks_on_a_letter_take_what_their_number_says() -> None:
    """In whole they are sorted by insertion: 400,000 took minutes, with the interpreter held all the time."""
    few, many = ("a" + (ACUTE + BELOW) * count for count in (20_000, 40_000))
    assert list_letters(few) == list_letters(many) == "a"
    await check_ratio_of_calls(lambda: list_letters(few), lambda: list_letters(many), 3, tries=8)
