"""`_text` and `_content` as clauses: words, phrases and their combinations (https://hl7.org/fhir/R4/search.html#content).

R4 leaves the language to the server and gives `_text=(bone OR liver) and metastases` as its example. Here it is

value        = alternatives
alternatives = any ("," any)*
any          = all ("OR" all)*
all          = one (["AND"] one)*
one          = "NOT" one | "(" any ")" | '"' phrase '"' ["*"] | word ["*"]

The operators are read in capitals and in small letters. A word with other signs than letters and digits in it, such as
`x-ray`, is a phrase. `*` asks for words that begin so.
"""

from __future__ import annotations

import re

from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.search.entries import TextParameter
from fhir_server.search.escapes import unescape
from fhir_server.search.parameter_clause import NO_FULL_TEXT, UnsupportedParameter, check_indexed
from fhir_server.search.parameters import Criteria
from fhir_server.search.parameters.criteria import make_or
from fhir_server.search.query import And, Clause, Not, Words
from fhir_server.search.words import split_words

MAX_WORDS = 50
MAX_DEPTH = 30

_SPACE = re.compile(r"\s*")
_PHRASE = re.compile(r'"([^"]*)"(\*?)')
_BARE = re.compile(r'((?:\\.|[^\s()",\\*]|\\$)+)(\*?)', re.DOTALL)
_FIRST = 'a word, `"`, `(` or `NOT`'


def parse_text_clause(type: str, parameter: TextParameter, text: str, criteria: Criteria) -> Clause:
    """What `_text` or `_content` asks of a resource of `type`.

    Raises UnsupportedParameter where there is no full-text index, or not of all resources yet, Invalid with the
    position of what cannot be read, and TooCostly for too many words.
    """
    if not criteria.full_text:
        raise UnsupportedParameter(NO_FULL_TEXT.format(parameter))
    check_indexed(filter(None, [criteria.registry.parameters(type).get(parameter)]))
    return _Reader(parameter, text).read_clause()


class _Reader:
    """Recursive descent over the text; `_at` is the index of the next character that is no white space."""

    def __init__(self, parameter: TextParameter, text: str) -> None:
        self._parameter = parameter
        self._text = text
        self._words = 0
        self._at = 0
        self._take(_SPACE)

    def read_clause(self) -> Clause:
        alternatives = [self._read_alternatives(0)]
        while self._accept_sign(","):
            alternatives.append(self._read_alternatives(0))
        if self._at < len(self._text):
            raise self._make_error("`AND`, `OR`, `,` or the end")
        return make_or(alternatives)

    def _read_alternatives(self, depth: int) -> Clause:
        if depth > MAX_DEPTH:
            raise TooCostly(f"`{self._parameter}` is nested more than {MAX_DEPTH} deep; search in several steps.")
        parts = [self._read_conjunction(depth)]
        while self._accept_operator("or"):
            parts.append(self._read_conjunction(depth))
        return make_or(parts)

    def _read_conjunction(self, depth: int) -> Clause:
        parts = [self._read_operand(depth)]
        while self._accept_operator("and") or not self._is_complete():
            parts.append(self._read_operand(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _is_complete(self) -> bool:
        """Whether nothing that could be one more word follows."""
        return self._text[self._at : self._at + 1] in ("", ",", ")") or self._peek_operator() == "or"

    def _read_operand(self, depth: int) -> Clause:
        negations = 0
        while self._accept_operator("not"):
            negations += 1
        found = self._read_group(depth) if self._accept_sign("(") else self._read_words()
        return Not(found) if negations % 2 else found

    def _read_group(self, depth: int) -> Clause:
        found = self._read_alternatives(depth + 1)
        if not self._accept_sign(")"):
            raise self._make_error("`)`")
        return found

    def _read_words(self) -> Words:
        at = self._at
        quoted = self._text[at : at + 1] == '"'
        found = (_PHRASE if quoted else _BARE).match(self._text, at)
        if found is None or self._peek_operator() in ("and", "or"):
            raise self._make_error('a closing `"`' if quoted else _FIRST)
        text, star = found.groups()
        words = tuple(split_words(text if quoted else unescape(text)))
        if not words:
            raise Invalid(f"`{self._parameter}` has no letter or digit in `{found.group()}` at position {at + 1}.")
        self._words += len(words)
        if self._words > MAX_WORDS:
            raise TooCostly(f"`{self._parameter}` has more than {MAX_WORDS} words; search in several steps.")
        self._at = found.end()
        if star and self._text[self._at : self._at + 1].strip(" \t\r\n(),"):
            raise self._make_error("a space after `*`, which stands at the end of a word")
        self._take(_SPACE)
        return Words(self._parameter, words, bool(star))

    def _accept_operator(self, name: str) -> bool:
        """Takes the operator and the white space after it."""
        if self._peek_operator() != name:
            return False
        self._at += len(name)
        self._take(_SPACE)
        return True

    def _peek_operator(self) -> str:
        """The operator that comes next, in small letters; "" when a word or sign does."""
        found = _BARE.match(self._text, self._at)
        word = found.group() if found else ""
        return word.lower() if word in ("AND", "OR", "NOT", "and", "or", "not") else ""

    def _accept_sign(self, sign: str) -> bool:
        """Takes the sign and the white space after it."""
        if self._text[self._at : self._at + 1] != sign:
            return False
        self._at += 1
        self._take(_SPACE)
        return True

    def _take(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _make_error(self, expected: str) -> Invalid:
        rest = self._text[self._at : self._at + 20]
        found = f"`{rest}`" if rest else "its end"
        where = f"`{self._parameter}` cannot be read at position {self._at + 1}"
        return Invalid(f"{where}: expected {expected}, found {found}.")
