"""Index entries of what a resource contains, for chains into it (https://hl7.org/fhir/R4/search.html#contained).

R4 evaluates a chained condition on contained resources too. Those that a reference parameter points to are indexed with
their container, under names of their own: `medication:Medication#0` has the id of the first contained Medication that
`medication` refers to, `medication:Medication#0.code` its codes. So a chain is also asked of each numbered resource by
itself, and all criteria of the chain hold for the same one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import Entries

MAX_NESTED = 64
"""Contained resources of one type that are indexed for one parameter of a resource."""

MAX_DEPTH = 3
"""References inside a resource that are followed in a row: contained resources may refer to each other in circles."""

MAX_NESTED_IN_ALL = 256
"""Contained resources that are indexed for all parameters of a resource."""


def name_nested(parameter: str, type: str, number: int) -> str:
    """The name of the contained resource with this number; its own parameters follow after a dot."""
    return f"{name_nested_prefix(parameter, type)}{number}"


def name_nested_prefix(parameter: str, type: str) -> str:
    """What the names of all contained resources that a parameter refers to begin with."""
    return f"{parameter}:{type}#"


def name_overflow(parameter: str, type: str) -> str:
    """The name of the term that a resource has when it refers to more contained resources than are indexed."""
    return f"{name_nested_prefix(parameter, type)}more"


def describe_overflow(chain: q.Chain | q.Within) -> str:
    """The sentence that says why a chain or a composite is not answered."""
    if not chain.type:
        return f"A resource has more than the {MAX_NESTED} elements that the composite `{chain.parameter}` can look at."
    return (
        f"The chain through `{chain.parameter.rpartition('.')[2]}` to `{chain.type}` meets a resource that contains "
        f"more of them than can be searched: {MAX_NESTED} a parameter, {MAX_NESTED_IN_ALL} in all, "
        f"{MAX_DEPTH} references in a row."
    )


def nest_clause(chain: q.Chain | q.Within, number: int) -> q.Clause:
    """The criteria on the contained resource, or the element, with this number as criteria on its container."""
    name = name_nested(chain.parameter, chain.type, number)
    where = _rename_parameters(chain.where, name)
    return where if _requires_entry(where) else q.And((q.Present(name), where))


def _rename_parameters(clause: q.Clause, name: str) -> q.Clause:
    match clause:
        case q.And() | q.Or() | q.Not():
            return q.rewrite_clause(clause, lambda part: _rename_parameters(part, name))
        case q.Ids(ids):
            return q.Equals(name, ids)
        case q.LastUpdated():
            return clause
        case q.Has() | q.CanonicalHas() | q.Every() | q.Lineage() | q.Words():
            return q.NOTHING
        case _:
            return replace(clause, parameter=f"{name}.{clause.parameter}")


def _requires_entry(clause: q.Clause) -> bool:
    """Whether only a resource with some entry of the clause's parameters can match it."""
    match clause:
        case q.And(clauses):
            return any(map(_requires_entry, clauses))
        case q.Or(clauses):
            return all(map(_requires_entry, clauses))
    return not isinstance(clause, q.Not | q.LastUpdated)


@dataclass(frozen=True, slots=True)
class NestedIndexer:
    """How contained resources are indexed.

    `index`: (served type, resource) → its entries, without those of what it contains. `references`: by served type, the
    codes of its reference parameters, sorted.
    """

    index: Callable[[str, dict[str, Any]], Entries]
    references: Mapping[str, Sequence[str]]


def add_nested_entries(
    type: str, entries: Entries, by_reference: Mapping[str, dict[str, Any]], indexer: NestedIndexer
) -> Entries:
    """The entries of a resource of a type, with those of the resources in it that its parameters refer to.

    `by_reference`: these resources, by the terms of references to them.
    """
    terms, dates, numbers = dict(entries.terms), dict(entries.dates), dict(entries.numbers)
    strings = set(entries.strings)
    waiting = deque([(type, entries, "", 1)])
    indexed = 0
    while waiting:
        type, parent, prefix, depth = waiting.popleft()
        for code, nested_type, number, resource in _iterate_targets(parent, indexer.references[type], by_reference):
            if nested_type not in indexer.references:
                continue
            if number == MAX_NESTED or indexed == MAX_NESTED_IN_ALL or depth > MAX_DEPTH:
                terms[name_overflow(prefix + code, nested_type)] = ("#",)
                continue
            indexed += 1
            name = name_nested(prefix + code, nested_type, number)
            nested = indexer.index(nested_type, resource)
            terms[name] = (resource.get("id", ""),)
            terms.update({f"{name}.{each}": values for each, values in nested.terms.items()})
            dates.update({f"{name}.{each}": values for each, values in nested.dates.items()})
            numbers.update({f"{name}.{each}": values for each, values in nested.numbers.items()})
            strings.update([f"{name}.{each}" for each in nested.strings if each in nested.terms])
            waiting.append((nested_type, nested, f"{name}.", depth + 1))
    return replace(entries, terms=terms, dates=dates, numbers=numbers, strings=frozenset(strings))


def _iterate_targets(
    entries: Entries, codes: Iterable[str], by_reference: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """(parameter, type, number, resource) of each reference to a contained resource; MAX_NESTED for those beyond it."""
    for code in codes:
        counts: dict[str, int] = {}
        for term in entries.terms.get(code, ()):
            resource = by_reference.get(term)
            if resource is not None:
                type = resource["resourceType"]
                number = counts.get(type, 0)
                counts[type] = min(number + 1, MAX_NESTED)
                yield code, type, number, resource
