"""Clauses of the search tree as MQL filters, after what needs aggregations of its own was followed (https://hl7.org/fhir/R4/search.html).

All tests of one interval stand in one `$elemMatch`, so that one entry passes them and the index is entered by all its
keys. Texts are compared by code point; patterns are anchored at the parameter, which bounds the index scan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fhir_server.search.entries import SEPARATOR, compute_successor
from fhir_server.search.query import (
    And,
    Bound,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    Ids,
    LastUpdated,
    Not,
    NumberRange,
    Or,
    Present,
    StartsWith,
    TermRange,
    Words,
)
from fhir_server.search.trigrams import LENGTH
from fhir_server.store.mongo import trigrams

Filter = dict[str, Any]

NOTHING: Filter = {"_id": {"$in": []}}
LIVE: Filter = {"live": True}

_OPERATORS = {"lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
_LOWER = frozenset({"$gt", "$gte"})

# `$` would also match before a line's end at the end of the text.
_END = r"(?![\s\S])"
_TEXT = f"[^{SEPARATOR}]*"


def filter_of(clause: Clause) -> Filter:
    """The current documents that match; `clause` holds no Chain, Has, Lineage or Near (see `follow.py`)."""
    return _COMPILED[clause.__class__](clause)


def every(filters: Iterable[Filter]) -> Filter:
    """All of the filters."""
    parts = [part for part in filters if part]
    return {"$and": parts} if len(parts) > 1 else parts[0] if parts else {}


def some(filters: Iterable[Filter]) -> Filter:
    """One of the filters."""
    parts = list(filters)
    if any(not part for part in parts):
        return {}
    return {"$or": parts} if len(parts) > 1 else parts[0] if parts else NOTHING


def starting(prefix: str) -> Filter:
    """The condition on a text that it starts with a prefix, as a range."""
    end = compute_successor(prefix)
    return {"$gte": prefix} if end is None else {"$gte": prefix, "$lt": end}


def _escaped(text: str) -> str:
    """Text as a regular expression; a pattern in BSON cannot hold NUL."""
    return re.escape(text).replace("\\\x00", r"\x00").replace("\x00", r"\x00")


def _equals(clause: Equals) -> Filter:
    return one_of("terms", [f"{clause.parameter}={term}" for term in clause.terms])


def one_of(field: str, values: Sequence[str]) -> Filter:
    """The field is one of the values."""
    return {field: values[0]} if len(values) == 1 else {field: {"$in": list(values)}}


def _starts_with(clause: StartsWith) -> Filter:
    return {"terms": {"$elemMatch": starting(f"{clause.parameter}={clause.prefix}")}}


def _contains(clause: Contains) -> Filter:
    """By its trigrams, then by the text; one trigram is the text."""
    if SEPARATOR in clause.text:
        return NOTHING
    asked = trigrams.asked(clause)
    if len(clause.text) == LENGTH and asked:
        return {"terms": asked[0]}
    pattern: Filter = {"terms": {"$regex": f"^{_escaped(clause.parameter)}={_TEXT}{_escaped(clause.text)}"}}
    return every(({"terms": {"$all": list(asked)}}, pattern)) if asked else pattern


def _ends_with(clause: EndsWith) -> Filter:
    """With `normalised` the text before the separator, which a suffix with one in it cannot end."""
    parameter, suffix = _escaped(clause.parameter), _escaped(clause.suffix)
    if not clause.normalised:
        return {"terms": {"$regex": rf"^{parameter}=[\s\S]*{suffix}{_END}"}}
    if SEPARATOR in clause.suffix:
        return NOTHING
    return {"terms": {"$regex": f"^{parameter}={_TEXT}{suffix}(?:{SEPARATOR}|{_END})"}}


def _term_range(clause: TermRange) -> Filter:
    every_term = starting(f"{clause.parameter}=")
    bounds = {"$gte": clause.low, "$lt": clause.high}
    named = {operator: f"{clause.parameter}={end}" for operator, end in bounds.items() if end is not None}
    return {"terms": {"$elemMatch": every_term | named}}


def _words(clause: Words) -> Filter:
    """Each word by the index; a phrase is then looked for in the words in their order."""
    whole = clause.words[:-1] if clause.prefix else clause.words
    terms: list[Filter] = [{"terms": f"{clause.parameter}={word}"} for word in dict.fromkeys(whole)]
    if clause.prefix:
        terms.append({"terms": {"$elemMatch": starting(f"{clause.parameter}={clause.words[-1]}")}})
    if len(clause.words) > 1:
        phrase = " ".join(clause.words)
        terms.append({f"texts.{clause.parameter}": {"$regex": f"(?:^| ){phrase}{'' if clause.prefix else '(?: |$)'}"}})
    return every(terms)


def _date_range(clause: DateRange) -> Filter:
    return {"dates": {"$elemMatch": {"p": clause.parameter, **bounds(clause.bounds)}}}


def _number_range(clause: NumberRange) -> Filter:
    inside: Filter = {"p": clause.parameter, "k": clause.key, **bounds(clause.bounds)}
    if clause.unit is not None:
        inside["u"] = _unit(*clause.unit)
    return {"numbers": {"$elemMatch": inside}}


def bounds(tests: Sequence[Bound]) -> Filter:
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


def _unit(system: str | None, code: str) -> Filter:
    """The condition on `u`: system, SEPARATOR, code, SEPARATOR, unit text."""
    if system is not None:
        return starting(f"{system}{SEPARATOR}{code}{SEPARATOR}")
    part = f"[^{SEPARATOR}]*{SEPARATOR}"
    return {"$regex": f"^{part}(?:{_escaped(code)}{SEPARATOR}|{part}{_escaped(code)}{_END})"}


def _present(clause: Present) -> Filter:
    text = {"terms": {"$elemMatch": starting(f"{clause.parameter}=")}}
    return {"$or": [text, {"dates.p": clause.parameter}, {"numbers.p": clause.parameter}]}


def _ids(clause: Ids) -> Filter:
    return one_of("_id", clause.ids)


def _updated(clause: LastUpdated) -> Filter:
    conditions: dict[str, Any] = {}
    for test in clause.bounds:
        _tighten(conditions, _OPERATORS[test.comparison], test.value)
    return {"updated": conditions} if conditions else {}


_COMPILED: dict[type, Callable[[Any], Filter]] = {
    Equals: _equals,
    StartsWith: _starts_with,
    Contains: _contains,
    EndsWith: _ends_with,
    TermRange: _term_range,
    Words: _words,
    DateRange: _date_range,
    NumberRange: _number_range,
    Present: _present,
    Ids: _ids,
    LastUpdated: _updated,
    And: lambda clause: every(map(filter_of, clause.clauses)),
    Or: lambda clause: some(map(filter_of, clause.clauses)),
    Not: lambda clause: {"$nor": [filter_of(clause.clause)]},
}
