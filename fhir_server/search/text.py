"""`_text` and `_content` as clauses: words, phrases and their combinations (https://hl7.org/fhir/R4/search.html#content).

R4 leaves the language to the server and gives `_text=(bone OR liver) and metastases` as its example. Here it is

value        = alternatives
alternatives = any ("," any)*
any          = all ("OR" all)*
all          = one (["AND"] one)*
one          = "NOT" one | "(" any ")" | '"' phrase '"' ["*"] | word ["*"]

Operators are written in capitals or in small letters. A word with other signs than letters and digits in it, such as
`x-ray`, is a phrase. `*` stands for any end of a word.
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
from fhir_server.search.scanner import Scanner
from fhir_server.search.words import split_words

MAX_WORDS = 50
MAX_DEPTH = 30

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


class _Reader(Scanner):
    """Reads the language by recursive descent, one method for each of its rules."""

    def __init__(self, parameter: TextParameter, text: str) -> None:
        super().__init__(parameter, text)
        self._parameter = parameter
        self._words = 0

    def read_clause(self) -> Clause:
        alternatives = [self._read_any(0)]
        while self.accept(","):
            alternatives.append(self._read_any(0))
        if self.position < len(self.text):
            raise self.make_error("`AND`, `OR`, `,` or the end")
        return make_or(alternatives)

    def _read_any(self, depth: int) -> Clause:
        if depth > MAX_DEPTH:
            raise TooCostly(f"`{self.name}` is nested more than {MAX_DEPTH} deep; search in several steps.")
        parts = [self._read_all(depth)]
        while self._accept_operator("or"):
            parts.append(self._read_all(depth))
        return make_or(parts)

    def _read_all(self, depth: int) -> Clause:
        parts = [self._read_one(depth)]
        while self._accept_operator("and") or not self._is_complete():
            parts.append(self._read_one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _is_complete(self) -> bool:
        """Whether nothing that could be one more word follows."""
        return self.text[self.position : self.position + 1] in ("", ",", ")") or self._peek_operator() == "or"

    def _read_one(self, depth: int) -> Clause:
        negations = 0
        while self._accept_operator("not"):
            negations += 1
        if self.accept("("):
            clause = self._read_any(depth + 1)
            self.expect(")")
        else:
            clause = self._read_words()
        return Not(clause) if negations % 2 else clause

    def _read_words(self) -> Words:
        start, quoted = self.position, self.starts_with('"')
        match = (_PHRASE if quoted else _BARE).match(self.text, start)
        if match is None or self._peek_operator() in ("and", "or"):
            raise self.make_error('a closing `"`' if quoted else _FIRST)
        text, star = match.groups()
        words = tuple(split_words(text if quoted else unescape(text)))
        if not words:
            raise Invalid(f"`{self.name}` has no letter or digit in `{match.group()}` at position {start + 1}.")
        self._words += len(words)
        if self._words > MAX_WORDS:
            raise TooCostly(f"`{self.name}` has more than {MAX_WORDS} words; search in several steps.")
        self.position = match.end()
        if star and self.text[self.position : self.position + 1].strip(" \t\r\n(),"):
            raise self.make_error("a space after `*`, which stands at the end of a word")
        self.skip(0)
        return Words(self._parameter, words, bool(star))

    def _accept_operator(self, name: str) -> bool:
        """Moves past the operator if it comes next; False where it does not."""
        if accepted := self._peek_operator() == name:
            self.skip(len(name))
        return accepted

    def _peek_operator(self) -> str:
        """The operator that comes next, in small letters; "" when a word or sign does."""
        word = self.peek(_BARE)
        return word.lower() if word in ("AND", "OR", "NOT", "and", "or", "not") else ""
