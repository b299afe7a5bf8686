"""Tokens by terminology: `:in`, `:not-in`, `:above` and `:below` (https://hl7.org/fhir/R4/search.html#token)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.references import local
from fhir_server.fhir.terminology import published
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, any_of, wrong
from fhir_server.search.query import NOTHING, Clause, EndsWith, Equals
from fhir_server.search.registry import Parameter
from fhir_server.search.terminology import MODIFIERS, Codes

__all__ = ["MODIFIERS", "subsumed", "within"]


def within(parameter: Parameter, text: str, criteria: Criteria) -> Clause:
    """`:in`: some code is in the value set; `:not-in` is the same clause, negated by the caller."""
    canonical = unescape(text)
    if not canonical.partition("|")[0] or canonical.endswith("|"):
        raise wrong(parameter, text, "it takes the URL of a value set, perhaps with `|version`, or `ValueSet/id`.")
    name = local(canonical, criteria.base, ("ValueSet",)) or canonical
    return _any_code(parameter, criteria.terminology.codes(name))


def subsumed(parameter: Parameter, modifier: str, given: tuple[str | None, str], criteria: Criteria) -> Clause:
    """`:below`: the code or one that it subsumes; `:above`: the code or one that subsumes it."""
    system, code = given
    implied = _implied(parameter)
    if system is None and len(implied) == 1:
        (system,) = implied
    if not system or not code:
        raise Invalid(
            f"`{parameter.code}:{modifier}` needs a code and its code system, as in "
            f"`{parameter.code}:{modifier}=http://example.org/codes|{code or 'code'}`."
        )
    terminology = criteria.terminology
    found = terminology.below(system, code) if modifier == "below" else terminology.above(system, code)
    return _any_code(parameter, Codes(frozenset((system, each) for each in found)))


def _implied(parameter: Parameter) -> frozenset[str]:
    """The systems of elements that hold a bare code: what their required bindings draw on."""
    known = published().implied
    return frozenset(system for path in parameter.expression.split(" | ") for system in known.get(path, ()))


def _any_code(parameter: Parameter, codes: Codes) -> Clause:
    implied = _implied(parameter)
    terms = {f"{code}{SEPARATOR}{system}" for system, code in codes.listed}
    terms.update(f"{code}{SEPARATOR}" for system, code in codes.listed if system in implied)
    systems = {*codes.systems, *(() if implied.isdisjoint(codes.systems) else ("",))}
    clauses: list[Clause] = [Equals(parameter.code, tuple(sorted(terms)))] if terms else []
    clauses += [EndsWith(parameter.code, f"{SEPARATOR}{system}") for system in sorted(systems)]
    return any_of(clauses) if clauses else NOTHING
