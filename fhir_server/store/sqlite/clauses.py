"""What the compiler and the planner ask of a clause (the search tree: `search/query.py`, https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from fhir_server.search import query as q


def split_conjunction(clause: q.Clause) -> tuple[q.Clause, ...]:
    """The clauses that must all hold, those of nested Ands included."""
    if isinstance(clause, q.And):
        return tuple(part for child in clause.clauses for part in split_conjunction(child))
    return (clause,)


def needs_row(clause: q.Clause) -> bool:
    """Whether a probe looks at more of the resource's row than its `rid`."""
    if isinstance(clause, q.Not):
        return needs_row(clause.clause)
    if isinstance(clause, q.And | q.Or):
        return any(map(needs_row, clause.clauses))
    return isinstance(clause, q.Ids | q.LastUpdated)


def implies_current(clause: q.Clause) -> bool:
    """Whether only current resources can match: those alone have index rows."""
    match clause:
        case q.And(clauses):
            return any(map(implies_current, clauses))
        case q.Or(clauses):
            return all(map(implies_current, clauses))
        case q.Not() | q.Ids() | q.LastUpdated() | q.Has() | q.Every() | q.Lineage():
            return False
        case _:
            return True


def has_index(clause: q.Clause) -> bool:
    """Whether the matches of this clause can be read from an index, so that a search can enter by it."""
    if isinstance(clause, q.Or):
        return bool(clause.clauses) and all(map(has_index, clause.clauses))
    if isinstance(clause, q.And):
        return any(map(has_index, clause.clauses))
    return not isinstance(clause, q.Not | q.Every)


# By which clause a nested search enters, where nothing is counted: the rarer kind of match first.
_RANKS: tuple[type, ...] = (
    q.Ids, q.Lineage, q.Equals, q.Words, q.NumberRange, q.StartsWith, q.Has, q.Chain, q.CanonicalHas, q.CanonicalChain,
    q.DateRange, q.Near, q.TermRange, q.Contains, q.EndsWith, q.And, q.Or, q.LastUpdated, q.Present,
)  # fmt: skip


def rank_clause(clause: q.Clause) -> int:
    """The lower, the rarer its matches are likely to be."""
    return _RANKS.index(clause.__class__)
