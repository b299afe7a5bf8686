"""Chains into contained resources: R4 evaluates a chained condition there too (https://hl7.org/fhir/R4/search.html#contained).

What a reference parameter points to inside its resource is indexed with the container, under names of its own:
`medication:Medication#0` has the id of the first contained Medication that `medication` refers to, and
`medication:Medication#0.code` what is found by its code. So a chain is asked once more for each place, and all its
criteria hold for one contained resource.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import Entries

PLACES = 64
"""Contained resources of one type that one parameter of a resource is followed to."""

DEPTH = 3
"""How many references inside a resource are followed in a row; what is contained may refer to itself in circles."""

MOST = 256
"""Places in one resource."""


def place(parameter: str, type: str, number: int) -> str:
    """The name under which the contained resource at a place is indexed; its own parameters follow after a dot."""
    return f"{places(parameter, type)}{number}"


def places(parameter: str, type: str) -> str:
    """What the names of all places begin with to which a parameter refers, and `more` of it."""
    return f"{parameter}:{type}#"


def more(parameter: str, type: str) -> str:
    """The name under which a resource has a term when it refers to more contained ones than are indexed."""
    return f"{places(parameter, type)}more"


def too_many(chain: q.Chain | q.Within) -> str:
    """Why a chain or a composite is not answered: a sentence."""
    if not chain.type:
        return f"A resource has more than the {PLACES} elements that the composite `{chain.parameter}` can look at."
    return (
        f"The chain through `{chain.parameter.rpartition('.')[2]}` to `{chain.type}` meets a resource that contains "
        f"more of them than can be searched: {PLACES} a parameter, {MOST} in all, {DEPTH} references in a row."
    )


def inside(chain: q.Chain | q.Within, number: int) -> q.Clause:
    """The criteria on the contained resource, or the element, at a place as criteria on its container."""
    name = place(chain.parameter, chain.type, number)
    where = _on(chain.where, name)
    return where if _implies_any(where) else q.And((q.Present(name), where))


def _on(clause: q.Clause, name: str) -> q.Clause:
    match clause:
        case q.And() | q.Or() | q.Not():
            return q.rewrite_clause(clause, lambda part: _on(part, name))
        case q.Ids(ids):
            return q.Equals(name, ids)
        case q.LastUpdated():
            return clause
        case q.Has() | q.CanonicalHas() | q.Lineage() | q.Words():
            return q.NOTHING
        case _:
            return replace(clause, parameter=f"{name}.{clause.parameter}")


def _implies_any(clause: q.Clause) -> bool:
    """Whether only a resource with some entry of the clause's parameters can match it."""
    match clause:
        case q.And(clauses):
            return any(map(_implies_any, clauses))
        case q.Or(clauses):
            return all(map(_implies_any, clauses))
        case q.Not() | q.LastUpdated():
            return False
    return True


@dataclass(frozen=True, slots=True)
class Reader:
    """`index`: (type, resource) → the entries of a resource of a served type, what it contains left out.

    `references`: by served type, the codes of its reference parameters, sorted.
    """

    index: Callable[[str, dict[str, Any]], Entries]
    references: Mapping[str, Sequence[str]]


def with_contents(type: str, entries: Entries, by_reference: Mapping[str, dict[str, Any]], reader: Reader) -> Entries:
    """The entries of a resource of a type, with those of the resources in it that its parameters refer to.

    `by_reference`: these, by the terms of references to them.
    """
    terms, dates, numbers = dict(entries.terms), dict(entries.dates), dict(entries.numbers)
    strings = set(entries.strings)
    waiting = deque([(type, entries, "", 1)])
    indexed = 0
    while waiting:
        type, own, prefix, depth = waiting.popleft()
        for code, its_type, number, target in _referred(own, reader.references[type], by_reference):
            if its_type not in reader.references:
                continue
            if number == PLACES or indexed == MOST or depth > DEPTH:
                terms[more(prefix + code, its_type)] = ("#",)
                continue
            indexed += 1
            name = place(prefix + code, its_type, number)
            found = reader.index(its_type, target)
            terms[name] = (target.get("id", ""),)
            terms.update({f"{name}.{each}": values for each, values in found.terms.items()})
            dates.update({f"{name}.{each}": values for each, values in found.dates.items()})
            numbers.update({f"{name}.{each}": values for each, values in found.numbers.items()})
            strings.update([f"{name}.{each}" for each in found.strings if each in found.terms])
            waiting.append((its_type, found, f"{name}.", depth + 1))
    return replace(entries, terms=terms, dates=dates, numbers=numbers, strings=frozenset(strings))


def _referred(
    own: Entries, codes: Iterable[str], by_reference: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """(parameter, type, which of that type, target) of each reference to what is contained; PLACES for those beyond."""
    for code in codes:
        counts: dict[str, int] = {}
        for term in own.terms.get(code, ()):
            target = by_reference.get(term)
            if target is not None:
                type = target["resourceType"]
                number = counts.get(type, 0)
                counts[type] = min(number + 1, PLACES)
                yield code, type, number, target
