"""Numbers keep their text; content is compared as JSON with numbers as written."""

from __future__ import annotations

import pytest

from fhir_server.fhir import json_tree
from fhir_server.fhir.outcome import Invalid

# "Implementations SHALL ... preserve the precision of decimals" https://hl7.org/fhir/R4/datatypes.html#decimal
NUMBERS = [b"1.10", b"-0", b"-0.0", b"0.00", b"1e5", b"1E+400", b"185", b"-7", b"123456789012345678901234567890"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_written_as_it_was_read(number: bytes) -> None:
    raw = b'{"value":[%b,{"value":%b}]}' % (number, number)
    assert json_tree.encode(json_tree.decode(raw)) == raw


def test_plain_integers_are_integers() -> None:
    assert json_tree.decode(b"[0,1,-2,true,null]") == [0, 1, -2, True, None]


def test_text_is_compacted_and_unescaped() -> None:
    assert json_tree.encode(json_tree.decode(b'{ "a" : "\\u00e9\\/" }')) == '{"a":"é/"}'.encode()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{} x", b'{"a":NaN}', b"[-Infinity]", b"\xff", b'"\\ud800"', b"[" * 100_000, b"01", b"[1,]"]
)
def test_what_is_not_json_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        json_tree.decode(raw)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', True),
        (b"[1,2]", b"[2,1]", False),
        (b"1.0", b"1.00", False),
        (b"1", b"1.0", False),
        (b"1", b"true", False),
        (b"0", b"false", False),
        (b'"1"', b"1", False),
        (b"-0", b"0", False),
    ],
)
def test_equality_is_that_of_json_with_numbers_as_written(left: bytes, right: bytes, same: bool) -> None:
    assert json_tree.are_equal(json_tree.decode(left), json_tree.decode(right)) is same


def test_a_copy_shares_no_container() -> None:
    tree = {"a": [{"b": json_tree.Number("1.0")}]}
    copy = json_tree.copy_tree(tree)
    copy["a"][0]["b"] = 2
    assert tree == {"a": [{"b": json_tree.Number("1.0")}]}


STORED = (
    b'{"resourceType":"Patient","id":"a","meta":{"versionId":"3","lastUpdated":"2026-01-01T00:00:00Z"},"n":{"v":1.0}}'
)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (STORED, True),
        (b'{"resourceType":"Patient","id":"a","n":{"v":1.0}}', True),
        (b'{"id":"a", "resourceType":"Patient", "n": {"v": 1.0}, "meta":{}}', True),
        (STORED.replace(b'"3"', b'"7"'), True),
        (STORED.replace(b"1.0", b"1.00"), False),
        (STORED.replace(b'"meta":{', b'"meta":{"source":"urn:x",'), False),
        (STORED.replace(b'"n":', b'"m":'), False),
        (STORED[:-1] + b',"active":true}', False),
    ],
)
def test_content_is_the_same_apart_from_version_and_time(text: bytes, same: bool) -> None:
    assert json_tree.has_same_content(STORED, text) is same
    assert json_tree.has_same_content(text, STORED) is same
