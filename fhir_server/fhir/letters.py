"""Text taken apart into letters and marks (https://www.unicode.org/reports/tr15/#Compatibility_Equivalent_Figure)."""

from __future__ import annotations

import unicodedata

_AT_ONCE = 64
"""Characters that are taken apart at once: the marks on one letter are sorted by insertion, which is square."""


def list_letters(text: str) -> str:
    """The characters of the text, composed ones taken apart and marks such as accents left out."""
    if len(text) <= _AT_ONCE:
        return _take_apart(text)
    return "".join([_take_apart(text[at : at + _AT_ONCE]) for at in range(0, len(text), _AT_ONCE)])


def _take_apart(text: str) -> str:
    return "".join([sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)])
