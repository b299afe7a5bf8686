"""Trigrams of strings as terms `parameter~abc`, by which `:contains` looks texts up (https://hl7.org/fhir/R4/search.html#string).

No code of a parameter holds `~`, so that no value is taken for a trigram. A text of fewer characters has none and is
looked for in all terms of its parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.search.trigrams import list_trigrams

MOST_ASKED = 4
"""Trigrams of one text that are looked up: each is a plan that the database tries, and one of a few is rare enough."""


def build_terms(entries: Entries) -> list[str]:
    """The terms of all trigrams in the normalised texts of the string parameters, each once."""
    found = []
    for parameter, terms in entries.terms.items():
        if parameter in entries.strings:
            grams = {gram for term in terms for gram in list_trigrams(term.partition(SEPARATOR)[0])}
            found += [f"{parameter}~{gram}" for gram in sorted(grams)]
    return found


def select_terms(clause: q.Contains) -> Sequence[str]:
    """Terms that every match has; none where the trigrams are not kept or the text is too short."""
    if not clause.strings:
        return ()
    grams = list_trigrams(clause.text)
    step = -(-len(grams) // MOST_ASKED) or 1
    return [f"{clause.parameter}~{gram}" for gram in grams[::step]]


def widen_clause(clause: q.Clause) -> q.Clause:
    """The clause with `StartsWith(parameter, "")` for every part that has to look at all terms of its parameter.

    The same clause when there is none. What is negated is not counted: it is tested on what the other criteria find.
    """
    match clause:
        case q.EndsWith(parameter):
            return q.StartsWith(parameter, "")
        case q.Contains(parameter) if not select_terms(clause):
            return q.StartsWith(parameter, "")
        case q.And() | q.Or():
            return q.rewrite_clause(clause, widen_clause)
    return clause
