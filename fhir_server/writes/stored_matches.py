"""What the criteria of one plan match in the store, asked for many criteria with one query.

Criteria of equality (`identifier=u|1`), of which a bundle may have thousands, differ in their term alone. One query
finds the resources that have any of the terms; which criteria each of them meets is told by its index entries. The
transaction asserts the answer of the query and the version of each resource, as firmly as a query for each would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.match import NO_OTHERS, Candidate, matches
from fhir_server.search.query import And, Clause, Equals, Query, Scope
from fhir_server.store.operations import Assertion, Matches, VersionIs
from fhir_server.store.protocol import Stored

AT_ONCE = 250
"""Criteria that one query asks about."""

_MOST_MATCHES = 2 * AT_ONCE

Asked = tuple[str, Clause]
"""A resource type and a clause of criteria."""


@dataclass(slots=True)
class StoredMatches:
    """The ids in the store that match, by type and clause, and the assertions that they rest on."""

    ids: dict[Asked, tuple[str, ...]] = field(default_factory=dict)
    assertions: list[Assertion] = field(default_factory=list)


async def find_stored_matches(context: Context, asked: Iterable[Asked], caller: Caller) -> StoredMatches:
    """The matches of the criteria that can be asked about together; the others are left out."""
    found = StoredMatches()
    groups: dict[tuple[str, str], dict[Clause, Equals]] = {}
    for type, where in asked:
        equality = _find_equality(where)
        if equality is not None:
            groups.setdefault((type, equality.parameter), {})[where] = equality
    for (type, parameter), equalities in groups.items():
        listed = list(equalities.items())
        for start in range(0, len(listed), AT_ONCE):
            part = listed[start : start + AT_ONCE]
            if len(part) > 1:
                await _find_together(context, found, (type, parameter), part, caller)
    return found


async def _find_together(
    context: Context,
    found: StoredMatches,
    place: tuple[str, str],
    part: Sequence[tuple[Clause, Equals]],
    caller: Caller,
) -> None:
    """Ask about some criteria; nothing is added where so much matches that each is better asked by itself."""
    type, parameter = place
    terms = tuple(dict.fromkeys(term for _, equality in part for term in equality.terms))
    query = Query((Scope(type, Equals(parameter, terms)),), count=_MOST_MATCHES)
    page = await context.unrestricted.search(query)
    if page.next is not None:
        return
    candidates: dict[str, list[Candidate]] = {}
    for stored in page.matches:
        candidate = _build_candidate(context, stored, caller)
        for term in candidate.entries.terms.get(parameter, ()):
            candidates.setdefault(term, []).append(candidate)
    found.assertions.append(Matches(query, tuple(stored.id for stored in page.matches)))
    found.assertions += [VersionIs(type, stored.id, stored.version) for stored in page.matches]
    for where, equality in part:
        among = {each.id: each for term in equality.terms for each in candidates.get(term, ())}
        found.ids[type, where] = tuple(
            sorted(id for id, candidate in among.items() if matches(where, candidate, NO_OTHERS))
        )
    await asyncio.sleep(0)


def _build_candidate(context: Context, stored: Stored, caller: Caller) -> Candidate:
    entries = context.index.make_entries(stored.type, orjson.loads(stored.raw or b"{}"), caller.base)
    return Candidate(stored.type, stored.id, stored.last_updated, entries)


def _find_equality(where: Clause) -> Equals | None:
    """The equality by which a clause can be asked about together with others; None where there is none.

    All of the clause must be equalities of tokens or strings: what a reference equals depends on the base URL by which
    the resource was indexed, which its text does not tell.
    """
    parts = where.clauses if isinstance(where, And) else (where,)
    equalities = [part for part in parts if isinstance(part, Equals)]
    if not parts or len(equalities) < len(parts):
        return None
    if not all(SEPARATOR in term for part in equalities for term in part.terms):
        return None
    return equalities[0]
