"""String parameters: case, accents and punctuation do not matter, a match starts with the value (https://hl7.org/fhir/R4/search.html#string).

The parts of a family name are searched independently: the words after its first are indexed under the pseudo-parameter
`element:family-words` of the HumanName, as normalised strings without their spelling; `element_keys` says how elements
are named.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fhir_server.fhir.letters import list_letters
from fhir_server.fhir.path import Member, Path, parse_for
from fhir_server.fhir.short_cache import cache_short
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import (
    Criteria,
    Extractor,
    ParameterType,
    Surroundings,
    make_or,
    reject,
)
from fhir_server.search.parameters.element_keys import name_element
from fhir_server.search.query import Clause, Contains, Equals, StartsWith
from fhir_server.search.registry import Parameter

FORM = "a string needs at least one character that is not a space. Punctuation does not count."
FAMILY_WORDS = ":family-words"
_NAME = ("text", "family", "given", "prefix", "suffix")
_ADDRESS = ("text", "line", "city", "district", "state", "postalCode", "country")
_BETWEEN_WORDS = re.compile(r"[\s\-\u2010-\u2013\u30a0\uff0d]+")
"""White space, hyphens and the dashes that are written for them."""

_PUNCTUATION = bytes(sign for sign in range(128) if unicodedata.category(chr(sign))[0] == "P")
_SMALL = bytes(
    ord(" ") if chr(sign).isspace() else ord(chr(sign).lower()) if sign < 128 else sign for sign in range(256)
)


def fold(text: str) -> str:
    """The text without case, accents and surplus white space: ` José  LÓPEZ` and `jose lopez` are the same."""
    return " ".join((text if text.isascii() else list_letters(text)).casefold().split())


def normalise(text: str) -> str:
    """The text without punctuation either: `O'Brien`, `O’Brien` and `obrien` are the same."""
    if text.isalnum() and text.isascii():  # as most names are
        return text.lower()
    if text.isascii():
        return b" ".join(text.encode().translate(_SMALL, _PUNCTUATION).split()).decode()
    plain = "".join(sign for sign in list_letters(text) if sign.isalnum() or unicodedata.category(sign)[0] != "P")
    return " ".join(plain.casefold().split())


@cache_short(4096)
def make_term(text: str) -> str:
    """The term of a string. Names, cities and states come again and again."""
    return f"{normalise(text)}{SEPARATOR}{text}"


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """Starts with the value, as a later word of a family name may; `:contains` and `:exact` look at whole strings."""
    written = unescape(text)
    normalised = normalise(written)
    if not normalised and not (modifier == "exact" and written.strip()):
        raise reject(parameter, text, FORM)
    if modifier == "exact":
        return Equals(parameter.code, (f"{normalised}{SEPARATOR}{written}",))
    if modifier == "contains":
        return Contains(parameter.code, normalised, strings=True)
    starts = StartsWith(parameter.code, normalised)
    if not parameter.family_names:
        return starts
    words = [StartsWith(each + FAMILY_WORDS, normalised, few=True) for each in _list_name_elements(parameter)]
    return make_or((starts, *words))


@lru_cache(maxsize=4096)
def _list_name_elements(parameter: Parameter) -> tuple[str, ...]:
    """The names of the elements that are HumanNames, or whose `family` is searched."""
    branches = parse_for(parameter.expression, parameter.base)
    return tuple(dict.fromkeys(name_element(parameter.code, trim_to_name(branch.steps)) for branch in branches))


def trim_to_name(steps: Path) -> Path:
    """The steps to the HumanName, where they lead to its `family`: `family` and `name` have its words in common."""
    last = steps[-1] if steps else None
    return steps[:-1] if isinstance(last, Member) and last.name == "family" and last.index is None else steps


def _extract_string(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (make_term(value),)


def _extract_parts(value: Any, members: tuple[str, ...]) -> tuple[str, ...]:
    """The terms of all string parts; lists may hold null where only an extension is."""
    terms = []
    for member in members:
        part = value.get(member)
        if part.__class__ is str:
            terms.append(make_term(part))
        elif part:
            terms.extend(make_term(each) for each in part if each is not None)
    return tuple(terms)


def _extract_human_name(value: Any, around: Surroundings) -> tuple[str, ...]:
    return _extract_parts(value, _NAME)


def _extract_family_words(value: Any, around: Surroundings) -> tuple[str, ...]:
    """The words after the first: R4 asks servers to search the parts of a family name independently."""
    family = value.get("family", "")
    if family.isalnum():  # one word, as most are
        return ()
    words = [word for part in _BETWEEN_WORDS.split(family) if (word := normalise(part))]
    return tuple([f"{word}{SEPARATOR}" for word in words[1:]])


FAMILY_WORDS_EXTRACTORS: Mapping[str, Extractor] = {"HumanName": _extract_family_words}


def _extract_address(value: Any, around: Surroundings) -> tuple[str, ...]:
    return _extract_parts(value, _ADDRESS)


STRING = ParameterType(
    kind="terms",
    extractors={
        **dict.fromkeys(("string", "markdown", "code", "uri", "id"), _extract_string),
        "HumanName": _extract_human_name,
        "Address": _extract_address,
    },
    parse_clause=parse_clause,
    modifiers=frozenset({"exact", "contains"}),
)
