"""The token modifiers `text` and `of-type`: the words beside a code, the type of an identifier (https://hl7.org/fhir/R4/search.html#token).

Words are indexed under the pseudo-parameter `element:text` as normalised strings without their spelling, identifiers
with a type under `element:of-type` as system, code and value; `element_keys` says how elements are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.short_cache import cache_short
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters.criteria import Extractor, Surroundings, make_or, reject
from fhir_server.search.parameters.element_keys import list_element_names
from fhir_server.search.parameters.string import normalise
from fhir_server.search.query import Clause, Equals, StartsWith
from fhir_server.search.registry import Parameter

TEXT = ":text"
OF_TYPE = ":of-type"
_TEXT_FORM = "`:text` needs at least one character that is not a space. Punctuation does not count."
_OF_TYPE_FORM = "`:of-type` takes `system|code|value`: the type of the identifier by system and code, and its value."


def parse_text(parameter: Parameter, text: str) -> Clause:
    """Some text of the code starts with the value; as in a string search."""
    prefix = normalise(unescape(text))
    if not prefix:
        raise reject(parameter, text, _TEXT_FORM)
    return make_or(StartsWith(name + TEXT, prefix) for name in list_element_names(parameter))


def parse_of_type(parameter: Parameter, text: str) -> Clause:
    """An identifier of that type has that value; all three parts are needed."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) != 3 or not all(parts):
        raise reject(parameter, text, _OF_TYPE_FORM)
    return make_or(Equals(name + OF_TYPE, (SEPARATOR.join(parts),)) for name in list_element_names(parameter))


@cache_short(8192)
def _make_term(text: str) -> str:
    """The term of a text, without its spelling; cached, as resources have few different displays."""
    return f"{normalise(text)}{SEPARATOR}"


def _extract_coding(value: Any, around: Surroundings) -> tuple[str, ...]:
    display = value.get("display")
    return (_make_term(display),) if display else ()


def _extract_codeable_concept(value: Any, around: Surroundings) -> tuple[str, ...]:
    text = value.get("text")
    terms = [_make_term(text)] if text else []
    for coding in value.get("coding", ()):
        display = coding.get("display")
        if display and display != text:
            terms.append(_make_term(display))
    return tuple(terms)


def _extract_identifier(value: Any, around: Surroundings) -> tuple[str, ...]:
    text = value.get("type", {}).get("text")
    return (_make_term(text),) if text else ()


def _extract_typed_identifier(value: Any, around: Surroundings) -> tuple[str, ...]:
    type, text = value.get("type"), value.get("value")
    if not type or not text:
        return ()
    codings = type.get("coding", ())
    return tuple([f"{each.get('system', '')}{SEPARATOR}{each.get('code', '')}{SEPARATOR}{text}" for each in codings])


TEXT_EXTRACTORS: Mapping[str, Extractor] = {
    "Coding": _extract_coding,
    "CodeableConcept": _extract_codeable_concept,
    "Identifier": _extract_identifier,
}
OF_TYPE_EXTRACTORS: Mapping[str, Extractor] = {"Identifier": _extract_typed_identifier}
