"""Following a parameter to other resources, by references and by canonicals (https://hl7.org/fhir/R4/search.html#chaining).

A canonical leads to the resources of a type that have its URL, and its version where it names one: to every version
that is stored here where it names none. One that reads as an address of this server, or `#id`, is followed as a
reference too.
"""

from __future__ import annotations

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, URL, VERSION
from fhir_server.search.registry import Parameter, Registry

CANONICAL = frozenset({"canonical", "uri", "Extension"})
"""Types of elements that hold the URL of a resource, perhaps with a version."""


def can_hold_canonical(parameter: Parameter, type: str, registry: Registry) -> bool:
    """Whether a reference parameter may name resources of a type by their URL."""
    url = registry.parameters(type).get(URL)
    return not CANONICAL.isdisjoint(parameter.datatypes) and url is not None and url.type == "uri"


def build_canonical_clause(term: str) -> q.Clause:
    """What a resource that the term of a canonical names matches: it has the URL, and the version if there is one."""
    url, _, version = term.partition(SEPARATOR)
    by_url = q.Equals(URL, (url,))
    return q.And((by_url, q.Equals(VERSION, (f"{version}{SEPARATOR}",)))) if version else by_url


def build_chain(parameter: Parameter, type: str, where: q.Clause, registry: Registry) -> q.Clause:
    """The parameter leads to a resource of `type` that matches `where`."""
    if "Resource" in parameter.datatypes:  # of which there may be another version, or none, among those stored
        return q.Within(parameter.code, where, type)
    chain = q.Chain(parameter.code, type, where)
    if not can_hold_canonical(parameter, type, registry):
        return chain
    return q.Or((chain, q.CanonicalChain(parameter.code, type, where)))


def build_reverse_chain(parameter: Parameter, type: str, where: q.Clause, registry: Registry) -> q.Clause:
    """The parameter of a resource that matches `where` leads to this one, which is of `type`."""
    has = q.Has(parameter.base, parameter.code, where)
    if not can_hold_canonical(parameter, type, registry):
        return has
    return q.Or((has, q.CanonicalHas(parameter.base, parameter.code, where)))
