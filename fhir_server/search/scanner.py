"""What the parsers of `_filter`, `_text` and `_content` have in common: reading a text by recursive descent.

The languages: https://hl7.org/fhir/R4/search_filter.html and https://hl7.org/fhir/R4/search.html#content.
"""

from __future__ import annotations

import re

from fhir_server.fhir.outcome import Invalid

_SPACE = re.compile(r"\s*")


class Scanner:
    """A text and the position in it, the index of the next character that is no white space.

    `name`: the search parameter, for error sentences.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.position = 0
        self.skip(0)

    def skip(self, length: int) -> None:
        """Moves past so many characters and the white space after them."""
        space = _SPACE.match(self.text, self.position + length)
        self.position = space.end() if space else self.position + length

    def starts_with(self, sign: str) -> bool:
        """Whether the sign comes next."""
        return self.text.startswith(sign, self.position)

    def accept(self, sign: str) -> bool:
        """Moves past the sign if it comes next; False where it does not."""
        if accepted := self.starts_with(sign):
            self.skip(len(sign))
        return accepted

    def expect(self, sign: str) -> None:
        """Moves past the sign. Raises Invalid where something else comes next."""
        if not self.accept(sign):
            raise self.make_error(f"`{sign}`")

    def peek(self, pattern: re.Pattern[str]) -> str:
        """What comes next and matches the pattern; "" when nothing does."""
        match = pattern.match(self.text, self.position)
        return match.group() if match else ""

    def read(self, pattern: re.Pattern[str]) -> str:
        """Moves past what matches the pattern and returns it; "" when nothing does."""
        matched = self.peek(pattern)
        self.skip(len(matched))
        return matched

    def make_error(self, expected: str) -> Invalid:
        """The error at this position."""
        rest = self.text[self.position : self.position + 20]
        found = f"`{rest}`" if rest else "its end"
        place = f"`{self.name}` cannot be read at position {self.position + 1}"
        return Invalid(f"{place}: expected {expected}, found {found}.")
