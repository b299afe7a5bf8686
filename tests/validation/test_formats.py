"""Each primitive type takes and refuses what its definition says (https://hl7.org/fhir/R4/datatypes.html#primitive).

The rows go through the validator as an extension's value, so that schema and diagnosis are both asked.
"""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.validation import formats
from fhir_server.validation.structure import StructureValidator

GOOD: dict[str, list[Any]] = {
    "boolean": [True, False],
    "integer": [0, -1, 2**31 - 1, -(2**31)],
    "unsignedInt": [0, 2**31 - 1],
    "positiveInt": [1, 2**31 - 1],
    "decimal": [0, -1, 1.5, 1e20, 2**60],
    "string": ["a", " a ", "two\nlines\tand a tab", "é", "\u00a0x", "x" * 1024 * 1024],
    "markdown": ["# Title\n\ntext"],
    "uri": ["http://example.org/a?b=c#d", "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7", "#local", "Patient/1"],
    "url": ["https://example.org/", "mailto:a@example.org"],
    "canonical": ["http://example.org/ValueSet/x|1.0"],
    "base64Binary": ["QQ==", "QUI=", "QUJD", "QUJD QUJE\nQQ==", "+/+/"],
    "instant": [
        "2015-02-07T13:28:17.239+02:00", "2017-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "2024-02-29T00:00:00-14:00",
    ],
    "date": ["2018", "1973-06", "1905-08-23", "2024-02-29", "2000-02-29", "0001-01-01", "9999-12-31", "2023-04-30"],
    "dateTime": ["2018", "1973-06", "1905-08-23", "2015-02-07T13:28:17-05:00", "2017-01-01T00:00:00.000Z"],
    "time": ["00:00:00", "23:59:59.123", "23:59:60"],
    "code": ["a", "in progress", "a-b_c"],
    "oid": ["urn:oid:1.2.3.4.5", "urn:oid:2.16.840.1.113883", "urn:oid:0.0"],
    "id": ["a", "A-1.b", "x" * 64],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
}  # fmt: skip

BAD: dict[str, list[Any]] = {
    "boolean": ["true", 1, 0, "", None],
    "integer": [1.0, 1.5, "1", True, 2**31, -(2**31) - 1, 2**63],
    "unsignedInt": [-1, 0.0, 2**31],
    "positiveInt": [0, -1, 1.0],
    "decimal": ["1.0", True, float("inf"), float("nan")],
    "string": ["", " ", "\t\r\n", "\u00a0\u2003", "a\x00b", "a\x1f", 1, True, "x" * (1024 * 1024 + 1)],
    "markdown": ["", "\n", "a\x07"],
    "uri": ["", "has space", " http://example.org", "http://example.org\n", "a\u0085b"],
    "url": ["", "a b"],
    "canonical": ["", "a b"],
    "base64Binary": ["", " ", "QQ", "QQ=", "Q===", "QQ==QQ==", "Q*==", "QU JD", "=QUI", "äääá"],
    "instant": [
        "2015", "2015-02-07", "2015-02-07T13:28:17", "2015-02-07T13:28Z", "2015-02-30T00:00:00Z",
        "2015-02-07 13:28:17Z", "2015-02-07T24:00:00Z", "2015-02-07T13:28:61Z", "2015-02-07T13:28:17+14:01",
        "2015-02-07T13:28:17z",
    ],
    "date": [
        "2023-02-29", "2023-02-30", "1900-02-29", "2100-02-29", "2023-04-31", "2023-13", "2023-00", "2023-01-00",
        "2023-1-1", "0000", "0000-02-29", "23", "2023-01-01T00:00:00Z", "2023-01-01\n", "20230101", " 2023", "", 2023,
        "２０２３",
    ],
    "dateTime": [
        "2015-02-07T13:28:17", "2015-02-07T13:28", "2015-02-07T13", "2023-02-29T10:00:00Z", "2023-06-31", "2015-02-07T",
        "2015-02-07T13:28:17.Z", "2015-02-07T13:28:17+1:00", "2015-02T13:28:17Z",
    ],
    "time": ["24:00:00", "10:00", "10:00:61", "10:00:00Z", "1:00:00", "10:60:00"],
    "code": ["", " a", "a ", "a  b", "a\tb", "\u00a0"],
    "oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02", "urn:oid:1", "urn:oid:1."],
    "id": ["", "a b", "a_b", "x" * 65, "é", "a\n"],
    "uuid": ["c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:C757873D-EC9A-4326-A141-556F43239520", "urn:uuid:1"],
}  # fmt: skip


def extended(type_: str, value: Any) -> dict[str, Any]:
    extension = {"url": "http://example.org/x", f"value{type_[0].upper()}{type_[1:]}": value}
    return {"resourceType": "Basic", "code": {"text": "x"}, "extension": [extension]}


def rows(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(t, v, id=f"{t}-{str(v)[:25]!a}") for t, values in table.items() for v in values]


@pytest.mark.parametrize(("type_", "value"), rows(GOOD))
def test_accepted(validator: StructureValidator, type_: str, value: Any) -> None:
    assert validator.find_issues(extended(type_, value)) == ()
    assert formats.find_fault(type_, value) is None


@pytest.mark.parametrize(("type_", "value"), rows(BAD))
def test_refused(validator: StructureValidator, type_: str, value: Any) -> None:
    [issue] = validator.find_issues(extended(type_, value))
    assert issue.severity == "error"
    assert issue.expression == (f"Basic.extension[0].value.ofType({type_})",)
    assert issue.code in {"structure", "value", "too-long"}


def test_xhtml_may_be_longer_than_a_string() -> None:
    assert formats.find_fault("xhtml", "x" * (1024 * 1024 + 1)) is None
    assert formats.find_fault("xhtml", " ") is not None


def test_the_sentence_says_what_would_be_right(validator: StructureValidator) -> None:
    [issue] = validator.find_issues({"resourceType": "Patient", "birthDate": "2023-02-30"})
    assert issue.code == "value"
    assert issue.diagnostics == (
        "`Patient.birthDate` is `2023-02-30`; it must be a date that exists, "
        "written as `2024`, `2024-02` or `2024-02-29`."
    )


def test_every_day_of_every_leap_pattern(validator: StructureValidator) -> None:
    """The pattern's calendar agrees with the Gregorian one, century rules included."""
    lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    for year in (1, 4, 100, 400, 1600, 1899, 1900, 1904, 1999, 2000, 2020, 2023, 2100, 2400, 9996, 9999):
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        for month, length in enumerate(lengths, 1):
            for day in range(33):
                exists = 1 <= day <= length + (leap and month == 2)
                text = f"{year:04}-{month:02}-{day:02}"
                assert (formats.find_fault("date", text) is None) == exists, text
