"""Token parameters: a code, and perhaps its system (https://hl7.org/fhir/R4/search.html#token).

Elements of type code and boolean are indexed without a system; they are found by the one that their binding implies.
Elements of type string, uri and id have none; neither has a ContactPoint, whose value is the code. Codes are compared
as written, case included. Strings, which a ContactPoint's value is too, are found in any case: those that are not in
lower case have a second entry that is, under the pseudo-parameter `element:caseless`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import coded, token_modifiers
from fhir_server.search.parameters.criteria import (
    Criteria,
    Extractor,
    ParameterType,
    Surroundings,
    make_or,
    reject,
)
from fhir_server.search.parameters.element_keys import list_element_names
from fhir_server.search.query import Clause, EndsWith, Equals, Ids, StartsWith
from fhir_server.search.registry import Parameter

FORM = "a token is `code`, `system|code`, `|code` (without a system) or `system|`; write `|` inside a value as `\\|`."
CASELESS = ":caseless"
TEXT_ONLY = SEPARATOR
"""The term of a value with neither code nor system: no code matches it, but the parameter is not missing."""


def parse_token(parameter: Parameter, text: str) -> tuple[str | None, str]:
    """(system or None when none was asked for, code) of a criterion."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1 and parts[0]:
        return None, parts[0]
    if len(parts) == 2 and (parts[0] or parts[1]):
        return parts[0], parts[1]
    raise reject(parameter, text, FORM)


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The code in any system, in the system or without one; `:not` is the same clause, negated by the caller."""
    if modifier in coded.MODIFIERS:
        return _parse_terminology(parameter, modifier, text, criteria)
    if modifier == "text":
        return token_modifiers.parse_text(parameter, text)
    if modifier == "of-type":
        return token_modifiers.parse_of_type(parameter, text)
    system, code = parse_token(parameter, text)
    if parameter.code == "_id":
        if system is not None:
            raise reject(parameter, text, "an id has no system.")
        return Ids((code,))
    if not system and not CASELESS_EXTRACTORS.keys().isdisjoint(parameter.datatypes):
        return _match_any_case(parameter, system, code)
    if system is None:
        return StartsWith(parameter.code, f"{code}{SEPARATOR}")
    systems = (system, "") if coded.implies(parameter, system, code, criteria) else (system,)
    if not code:
        return make_or(EndsWith(parameter.code, f"{SEPARATOR}{each}") for each in systems)
    return Equals(parameter.code, tuple(f"{code}{SEPARATOR}{each}" for each in systems))


def _match_any_case(parameter: Parameter, system: str | None, code: str) -> Clause:
    """R4: "If the underlying data type is string then the search is not case sensitive"."""
    lower = f"{code.casefold()}{SEPARATOR}"
    terms = dict.fromkeys((f"{code}{SEPARATOR}", lower))
    caseless = [Equals(name + CASELESS, (lower,)) for name in list_element_names(parameter)]
    if system is None and not CASELESS_EXTRACTORS.keys() >= set(parameter.datatypes):  # other elements may have systems
        return make_or((*(StartsWith(parameter.code, each) for each in terms), *caseless))
    return make_or((Equals(parameter.code, tuple(terms)), *caseless))


def _parse_terminology(parameter: Parameter, modifier: str, text: str, criteria: Criteria) -> Clause:
    if parameter.code == "_id":
        raise reject(parameter, text, f"an id is in no code system, so `:{modifier}` does not apply.")
    if modifier in ("in", "not-in"):
        return coded.parse_membership(parameter, text, criteria)
    return coded.parse_subsumption(parameter, modifier, parse_token(parameter, text), criteria)


def list_forms(term: str) -> tuple[str, str]:
    """The two forms by which a composite finds a token: its code alone, and code with system."""
    return term.partition(SEPARATOR)[0], term


def _extract_plain(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (f"{value}{SEPARATOR}",)


def _extract_boolean(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (f"true{SEPARATOR}" if value else f"false{SEPARATOR}",)


def _extract_coding(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (f"{value.get('code', '')}{SEPARATOR}{value.get('system', '')}",)


def _extract_codeable_concept(value: Any, around: Surroundings) -> tuple[str, ...]:
    codings = value.get("coding")
    if not codings:
        return (TEXT_ONLY,)
    if len(codings) == 1:
        return _extract_coding(codings[0], around)
    return tuple([f"{each.get('code', '')}{SEPARATOR}{each.get('system', '')}" for each in codings])


def _extract_identifier(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (f"{value.get('value', '')}{SEPARATOR}{value.get('system', '')}",)


def _extract_contact_point(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (f"{value.get('value', '')}{SEPARATOR}",)


def _extract_lower_case(value: Any, around: Surroundings) -> tuple[str, ...]:
    lower = value.casefold()
    return () if lower == value else (f"{lower}{SEPARATOR}",)


def _extract_lower_case_contact_point(value: Any, around: Surroundings) -> tuple[str, ...]:
    return _extract_lower_case(value.get("value", ""), around)


CASELESS_EXTRACTORS: Mapping[str, Extractor] = {
    "string": _extract_lower_case,
    "markdown": _extract_lower_case,
    "ContactPoint": _extract_lower_case_contact_point,
}

TOKEN = ParameterType(
    kind="terms",
    extractors={
        **dict.fromkeys(("code", "string", "markdown", "uri", "url", "canonical", "oid", "uuid", "id"), _extract_plain),
        **dict.fromkeys(("date", "dateTime"), _extract_plain),
        "boolean": _extract_boolean,
        "Coding": _extract_coding,
        "CodeableConcept": _extract_codeable_concept,
        "Identifier": _extract_identifier,
        "ContactPoint": _extract_contact_point,
    },
    parse_clause=parse_clause,
    modifiers=frozenset({"not", "text", "of-type", *coded.MODIFIERS}),
    negating_modifiers=frozenset({"not", "not-in"}),
    modifier_datatypes={
        "of-type": frozenset({"Identifier", "Extension"}),
        "text": frozenset({"Coding", "CodeableConcept", "Identifier", "Extension"}),
    },
)
