"""String parameters: case and accents do not matter, a match starts with the value (https://hl7.org/fhir/R4/search.html#string)."""

from __future__ import annotations

import unicodedata
from typing import Any

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings, wrong
from fhir_server.search.query import Clause, Contains, Equals, StartsWith
from fhir_server.search.registry import Parameter

_NAME = ("text", "family", "given", "prefix", "suffix")
_ADDRESS = ("text", "line", "city", "district", "state", "postalCode", "country")


def normalise(text: str) -> str:
    """The text without case, accents and surplus white space: ` José  LÓPEZ` and `jose lopez` are the same."""
    if not text.isascii():
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join(text.casefold().split())


def term(text: str) -> str:
    """The term of a string."""
    return f"{normalise(text)}{SEPARATOR}{text}"


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """Starts with the value; `:contains` holds it anywhere; `:exact` is it, case and accents included."""
    wanted = unescape(text)
    normalised = normalise(wanted)
    if not normalised:
        raise wrong(parameter, text, "a string needs at least one character that is not a space.")
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
