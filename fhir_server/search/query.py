"""The search tree: what `parse.py` makes of a query string and what every store compiles.

A clause speaks of *index entries* (`entries.Entries`), never of FHIR paths: a store needs to know how to look up terms,
intervals and references, and nothing of FHIR. Every value is frozen and hashable.
Semantics of R4 search: https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

from fhir_server.search.entries import TextParameter

Comparison = Literal["lt", "le", "gt", "ge"]


@dataclass(frozen=True, slots=True)
class Bound:
    """One end, `low` or `high`, of a date or number entry compared with a value (µs for dates)."""

    end: Literal["low", "high"]
    comparison: Comparison
    value: int | float


@dataclass(frozen=True, slots=True)
class Equals:
    """Some term of `parameter` is one of `terms`."""

    parameter: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartsWith:
    """Some term of `parameter` starts with `prefix`.

    `few`: only few different terms are expected to, so that a store may look these up first.
    """

    parameter: str
    prefix: str
    few: bool = False


@dataclass(frozen=True, slots=True)
class Contains:
    """Some term of `parameter` contains `text` in its normalised part (before `entries.SEPARATOR`).

    `strings`: the parameter is one of `Entries.strings`, whose trigrams a store may have indexed.
    """

    parameter: str
    text: str
    strings: bool = False


@dataclass(frozen=True, slots=True)
class EndsWith:
    """Some term of `parameter` ends with `suffix`, as for the token criterion `system|`.

    With `normalised`, the part before `entries.SEPARATOR` does: the normalised text of a string.
    """

    parameter: str
    suffix: str
    normalised: bool = False


@dataclass(frozen=True, slots=True)
class TermRange:
    """Some term of `parameter` is at least `low` and below `high`, by code points; None is no bound."""

    parameter: str
    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class Words:
    """The text `parameter` (of `entries.Entries.texts`) has these words, at least one, side by side and in this order.

    With `prefix`, the last one is the beginning of a word.
    """

    parameter: TextParameter
    words: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class DateRange:
    """One date interval of `parameter` is within all bounds; intervals are closed, in µs since 1970 UTC."""

    parameter: str
    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """One number entry of `parameter` is within all bounds, has the key and fits the unit.

    `key`: "" for number and quantity parameters; for a composite the key of the element's token component
    (`entries.NumberEntry`). `unit`: None for any, else (system or None, code or unit text): with a system the entry's
    system and code are equal to them, without one the entry's code or its unit text is equal to the second.
    """

    parameter: str
    bounds: tuple[Bound, ...]
    key: str = ""
    unit: tuple[str | None, str] | None = None


@dataclass(frozen=True, slots=True)
class Near:
    """Some position of `parameter` is at most `metres` from a point, on the great circle (`geodesy.compute_distance`).

    A position is a number entry with the key "", its `low` the latitude and its `high` the longitude, in degrees.
    """

    parameter: str
    latitude: float
    longitude: float
    metres: float


@dataclass(frozen=True, slots=True)
class Present:
    """The resource has some entry of `parameter`; `:missing=true` is `Not(Present(…))`."""

    parameter: str


@dataclass(frozen=True, slots=True)
class Ids:
    """The resource's id is one of `ids`."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LastUpdated:
    """`meta.lastUpdated` (µs, a point: `low` = `high`) is within all bounds."""

    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """Some reference of `parameter` points to a current resource of `type` that matches `where`, or to a contained one.

    Contained resources are indexed with their container: see `search.nested_index`.
    """

    parameter: str
    type: str
    where: Clause


@dataclass(frozen=True, slots=True)
class Has:
    """Some current resource of `type` that matches `where` points to this resource with its `parameter`."""

    type: str
    parameter: str
    where: Clause


@dataclass(frozen=True, slots=True)
class CanonicalChain:
    """Some canonical of `parameter` names a current resource of `type` that matches `where`.

    `entries.list_canonicals` has the names of a resource.
    """

    parameter: str
    type: str
    where: Clause


@dataclass(frozen=True, slots=True)
class CanonicalHas:
    """Some current resource of `type` that matches `where` names this resource by a canonical of its `parameter`."""

    type: str
    parameter: str
    where: Clause


@dataclass(frozen=True, slots=True)
class Within:
    """A resource or element inside the resource, indexed as `search.nested_index` says, matches `where`.

    With a type, a resource of that type that stands where a reference of `parameter` would. Without one, an element of
    a composite, whose components go by the names that they have in it.
    """

    parameter: str
    where: Clause
    type: str = ""


@dataclass(frozen=True, slots=True)
class Every:
    """Every term of `parameter` refers to a current resource of one of `scopes` (distinct types); also without terms.

    What is absent, deleted or elsewhere is of no scope.
    """

    parameter: str
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The resource is one of `ids`, or below (above) one of them over any number of references of `parameter`.

    `parameter` refers to the resource above, which is of the same type; circles are followed once. Resources below one
    that is absent match, the absent one does not.
    """

    parameter: str
    ids: tuple[str, ...]
    direction: Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class And:
    """Every clause holds; an empty And holds always."""

    clauses: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Or:
    """Some clause holds; an empty Or never holds."""

    clauses: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """The clause does not hold."""

    clause: Clause


Link = Chain | Has | CanonicalChain | CanonicalHas | Within
"""The clauses whose `where` is a condition on other resources, or on something inside the resource."""

Clause = (
    Equals
    | StartsWith
    | Contains
    | EndsWith
    | TermRange
    | Words
    | DateRange
    | NumberRange
    | Near
    | Present
    | Ids
    | LastUpdated
    | Link
    | Every
    | Lineage
    | And
    | Or
    | Not
)


_CHILDREN: Mapping[type, Callable[[Any], tuple[Clause, ...]]] = {
    **dict.fromkeys((And, Or), attrgetter("clauses")),
    Not: lambda clause: (clause.clause,),
    **dict.fromkeys((Chain, Has, CanonicalChain, CanonicalHas, Within), lambda clause: (clause.where,)),
    Every: lambda clause: tuple([scope.where for scope in clause.scopes]),
}


def iterate_children(clause: Clause) -> tuple[Clause, ...]:
    """The clauses that a clause directly consists of, the `where` of a link included; () for a leaf of the tree."""
    find = _CHILDREN.get(clause.__class__)
    return find(clause) if find is not None else ()


def rewrite_clause(clause: Clause, function: Callable[[Clause], Clause]) -> Clause:
    """The clause with `function` applied to each of its children, in their order; a leaf as it is."""
    if clause.__class__ not in _CHILDREN:
        return clause
    match clause:
        case And(clauses) | Or(clauses):
            return replace(clause, clauses=tuple(map(function, clauses)))
        case Not(child):
            return Not(function(child))
        case Chain() | Has() | CanonicalChain() | CanonicalHas() | Within():
            return replace(clause, where=function(clause.where))
        case Every(scopes=scopes):
            return replace(clause, scopes=tuple(Scope(scope.type, function(scope.where)) for scope in scopes))
    return clause


EVERYTHING = And()
NOTHING = Or()


@dataclass(frozen=True, slots=True)
class Sort:
    """One `_sort` key; `kind` says where its value is: in the entries, in the id or `lastUpdated`, or in the texts.

    Ascending takes the lowest value of a resource (a date's or number's `low`), descending the highest (`high`);
    resources without a value come last in both directions. A `score` is what `words.score` gives for `words`,
    which every resource has; by it, at most `words.MAX_SCORED` matches of a type can be sorted.
    """

    parameter: str
    kind: Literal["term", "date", "number", "id", "lastUpdated", "score"]
    descending: bool = False
    words: tuple[Words, ...] = ()


SortKey = tuple[int | float | str | None, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """The resources of one type that match a clause."""

    type: str
    where: Clause = EVERYTHING


@dataclass(frozen=True, slots=True)
class Query:
    """A page of a search: the union of `scopes` (distinct types), in order.

    Order: the sort keys, then the reference text `Type/id` (ordinal), always ascending. `after` is the position of the
    last resource of the page before: one value per sort key (None: missing), then its `Type/id`.
    `count` may be 0 (no matches wanted). `most_bytes`: the page ends before the resource that would bring its texts
    beyond so many, but has one at least; None: no such end.
    Sorting over several scopes is by the same parameter names in each type. `brief`: few matches are expected and their
    page is waited for; the store may look without a change of threads, and tells `Page.seen`.
    """

    scopes: tuple[Scope, ...]
    sort: tuple[Sort, ...] = ()
    count: int = 20
    after: SortKey | None = None
    most_bytes: int | None = None
    brief: bool = False
