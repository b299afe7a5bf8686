"""Conditions on texts: ranges by their beginning, and texts that are too long for a pattern of the database.

MongoDB takes patterns of 16,384 bytes from 8.0 on and of 32,764 before, and cannot compile all of these
(https://www.mongodb.com/docs/manual/reference/operator/query/regex/). What is longer is compared by an expression.
"""

from __future__ import annotations

from typing import Any

from fhir_server.search.entries import SEPARATOR, compute_successor

Filter = dict[str, Any]
Expression = dict[str, Any]

LONGEST = 4_000
"""Bytes of a text that becomes a pattern, in which a byte takes up to four."""


def is_too_long(text: str) -> bool:
    """Whether a text is too long for a pattern."""
    return len(text.encode()) > LONGEST


def build_prefix_range(prefix: str) -> Filter:
    """The condition on a text that it starts with a prefix, as a range."""
    end = compute_successor(prefix)
    return {"$gte": prefix} if end is None else {"$gte": prefix, "$lt": end}


def build_condition(bounds: Filter) -> Filter:
    """A condition on a text, as an aggregation expression on `$$this`."""
    return {"$and": [{operator: ["$$this", value]} for operator, value in bounds.items()]}


def match_within(parameter: str, text: str) -> Filter:
    """Some term of the parameter has the text before its separator."""
    return _match_any_term(parameter, _is_found(_NORMALISED, text, len(f"{parameter}=".encode())))


def match_ending(parameter: str, suffix: str, normalised: bool) -> Filter:
    """Some term of the parameter, or with `normalised` what it has before its separator, ends with the suffix."""
    text = _NORMALISED if normalised else "$$this"
    last = {"$subtract": [{"$strLenBytes": text}, len(suffix.encode())]}
    return _match_any_term(parameter, _is_found(text, suffix, {"$max": [len(f"{parameter}=".encode()), last]}))


def match_phrase(parameter: str, phrase: str) -> Filter:
    """The words of a resource have the phrase, which begins with a space and may end with one."""
    words = {"$concat": [" ", f"$texts.{parameter}", " "]}
    return {"$expr": _is_found(words, phrase, 0)}


_NORMALISED: Expression = {"$arrayElemAt": [{"$split": ["$$this", SEPARATOR]}, 0]}


def _is_found(text: Any, part: str, start: Any) -> Expression:
    return {"$gte": [{"$indexOfBytes": [text, {"$literal": part}, start]}, 0]}


def _match_any_term(parameter: str, condition: Expression) -> Filter:
    """Some term of the parameter meets a condition on `$$this`; resources without the parameter are left out first."""
    every_term = build_prefix_range(f"{parameter}=")
    met = {"$and": [build_condition(every_term), condition]}
    terms = {"$map": {"input": {"$ifNull": ["$terms", []]}, "in": met}}
    return {"terms": {"$elemMatch": every_term}, "$expr": {"$anyElementTrue": [terms]}}
