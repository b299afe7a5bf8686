"""What the clause of a policy asks of the text of one resource, compiled once for a grant and a type.

Only the search parameters that the clause names are indexed, so that a read costs little more with a token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.search.entries import Entries
from fhir_server.search.match import NO_OTHERS, Candidate, Predicate, compile_predicate
from fhir_server.search.query import (
    EVERYTHING,
    NOTHING,
    And,
    Clause,
    Equals,
    Every,
    Ids,
    Link,
    Not,
    Or,
    iterate_children,
    rewrite_clause,
)
from fhir_server.store.protocol import Stored

IndexEntries = Callable[[str, dict[str, Any], Collection[str] | None], Entries]
"""(type, resource, codes) → its index entries; with codes, at least those of these search parameters."""


@dataclass(frozen=True, slots=True)
class Check:
    """A clause about one resource. `codes`: the search parameters that it names, None where others count as well.

    `labels_alone`: all that it says is that the resource has none of some security labels.
    """

    clause: Clause
    holds: Predicate
    codes: frozenset[str] | None
    labels_alone: bool

    def allows(self, stored: Stored, index: IndexEntries) -> bool:
        """Whether the content of a version matches."""
        if self.clause in (EVERYTHING, NOTHING):
            return self.clause == EVERYTHING
        raw = stored.raw or b"{}"
        if self.labels_alone and not may_be_labelled(raw):
            return True
        entries = index(stored.type, orjson.loads(raw), self.codes)
        return self.holds(Candidate(stored.type, stored.id, 0, entries))


def compile_check(clause: Clause) -> Check:
    """The check of a clause; references to and from the resource lead nowhere."""
    return Check(clause, compile_predicate(clause, NO_OTHERS), list_codes(clause), asks_for_no_label(clause))


@dataclass(frozen=True, slots=True)
class LinkedCheck:
    """A policy's clause on one type.

    `links`: what it says of resources that refer to this one, None where it says nothing of them. `every`: what it says
    of all that this one refers to, which depends on the version.
    """

    links: Clause | None
    if_linked: Check
    otherwise: Check
    every: Every | None = None


def compile_linked_check(clause: Clause) -> LinkedCheck:
    """The check of a policy's clause where its links hold, and where they do not."""
    every = find_every(clause)
    links = find_links(clause) if every is None else every
    if links is None:
        check = compile_check(clause)
        return LinkedCheck(None, check, check)
    linked, otherwise = (compile_check(settle_links(clause, links, hold)) for hold in (True, False))
    return LinkedCheck(links if every is None else None, linked, otherwise, every)


def find_every(clause: Clause) -> Every | None:
    """The part of a policy's clause that is about all that a resource refers to; there is one at most."""
    if isinstance(clause, Every):
        return clause
    children = iterate_children(clause) if isinstance(clause, And | Or | Not) else ()
    return next((found for child in children if (found := find_every(child)) is not None), None)


def find_links(clause: Clause) -> Clause | None:
    """The part of a policy's clause that is about other resources; None without one, and there is one at most."""
    if isinstance(clause, Link) or (isinstance(clause, Or) and all(isinstance(each, Link) for each in clause.clauses)):
        return clause if clause != NOTHING else None
    for child in iterate_children(clause):
        links = find_links(child)
        if links is not None:
            return links
    return None


def settle_links(clause: Clause, links: Clause, hold: bool) -> Clause:
    """The clause where the part `links` holds, or does not."""
    if clause == links:
        return EVERYTHING if hold else NOTHING
    return clause if isinstance(clause, Link) else rewrite_clause(clause, lambda each: settle_links(each, links, hold))


def list_codes(clause: Clause) -> frozenset[str] | None:
    """The search parameters that a clause asks for a term of; None where it asks for anything else."""
    if isinstance(clause, Equals):
        return frozenset({clause.parameter})
    if isinstance(clause, Ids):
        return frozenset()
    if not isinstance(clause, And | Or | Not):
        return None
    codes: set[str] = set()
    for child in iterate_children(clause):
        below = list_codes(child)
        if below is None:
            return None
        codes |= below
    return frozenset(codes)


def may_be_labelled(raw: bytes) -> bool:
    """Whether a resource's text may hold `security`; names may be written with escapes as well."""
    return b'"security"' in raw or b"\\u" in raw


def asks_for_no_label(clause: Clause) -> bool:
    """Whether all that a clause says is that the resource has none of some security labels."""
    if isinstance(clause, And):
        return all(map(asks_for_no_label, clause.clauses))
    return isinstance(clause, Not) and isinstance(clause.clause, Equals) and clause.clause.parameter == "_security"


def allows_entries(clause: Clause, type: str, id: str, entries: Entries) -> bool:
    """Whether a resource with these index entries matches a clause of a policy."""
    return compile_predicate(clause, NO_OTHERS)(Candidate(type, id, 0, entries))


def weigh_clause(clause: Clause, enough: int) -> int:
    """How many clauses and terms a clause consists of; beyond `enough` it is not counted to the end."""
    weight, left = 0, [clause]
    while left and weight <= enough:
        each = left.pop()
        weight += 1
        if isinstance(each, Equals):
            weight += len(each.terms)
        else:
            left += iterate_children(each)
    return weight


def weigh_check(check: LinkedCheck, enough: int) -> int:
    """As `weigh_clause`; the compiled forms take about as much again, each."""
    return 3 * sum(weigh_clause(each.clause, enough) for each in (check.if_linked, check.otherwise))
