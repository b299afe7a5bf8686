"""String parameters: case, accents and punctuation do not matter, a match starts with the value (https://hl7.org/fhir/R4/search.html#string)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings, wrong
from fhir_server.search.query import Clause, Contains, Equals, StartsWith
from fhir_server.search.registry import Parameter

NOTHING_LEFT = "a string needs at least one character that is not a space. Punctuation does not count."
_NAME = ("text", "family", "given", "prefix", "suffix")
_ADDRESS = ("text", "line", "city", "district", "state", "postalCode", "country")


_PUNCTUATION = bytes(sign for sign in range(128) if unicodedata.category(chr(sign))[0] == "P")
_SMALL = bytes(
    ord(" ") if chr(sign).isspace() else ord(chr(sign).lower()) if sign < 128 else sign for sign in range(256)
)


def folded(text: str) -> str:
    """The text without case, accents and surplus white space: ` José  LÓPEZ` and `jose lopez` are the same."""
    return " ".join((text if text.isascii() else "".join(_letters(text))).casefold().split())


def normalise(text: str) -> str:
    """The text without punctuation either: `O'Brien`, `O’Brien` and `obrien` are the same."""
    if text.isalnum() and text.isascii():  # as most names are
        return text.lower()
    if text.isascii():
        return b" ".join(text.encode().translate(_SMALL, _PUNCTUATION).split()).decode()
    plain = "".join(sign for sign in _letters(text) if sign.isalnum() or unicodedata.category(sign)[0] != "P")
    return " ".join(plain.casefold().split())


def _letters(text: str) -> Iterable[str]:
    """The characters of the text, and those that others are composed of, but no accents."""
    return [sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)]


def term(text: str) -> str:
    """The term of a string."""
    return f"{normalise(text)}{SEPARATOR}{text}"


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """Starts with the value; `:contains` holds it anywhere; `:exact` is it, case and accents included."""
    wanted = unescape(text)
    normalised = normalise(wanted)
    if not normalised and not (modifier == "exact" and wanted.strip()):
        raise wrong(parameter, text, NOTHING_LEFT)
    if modifier == "exact":
        return Equals(parameter.code, (f"{normalised}{SEPARATOR}{wanted}",))
    if modifier == "contains":
        return Contains(parameter.code, normalised, strings=True)
    return StartsWith(parameter.code, normalised)


def _string(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (term(value),)


def _parts(value: Any, members: tuple[str, ...]) -> tuple[str, ...]:
    """The terms of all string parts; lists may hold null where only an extension is."""
    terms = []
    for member in members:
        part = value.get(member)
        if part.__class__ is str:
            terms.append(term(part))
        elif part:
            terms.extend(term(each) for each in part if each is not None)
    return tuple(terms)


def _human_name(value: Any, around: Surroundings) -> tuple[str, ...]:
    return _parts(value, _NAME)


def _address(value: Any, around: Surroundings) -> tuple[str, ...]:
    return _parts(value, _ADDRESS)


STRING = ParameterType(
    kind="terms",
    extract={
        "string": _string,
        "markdown": _string,
        "code": _string,
        "uri": _string,
        "id": _string,
        "HumanName": _human_name,
        "Address": _address,
    },
    clause=clause,
    modifiers=frozenset({"exact", "contains"}),
)
