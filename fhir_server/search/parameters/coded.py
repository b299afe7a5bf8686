"""Tokens by terminology: `:in`, `:not-in`, `:above` and `:below` (https://hl7.org/fhir/R4/search.html#token)."""

from __future__ import annotations

from functools import lru_cache

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.references import find_local_target
from fhir_server.fhir.terminology import load_published_terminology
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, make_or, reject
from fhir_server.search.query import NOTHING, Clause, EndsWith, Equals, StartsWith
from fhir_server.search.registry import Component, Parameter
from fhir_server.search.terminology import MODIFIERS, Codes

__all__ = ["MODIFIERS", "find_implied_systems", "implies", "parse_membership", "parse_subsumption"]

MEDIA_TYPES = "urn:ietf:bcp:13"
_SPECIAL_VALUES = {"http://hl7.org/fhir/special-values": "http://terminology.hl7.org/CodeSystem/special-values"}
"""R4's page on search has the first of these URLs for the system of booleans, its definitions the second."""


def parse_membership(parameter: Parameter, text: str, criteria: Criteria) -> Clause:
    """`:in`: some code is in the value set; `:not-in` is the same clause, negated by the caller."""
    canonical = unescape(text)
    if not canonical.partition("|")[0] or canonical.endswith("|"):
        raise reject(parameter, text, "it takes the URL of a value set, perhaps with `|version`, or `ValueSet/id`.")
    name = find_local_target(canonical, criteria.base, ("ValueSet",)) or canonical
    return _match_codes(parameter, criteria.terminology.list_codes(name))


def parse_subsumption(parameter: Parameter, modifier: str, token: tuple[str | None, str], criteria: Criteria) -> Clause:
    """`:below`: the code or one that it subsumes; `:above`: the code or one that subsumes it."""
    system, code = token
    implied = find_implied_systems(parameter)
    if system is None and len(implied) == 1:
        (system,) = implied
    if not system or not code:
        raise Invalid(
            f"`{parameter.code}:{modifier}` needs a code and its code system, as in "
            f"`{parameter.code}:{modifier}=http://example.org/codes|{code or 'code'}`."
        )
    if system == MEDIA_TYPES and system in implied:
        return _parse_media_type(parameter, modifier, code)
    terminology = criteria.terminology
    found = terminology.find_below(system, code) if modifier == "below" else terminology.find_above(system, code)
    return _match_codes(parameter, Codes(frozenset((system, each) for each in found)))


def _parse_media_type(parameter: Parameter, modifier: str, code: str) -> Clause:
    """R4, Searching Mime Types: `text/xml` is above `text/xml; charset=UTF-8`; and `text` is above both."""
    if modifier == "below":
        ends = (";", " ;") if "/" in code else ("/",)
        itself = Equals(parameter.code, (f"{code}{SEPARATOR}",))
        return make_or((itself, *(StartsWith(parameter.code, code + end) for end in ends)))
    base = code.partition(";")[0].rstrip()
    found = dict.fromkeys((code, base, base.partition("/")[0]))
    return Equals(parameter.code, tuple(f"{each}{SEPARATOR}" for each in found))


def implies(parameter: Parameter | Component, system: str, code: str, criteria: Criteria) -> bool:
    """Whether elements that hold a bare code may have `system|code`; "" stands for any code of the system."""
    if not system or not parameter.coded:
        return False
    implied = find_implied_systems(parameter)
    system = _SPECIAL_VALUES.get(system, system)
    if system not in implied or len(implied) == 1 or not code:
        return system in implied
    concepts = criteria.terminology.read_system(system)
    return concepts is None or code in concepts.properties


@lru_cache(maxsize=4096)
def find_implied_systems(parameter: Parameter | Component) -> frozenset[str]:
    """The systems of elements that hold a bare code: what their required bindings draw on."""
    known = load_published_terminology().implied
    return frozenset(system for path in parameter.coded for system in known.get(path, ()))


def _match_codes(parameter: Parameter, codes: Codes) -> Clause:
    implied = find_implied_systems(parameter)
    terms = {f"{code}{SEPARATOR}{system}" for system, code in codes.listed}
    terms.update(f"{code}{SEPARATOR}" for system, code in codes.listed if system in implied)
    systems = {*codes.systems, *(() if implied.isdisjoint(codes.systems) else ("",))}
    clauses: list[Clause] = [Equals(parameter.code, tuple(sorted(terms)))] if terms else []
    clauses += [EndsWith(parameter.code, f"{SEPARATOR}{system}") for system in sorted(systems)]
    return make_or(clauses) if clauses else NOTHING
