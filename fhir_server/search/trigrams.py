"""Trigrams: three characters that stand together in a normalised text; an index for `:contains` is made of them.

Their stores re-check what they find: a text may have every trigram of another one and still not contain it.
"""

from __future__ import annotations

LENGTH = 3
"""A shorter text has none."""


def list_trigrams(text: str) -> list[str]:
    """Each once, in the order of the text."""
    return list(dict.fromkeys([text[at : at + LENGTH] for at in range(len(text) - LENGTH + 1)]))
