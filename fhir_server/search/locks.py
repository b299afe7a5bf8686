"""Names of the locks that overlapping search criteria have in common (https://hl7.org/fhir/R4/http.html#cond-update).

Two conditional writes race when one's result could match the other's criteria. A lock on the whole criteria string
would let `identifier=1` race with `identifier=1&active=true`; a lock on each identifier makes them meet. A token is
locked by its code alone, because `identifier=1` also matches `sys|1`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Clause, Equals, Ids, Or, StartsWith


def name_locks(type: str, clause: Clause) -> tuple[str, ...]:
    """The sorted lock names of criteria for `type`: its identifiers, else its other equality terms, else the type.

    `Patient.identifier=1`, `Observation.code=1234-5`, `Patient`. Ranges, prefixes and negations name no lock.
    """
    terms = sorted(set(_iterate_terms(clause)))
    identifiers = [term for parameter, term in terms if parameter == "identifier"]
    if identifiers:
        return tuple(f"{type}.identifier={identifier}" for identifier in identifiers)
    return tuple(f"{type}.{parameter}={term}" for parameter, term in terms) or (type,)


def _iterate_terms(clause: Clause) -> Iterator[tuple[str, str]]:
    """The (parameter, term) equalities that a match may rest on; a term ends before its system, version or spelling."""
    match clause:
        case And(clauses) | Or(clauses):
            for part in clauses:
                yield from _iterate_terms(part)
        case Equals(parameter, terms):
            for term in terms:
                yield parameter, term.partition(SEPARATOR)[0]
        case StartsWith(parameter, prefix) if prefix.endswith(SEPARATOR):  # the whole code, in any system
            yield parameter, prefix.removesuffix(SEPARATOR)
        case Ids(ids):
            for id in ids:
                yield "_id", id
        case _:
            return
