"""Following a parameter to other resources, by references and by canonicals (https://hl7.org/fhir/R4/search.html#chaining).

A canonical leads to the resources of a type that have its URL, and its version where it names one: to every version
that is stored here where it names none. One that reads as an address of this server, or `#id`, is followed as a
reference too.
"""

from __future__ import annotations

from fhir_server.search.entries import URL
from fhir_server.search.query import CanonicalChain, CanonicalHas, Chain, Clause, Has, Or, Within
from fhir_server.search.registry import Parameter, Registry

CANONICAL = frozenset({"canonical", "uri", "Extension"})
"""Types of elements that hold the URL of a resource, perhaps with a version."""


def names(parameter: Parameter, type: str, registry: Registry) -> bool:
    """Whether a reference parameter may name resources of a type by their URL."""
    url = registry.parameters(type).get(URL)
    return not CANONICAL.isdisjoint(parameter.datatypes) and url is not None and url.type == "uri"


def chain(parameter: Parameter, type: str, where: Clause, registry: Registry) -> Clause:
    """The parameter leads to a resource of `type` that matches."""
    if "Resource" in parameter.datatypes:  # of which there may be another version, or none, among those stored
        return Within(parameter.code, where, type)
    direct = Chain(parameter.code, type, where)
    return Or((direct, CanonicalChain(parameter.code, type, where))) if names(parameter, type, registry) else direct


def has(parameter: Parameter, type: str, where: Clause, registry: Registry) -> Clause:
    """The parameter of a resource that matches leads to this one, which is of `type`."""
    direct = Has(parameter.base, parameter.code, where)
    named = names(parameter, type, registry)
    return Or((direct, CanonicalHas(parameter.base, parameter.code, where))) if named else direct
