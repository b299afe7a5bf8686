"""What `:contains` is looked up by: the trigrams of strings, as terms `parameter~abc` (https://hl7.org/fhir/R4/search.html#string).

No parameter's code holds `~`, so they are no values of any. Texts of fewer characters have none: they are looked for in
all terms of their parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.search.query import And, Clause, Contains, EndsWith, Or, StartsWith
from fhir_server.search.trigrams import list_trigrams

MOST_ASKED = 4
"""Trigrams of one text that are looked up: each is a plan that the database tries, and one of a few is rare enough."""


def terms_of(entries: Entries) -> list[str]:
    """The terms of all trigrams in the normalised texts of the string parameters, each once."""
    found = []
    for parameter, terms in entries.terms.items():
        if parameter in entries.strings:
            grams = {gram for term in terms for gram in list_trigrams(term.partition(SEPARATOR)[0])}
            found += [f"{parameter}~{gram}" for gram in sorted(grams)]
    return found


def asked(clause: Contains) -> Sequence[str]:
    """Terms that every match has; none where the trigrams are not kept or the text is too short."""
    if not clause.strings:
        return ()
    grams = list_trigrams(clause.text)
    step = -(-len(grams) // MOST_ASKED) or 1
    return [f"{clause.parameter}~{gram}" for gram in grams[::step]]


def widened(clause: Clause) -> Clause:
    """The clause with every term of the parameter wherever all of them are looked at; the same one if nowhere.

    A negation is tested on what the other criteria find.
    """
    match clause:
        case EndsWith(parameter):
            return StartsWith(parameter, "")
        case Contains(parameter) if not asked(clause):
            return StartsWith(parameter, "")
        case And(clauses):
            return And(tuple(map(widened, clauses)))
        case Or(clauses):
            return Or(tuple(map(widened, clauses)))
    return clause
