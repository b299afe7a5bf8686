"""Page tokens tell and admit nothing without the secret (https://hl7.org/fhir/R4/http.html#paging)."""

from __future__ import annotations

import base64

import pytest

from fhir_server.fhir.outcome import Invalid
from fhir_server.search import paging

SECRET = bytes(range(32))
NOW = 1_795_420_800_000_000
PAYLOAD = {
    "types": ["Patient"],
    "pairs": [["family", "Muñoz"], ["identifier", "urn:ssn|999-12-3456"]],
    "after": [12.5, None, "Patient/23"],
    "count": 20,
    "mode": "search",
}


def test_a_token_opens_to_what_was_sealed() -> None:
    assert paging.open_token(SECRET, paging.seal(SECRET, PAYLOAD), NOW) == PAYLOAD


def test_long_texts_are_compressed_and_open_to_what_was_sealed() -> None:
    payload = {"pairs": [["identifier", "urn:ssn|999-12-3456"]] * 500}
    token = paging.seal(SECRET, payload)
    assert len(token) < 1000
    assert paging.open_token(SECRET, token, NOW) == payload


def test_a_token_of_an_earlier_release_which_compressed_all_of_them_opens() -> None:
    token = "ARgcMsLKr_7TIa4PsMmaL6JTqEoYyyLouqVDH3HFW-R1gaMI69H0z0IUghIVYTzPmRxJtMtyJI3fYmL2QdNBsZv2ewE3upVeONhbvilN"
    assert paging.open_token(SECRET, token, NOW) == {"pairs": [["family", "Okafor"]], "after": ["Patient/23"]}


def test_numbers_of_a_sort_key_keep_their_type_and_value() -> None:
    payload = {"after": [NOW, -(2**62), 0.1, "1"]}
    opened = paging.open_token(SECRET, paging.seal(SECRET, payload), NOW)["after"]
    assert [(type(value), value) for value in opened] == [(int, NOW), (int, -(2**62)), (float, 0.1), (str, "1")]


def test_a_token_is_safe_in_a_url_and_short() -> None:
    token = paging.seal(SECRET, PAYLOAD)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(token) < 280


def test_the_terms_of_a_search_cannot_be_read_in_its_token() -> None:
    payload = {"pairs": [["identifier", "999-12-3456"] for _ in range(20)]}
    token = paging.seal(SECRET, payload)
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert b"999-12" not in raw
    assert not raw[17:].startswith(b"\x78\x01")  # the head of a zlib stream, were it only compressed


def test_equal_searches_with_another_position_have_unrelated_tokens() -> None:
    first = paging.seal(SECRET, {**PAYLOAD, "after": ["Patient/1"]})
    second = paging.seal(SECRET, {**PAYLOAD, "after": ["Patient/2"]})
    assert first[0] == second[0] == "A"  # the version's upper bits
    assert first[2:12] != second[2:12]
    assert first[-10:] != second[-10:]


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_a_token_with_one_character_changed_is_refused(position: int) -> None:
    token = paging.seal(SECRET, PAYLOAD)
    other = "A" if token[position] != "A" else "B"
    with pytest.raises(Invalid, match="not made by this server or was changed"):
        paging.open_token(SECRET, token[:position] + other + token[position + 1 :], NOW)


@pytest.mark.parametrize(
    "token", ["", "A", "AQ", "=", "not a token", "é", "%00", "\ud800", "A" * 4000, "AQ" + "A" * 40]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid) as error:
        paging.open_token(SECRET, token, NOW)
    assert error.value.status == 400
    assert str(error.value) == "This page link was not made by this server or was changed; start the search again."


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 10])
def test_a_cut_or_lengthened_token_is_refused(cut: int) -> None:
    token = paging.seal(SECRET, PAYLOAD)
    for changed in (token[:-cut], token + "A" * cut, token + "=" * cut):
        with pytest.raises(Invalid):
            paging.open_token(SECRET, changed, NOW)


def test_another_database_cannot_open_it() -> None:
    with pytest.raises(Invalid):
        paging.open_token(bytes(32), paging.seal(SECRET, PAYLOAD), NOW)


def test_an_expired_token_is_refused_and_says_so() -> None:
    token = paging.seal(SECRET, {"expires": NOW})
    assert paging.open_token(SECRET, token, NOW) == {"expires": NOW}
    with pytest.raises(Invalid, match=r"^This page link has expired; start the search again\.$") as error:
        paging.open_token(SECRET, token, NOW + 1)
    assert error.value.issues[0].code == "expired"
