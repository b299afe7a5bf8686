r"""Escapes in search values: `\,` `\|` `\$` `\\` (https://hl7.org/fhir/R4/search.html#escaping)."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([,|$\\])")
_ESCAPED = re.compile(r"\\([,|$\\])")


def split(text: str, separator: str, max_splits: int = -1) -> list[str]:
    r"""The parts between unescaped separators, still escaped; at most `max_splits` splits unless it is negative.

    `split(r"a\,b,c", ",")` is `[r"a\,b", "c"]`.
    """
    if "\\" not in text:
        return text.split(separator, max_splits)
    parts: list[str] = []
    start = position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 2
        elif text[position] == separator and len(parts) != max_splits:
            parts.append(text[start:position])
            start = position = position + 1
        else:
            position += 1
    parts.append(text[start:])
    return parts


def unescape(text: str) -> str:
    """The text that was meant; a backslash before any other character stands for itself."""
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def escape(text: str) -> str:
    r"""The text as a search value that means itself: `escape("a|b")` is `a\|b`."""
    return _SPECIAL.sub(r"\\\1", text)
