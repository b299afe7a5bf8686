"""The words of a resource, as full-text search keeps and scores them (https://hl7.org/fhir/R4/search.html#content).

A word is a run of letters and digits, without case and accents. `_text` has the words of the narrative; `_content` has
those of every string of the resource, narratives included. A score depends on nothing but the resource's own words and
the words that were searched, so that every store gives the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape, unescape
from typing import Any, Final

from fhir_server.fhir.definitions import Definitions
from fhir_server.search.entries import TextParameter
from fhir_server.search.parameters.string import fold
from fhir_server.search.query import And, Clause, Or, Words

TEXT: Final = "_text"
CONTENT: Final = "_content"

MAX_SCORED = 10_000
"""Matches of one type that can be ordered by `_score`: their words must all be read."""

# What is longer goes on as the next word: an index entry has a bounded size, and nothing is lost.
_WORD = re.compile(r"[^\W_]{1,64}")

_NON_PROSE_TYPES = frozenset({"date", "dateTime", "instant", "time", "base64Binary"}) | frozenset(
    {"uri", "url", "canonical", "oid", "uuid", "id"}
)
_PROSE_TYPES = frozenset({"string", "markdown", "code"})
_NON_PROSE_NAMES = frozenset({"data", "id", "reference", "resourceType", "system", "url"})
"""Left out although R4 gives some elements of the name a string's type, such as `ContactPoint.system`."""

# A comment, a CDATA section or a tag. `<` ends whatever is not closed, so that each character is read once or twice;
# `html.parser` needs the square of the length for such texts, and four times as long for good ones.
_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z)|<!\[CDATA\[(.*?)(?:\]\]>|\Z)|</?([A-Za-z][A-Za-z0-9]*)(?:"[^"<]*"|'[^'<]*'|[^'"<>])*>""",
    re.DOTALL,
)
_INLINE = frozenset(
    {"a", "abbr", "acronym", "b", "bdo", "big", "cite", "code", "dfn", "em", "i", "img", "kbd", "q", "samp", "small"}
    | {"span", "strong", "sub", "sup", "tt", "var"}
)


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    return _WORD.findall(fold(text))


def list_non_prose(definitions: Definitions) -> frozenset[str]:
    """The JSON members whose strings are no prose: dates, URIs, ids, references and binary content."""
    types: dict[str, set[str]] = {}
    for properties in definitions.properties.values():
        for name, each in properties.items():
            types.setdefault(name, set()).add(each.type)
    return _NON_PROSE_NAMES | {
        name for name, found in types.items() if found & _NON_PROSE_TYPES and not found & _PROSE_TYPES
    }


def extract_texts(resource: Mapping[str, Any], without: Collection[str]) -> dict[TextParameter, str]:
    """`entries.Entries.texts` of a resource; `without`: members whose strings are left out (`left_out`)."""
    others = {name: value for name, value in resource.items() if name != "text"}
    content = split_words("\n".join(_iterate_strings(others, without)))
    if "text" not in resource:
        return {CONTENT: " ".join(content)} if content else {}
    narrative = split_words(_strip_markup(resource["text"].get("div", "")))
    found: dict[TextParameter, list[str]] = {TEXT: narrative, CONTENT: narrative + content}
    return {parameter: " ".join(words) for parameter, words in found.items() if words}


def _iterate_strings(element: Mapping[str, Any], without: Collection[str]) -> Iterator[str]:
    """The strings of an element and of all below it, in their order; markup is taken off."""
    for name, value in element.items():
        if name == "meta":
            continue
        for each in value if value.__class__ is list else (value,):
            if each.__class__ is dict:
                yield from _iterate_strings(each, without)
            elif each.__class__ is str and name not in without:
                yield _strip_markup(each) if name == "div" else each


def _strip_markup(xhtml: str) -> str:
    """The text of XHTML; elements that begin a line of their own separate words."""
    return unescape(_MARKUP.sub(_replace_markup, xhtml))


def _replace_markup(markup: re.Match[str]) -> str:
    literal, tag = markup.groups()
    if tag:
        return "" if tag in _INLINE else " "
    return escape(literal) if literal else ""


def has_words(clause: Words, texts: Mapping[TextParameter, str]) -> bool:
    """Whether the resource with these texts has the clause's words in a row."""
    return f" {' '.join(clause.words)}{'' if clause.prefix else ' '}" in f" {texts.get(clause.parameter, '')} "


def iterate_scored_words(clause: Clause) -> Iterator[Words]:
    """The words that a match is scored by: all that are searched for, but none that are negated."""
    match clause:
        case Words():
            yield clause
        case And(clauses) | Or(clauses):
            for part in clauses:
                yield from iterate_scored_words(part)


def score(searched: Sequence[Words], texts: Mapping[TextParameter, str]) -> float:
    """How well the words of a resource answer what was searched, from 0 to below 1, to six decimals.

    The mean over the words and phrases searched of n / (n + 0.5 + L / 200): n is how often it occurs among the L words
    of the text that it is searched in. More occurrences, a shorter text and more of the words searched score higher.
    """
    if not searched:
        return 0.0
    return round(sum(_score_words(each, texts.get(each.parameter, "")) for each in searched) / len(searched), 6)


def describe_too_many_scored(type: str) -> str:
    """The sentence of a search by score that has more than MOST_SCORED matches of a type."""
    return f"More than {MAX_SCORED:,} resources of type `{type}` match, too many to be ordered by `_score`."


def _score_words(clause: Words, text: str) -> float:
    if not text:
        return 0.0
    # Two blanks between words, so that each has a blank of its own on both sides.
    spaced = f" {text.replace(' ', '  ')} "
    occurrences = spaced.count(f" {'  '.join(clause.words)}{'' if clause.prefix else ' '}")
    return occurrences / (occurrences + 0.5 + (text.count(" ") + 1) / 200)
