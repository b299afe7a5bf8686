"""What the compiler and the planner ask of a clause (the search tree: `search/query.py`, https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.search.query import (
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    Has,
    Ids,
    LastUpdated,
    Lineage,
    Near,
    Not,
    NumberRange,
    Or,
    Present,
    StartsWith,
    TermRange,
    Within,
    Words,
)


def conjunction(clause: Clause) -> tuple[Clause, ...]:
    """The clauses that must all hold, nested Ands opened."""
    if isinstance(clause, And):
        return tuple(part for inner in clause.clauses for part in conjunction(inner))
    return (clause,)


def inner_clauses(clause: Clause) -> Sequence[Clause]:
    """The clauses that a clause is made of."""
    match clause:
        case And(clauses) | Or(clauses):
            return clauses
        case Not(inner) | Chain(where=inner) | Has(where=inner) | CanonicalChain(where=inner):
            return (inner,)
        case CanonicalHas(where=inner) | Within(where=inner):
            return (inner,)
        case _:
            return ()


def needs_row(clause: Clause) -> bool:
    """Whether a probe looks at more of the resource's row than its `rid`."""
    match clause:
        case And(clauses) | Or(clauses):
            return any(map(needs_row, clauses))
        case Not(inner):
            return needs_row(inner)
        case _:
            return isinstance(clause, Ids | LastUpdated)


def found_alive(clause: Clause) -> bool:
    """Whether only current resources can match: those alone have index rows."""
    match clause:
        case And(clauses):
            return any(map(found_alive, clauses))
        case Or(clauses):
            return all(map(found_alive, clauses))
        case Not() | Ids() | LastUpdated() | Has() | Lineage():
            return False
        case _:
            return True


def drivable(clause: Clause) -> bool:
    """Whether a search can enter by the index entries of this clause."""
    if isinstance(clause, Or):
        return bool(clause.clauses) and all(drivable(part) for part in clause.clauses)
    if isinstance(clause, And):
        return any(drivable(part) for part in clause.clauses)
    return not isinstance(clause, Not)


# Which clause enters a nested search when nobody has counted: the rarer kind of match first.
_RANKS: tuple[type, ...] = (
    Ids, Lineage, Equals, Words, NumberRange, StartsWith, Has, Chain, CanonicalHas, CanonicalChain, DateRange,
    Near, TermRange, Contains, EndsWith, And, Or, LastUpdated, Present,
)  # fmt: skip


def rank(clause: Clause) -> int:
    """The lower, the rarer its matches are likely to be."""
    return _RANKS.index(clause.__class__)
