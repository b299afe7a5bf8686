"""Clauses of the search tree as MQL filters, after what needs aggregations of its own was followed (https://hl7.org/fhir/R4/search.html).

All tests of one interval stand in one `$elemMatch`, so that one entry passes them and the index is entered by all its
keys. Texts are compared by code point; patterns are anchored at the parameter, which bounds the index scan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.trigrams import LENGTH
from fhir_server.store.mongo import patterns, trigrams
from fhir_server.store.mongo.patterns import build_prefix_range
from fhir_server.store.protocol import BudgetExceeded

Filter = dict[str, Any]

NOTHING: Filter = {"_id": {"$in": []}}
LIVE: Filter = {"live": True}

_OPERATORS = {"lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
_LOWER = frozenset({"$gt", "$gte"})

# `$` would also match before a line's end at the end of the text.
_END = r"(?![\s\S])"
_TEXT = f"[^{SEPARATOR}]*"
_TEXT_END = f"(?![^{SEPARATOR}])"


def compile_clause(clause: q.Clause) -> Filter:
    """The current documents that match; `clause` holds no Chain, Has, Lineage or Near (see `follow.py`)."""
    return _COMPILERS[clause.__class__](clause)


def compile_current(clause: q.Clause, among: Filter | None = None) -> Filter:
    """The current resources that match, deletions left out; `among` narrows them."""
    return match_current(clause, compile_clause(clause), among)


def match_current(clause: q.Clause, compiled: Filter, among: Filter | None = None) -> Filter:
    """The filter that a clause was compiled to, without deletions; `among` narrows it.

    A deletion has no entries: a criterion by one leaves it out already, and can then be counted from index keys alone.
    """
    return match_all((among or {}, compiled, {} if _names_an_entry(clause) else LIVE))


def _names_an_entry(clause: q.Clause) -> bool:
    """Whether every match has an index entry."""
    match clause:
        case q.And(clauses):
            return any(map(_names_an_entry, clauses))
        case q.Or(clauses):
            return all(map(_names_an_entry, clauses))
        case q.Ids() | q.LastUpdated() | q.Not():
            return False
    return True


def match_all(filters: Iterable[Filter]) -> Filter:
    """All of the filters."""
    parts = [part for part in filters if part]
    return {"$and": parts} if len(parts) > 1 else parts[0] if parts else {}


def match_any(filters: Iterable[Filter]) -> Filter:
    """One of the filters."""
    parts = list(filters)
    if any(not part for part in parts):
        return {}
    return {"$or": parts} if len(parts) > 1 else parts[0] if parts else NOTHING


def _escape(text: str) -> str:
    """Text as a regular expression, without NUL, which BSON cannot hold, and `|`, with which no index is entered."""
    return re.escape(text).replace("\\\x00", r"\x00").replace("\x00", r"\x00").replace(r"\|", r"\x7c")


def _compile_equals(clause: q.Equals) -> Filter:
    return match_one_of("terms", [f"{clause.parameter}={term}" for term in clause.terms])


def match_one_of(field: str, values: Sequence[str]) -> Filter:
    """The field is one of the values."""
    return {field: values[0]} if len(values) == 1 else {field: {"$in": list(values)}}


def _compile_starts_with(clause: q.StartsWith) -> Filter:
    return {"terms": {"$elemMatch": build_prefix_range(f"{clause.parameter}={clause.prefix}")}}


def _compile_contains(clause: q.Contains) -> Filter:
    """By its trigrams, then by the text; one trigram is the text."""
    if SEPARATOR in clause.text:
        return NOTHING
    select_terms = trigrams.select_terms(clause)
    if len(clause.text) == LENGTH and select_terms:
        return {"terms": select_terms[0]}
    pattern: Filter = {"terms": {"$regex": f"^{_escape(clause.parameter)}={_TEXT}{_escape(clause.text)}"}}
    if patterns.is_too_long(clause.text):
        pattern = patterns.match_within(clause.parameter, clause.text)
    return match_all(({"terms": {"$all": list(select_terms)}}, pattern)) if select_terms else pattern


def _compile_ends_with(clause: q.EndsWith) -> Filter:
    """With `normalised` the text before the separator, which a suffix with one in it cannot end."""
    parameter, suffix = _escape(clause.parameter), _escape(clause.suffix)
    if clause.normalised and SEPARATOR in clause.suffix:
        return NOTHING
    if patterns.is_too_long(clause.suffix):
        return patterns.match_ending(clause.parameter, clause.suffix, clause.normalised)
    if not clause.normalised:
        return {"terms": {"$regex": rf"^{parameter}=[\s\S]*{suffix}{_END}"}}
    return {"terms": {"$regex": f"^{parameter}={_TEXT}{suffix}{_TEXT_END}"}}


def _compile_term_range(clause: q.TermRange) -> Filter:
    every_term = build_prefix_range(f"{clause.parameter}=")
    build_bounds = {"$gte": clause.low, "$lt": clause.high}
    named = {operator: f"{clause.parameter}={end}" for operator, end in build_bounds.items() if end is not None}
    return {"terms": {"$elemMatch": every_term | named}}


def _compile_words(clause: q.Words) -> Filter:
    """Each word by the index; a phrase is then looked for in the words in their order."""
    whole = clause.words[:-1] if clause.prefix else clause.words
    terms: list[Filter] = [{"terms": f"{clause.parameter}={word}"} for word in dict.fromkeys(whole)]
    if clause.prefix:
        terms.append({"terms": {"$elemMatch": build_prefix_range(f"{clause.parameter}={clause.words[-1]}")}})
    if len(clause.words) > 1:
        phrase = " ".join(clause.words)
        terms.append(_match_phrase(clause.parameter, phrase, clause.prefix))
    return match_all(terms)


def _match_phrase(parameter: str, phrase: str, prefix: bool) -> Filter:
    if patterns.is_too_long(phrase):
        return patterns.match_phrase(parameter, f" {phrase}" if prefix else f" {phrase} ")
    return {f"texts.{parameter}": {"$regex": f"(?:^| ){phrase}{'' if prefix else '(?: |$)'}"}}


def _compile_date_range(clause: q.DateRange) -> Filter:
    return {"dates": {"$elemMatch": {"p": clause.parameter, **build_bounds(clause.bounds)}}}


def _compile_number_range(clause: q.NumberRange) -> Filter:
    inside: Filter = {"p": clause.parameter, "k": clause.key, **build_bounds(clause.bounds)}
    if clause.unit is not None:
        inside["u"] = _compile_unit(*clause.unit)
    return {"numbers": {"$elemMatch": inside}}


def build_bounds(tests: Sequence[q.Bound]) -> Filter:
    """Every test on the ends `l` and `h` of an interval; as low ≤ high, a test of one end also bounds the other."""
    found: dict[str, dict[str, Any]] = {}
    for test in tests:
        operator = _OPERATORS[test.comparison]
        own, other = ("l", "h") if test.end == "low" else ("h", "l")
        _tighten(found.setdefault(own, {}), operator, test.value)
        if (test.end == "low") == (operator in _LOWER):
            _tighten(found.setdefault(other, {}), operator, test.value)
    return dict(sorted(found.items(), reverse=True))


def _tighten(conditions: dict[str, Any], operator: str, value: int | float) -> None:
    earlier = conditions.get(operator, value)
    conditions[operator] = max(earlier, value) if operator in _LOWER else min(earlier, value)


def _compile_unit(system: str | None, code: str) -> Filter:
    """The condition on `u`: system, SEPARATOR, code, SEPARATOR, unit text."""
    if system is not None:
        return build_prefix_range(f"{system}{SEPARATOR}{code}{SEPARATOR}")
    if patterns.is_too_long(code):
        raise BudgetExceeded(f"The unit is longer than the {patterns.LONGEST:,} bytes that are compared.")
    part = f"[^{SEPARATOR}]*{SEPARATOR}"
    return {"$regex": f"^{part}(?:{_escape(code)}{SEPARATOR}|{part}{_escape(code)}{_END})"}


def _compile_present(clause: q.Present) -> Filter:
    text = {"terms": {"$elemMatch": build_prefix_range(f"{clause.parameter}=")}}
    return {"$or": [text, {"dates.p": clause.parameter}, {"numbers.p": clause.parameter}]}


def _compile_ids(clause: q.Ids) -> Filter:
    return match_one_of("_id", clause.ids)


def _compile_last_updated(clause: q.LastUpdated) -> Filter:
    conditions: dict[str, Any] = {}
    for test in clause.bounds:
        _tighten(conditions, _OPERATORS[test.comparison], test.value)
    return {"updated": conditions} if conditions else {}


_COMPILERS: dict[type, Callable[[Any], Filter]] = {
    q.Equals: _compile_equals,
    q.StartsWith: _compile_starts_with,
    q.Contains: _compile_contains,
    q.EndsWith: _compile_ends_with,
    q.TermRange: _compile_term_range,
    q.Words: _compile_words,
    q.DateRange: _compile_date_range,
    q.NumberRange: _compile_number_range,
    q.Present: _compile_present,
    q.Ids: _compile_ids,
    q.LastUpdated: _compile_last_updated,
    q.And: lambda clause: match_all(map(compile_clause, clause.clauses)),
    q.Or: lambda clause: match_any(map(compile_clause, clause.clauses)),
    q.Not: lambda clause: {"$nor": [compile_clause(clause.clause)]},
}
