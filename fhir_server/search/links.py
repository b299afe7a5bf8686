"""Which types a clause leads through, by chains and reverse chains (https://hl7.org/fhir/R4/search.html#chaining)."""

from __future__ import annotations

from fhir_server.search.query import CanonicalChain, CanonicalHas, Chain, Clause, Has, iterate_children


def list_linked_types(clause: Clause) -> list[tuple[str, ...]]:
    """The types of each chain, whose reference may lead to one of several, and of each reverse chain."""
    if not iterate_children(clause):
        return []
    chains: dict[str, list[str]] = {}
    reverse: list[tuple[str, ...]] = []
    inner: list[tuple[str, ...]] = []

    def visit(each: Clause) -> None:
        match each:
            case Chain(parameter, type) | CanonicalChain(parameter, type):
                chains.setdefault(parameter, []).append(type)
            case Has(type) | CanonicalHas(type):
                reverse.append((type,))
        for child in iterate_children(each):
            if isinstance(each, Chain | Has | CanonicalChain | CanonicalHas):
                inner.extend(list_linked_types(child))
            else:
                visit(child)

    visit(clause)
    return [*map(tuple, chains.values()), *reverse, *inner]
