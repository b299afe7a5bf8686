"""The formats of the primitive types (https://hl7.org/fhir/R4/datatypes.html#primitive).

Each has two forms: a JSON Schema (Draft 4) for the fast check, which may refuse a rare valid value but never accepts an
invalid one, and `find_fault`, which decides and explains.
"""

from __future__ import annotations

import binascii
import math
import re
from dataclasses import dataclass
from typing import Any

# Month lengths and leap years are in the patterns, so that dates need no other check. The year 0000 does not exist.
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_MONTH = f"{_YEAR}-(?:0[1-9]|1[0-2])"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_OFFSET = "(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_INSTANT = f"{_DAY}T{_CLOCK}{_OFFSET}"

_LONGEST_STRING = 1024 * 1024
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f"
# The engines differ on whether U+0085 is whitespace, so control characters are named.
_NOT_SPACE = r"[^\s\x00-\x1f\x7f-\x9f]"
_BASE64 = "[A-Za-z0-9+/]"

_FORMATS: dict[str, tuple[str, str]] = {
    "code": (
        f"{_NOT_SPACE}+(?: {_NOT_SPACE}+)*",
        "a code without leading, trailing or repeated whitespace",
    ),
    "id": (r"[A-Za-z0-9\-.]{1,64}", "an id of 1 to 64 letters, digits, `-` and `.`"),
    "oid": (r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+", "an OID written as `urn:oid:1.2.3`"),
    "uuid": (
        "urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "a UUID written as `urn:uuid:` and lower-case hexadecimal digits",
    ),
    "uri": (f"{_NOT_SPACE}+", "a URI without whitespace"),
    "url": (f"{_NOT_SPACE}+", "a URL without whitespace"),
    "canonical": (f"{_NOT_SPACE}+", "a canonical URL without whitespace"),
    "date": (f"{_DAY}|{_MONTH}|{_YEAR}", "a date that exists, written as `2024`, `2024-02` or `2024-02-29`"),
    "dateTime": (
        f"{_INSTANT}|{_DAY}|{_MONTH}|{_YEAR}",
        "a date that exists, written as `2024`, `2024-02`, `2024-02-29` or `2024-02-29T13:05:00+01:00`; "
        "a time has seconds and an offset",
    ),
    "instant": (
        _INSTANT,
        "a moment that exists, written as `2024-02-29T13:05:00.000+01:00`, seconds and offset included",
    ),
    "time": (_CLOCK, "a time of day written as `13:05:00`, without an offset"),
}
"""Primitive type → its pattern, and the words for a correct value."""
_COMPILED = {type: re.compile(pattern) for type, (pattern, _) in _FORMATS.items()}
_CONTROL = re.compile(f"[{_CONTROLS}]")

_INTEGERS = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
"""Integer type → smallest value; all end at 2³¹ - 1."""
_LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a primitive: an issue code, and the words for a correct value."""

    code: str
    expected: str


def build_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each primitive type."""
    text = rf"^[ \r\n\t]*{_NOT_SPACE}[^{_CONTROLS}]*$"
    schemas: dict[str, dict[str, Any]] = {
        "boolean": {"type": "boolean"},
        "decimal": {"type": "number"},
        "string": {"type": "string", "pattern": text, "maxLength": _LONGEST_STRING},
        "markdown": {"type": "string", "pattern": text, "maxLength": _LONGEST_STRING},
        "xhtml": {"type": "string", "pattern": text},
        "base64Binary": {
            "type": "string",
            "pattern": f"^(?:{_BASE64}{{4}})*(?:{_BASE64}{{2}}==|{_BASE64}{{3}}=|{_BASE64}{{4}})$",
        },
    }
    for type, smallest in _INTEGERS.items():
        schemas[type] = {"type": "integer", "minimum": smallest, "maximum": _LARGEST_INTEGER}
    for type, (pattern, _) in _FORMATS.items():
        schemas[type] = {"type": "string", "pattern": f"^(?:{pattern})$"}
    return schemas


def find_fault(type: str, value: Any) -> Fault | None:
    """What is wrong with a primitive `value`, or None when it is a correct `type_`."""
    if type in _INTEGERS:
        return _find_integer_fault(value, _INTEGERS[type])
    if type == "boolean":
        return None if isinstance(value, bool) else Fault("structure", "`true` or `false` without quotation marks")
    if type == "decimal":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if is_number else Fault("structure", "a JSON number without quotation marks")
    if not isinstance(value, str):
        return Fault("structure", "a JSON string")
    if type == "base64Binary":
        return None if _is_base64(value) else Fault("value", "base64 in groups of four characters, padded with `=`")
    if type in _FORMATS:
        expected = _FORMATS[type][1]
        return None if _COMPILED[type].fullmatch(value) else Fault("value", expected)
    return _find_text_fault(value, has_limit=type != "xhtml")


def _find_integer_fault(value: Any, smallest: int) -> Fault | None:
    expected = f"a whole number from {smallest} to {_LARGEST_INTEGER}, written without fraction or exponent"
    if isinstance(value, bool) or not isinstance(value, int):
        return Fault("structure", expected)
    return None if smallest <= value <= _LARGEST_INTEGER else Fault("value", expected)


def _find_text_fault(value: str, has_limit: bool) -> Fault | None:
    if not value.strip():
        return Fault("value", "text with at least one character that is not whitespace; leave out what is empty")
    if _CONTROL.search(value):
        return Fault("value", "text without control characters other than tab, line feed and carriage return")
    if has_limit and len(value) > _LONGEST_STRING:
        return Fault("too-long", f"text of at most {_LONGEST_STRING} characters")
    return None


def _is_base64(value: str) -> bool:
    """Whether it is base64; whitespace is allowed between groups of four, as MIME breaks lines."""
    parts = value.split()
    if not parts or any(len(part) % 4 for part in parts) or not value.isascii():
        return False
    try:
        binascii.a2b_base64("".join(parts), strict_mode=True)
    except binascii.Error:
        return False
    return True
