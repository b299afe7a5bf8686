"""Texts of stored resources at a terminal."""

from __future__ import annotations

from rich.markup import escape


def make_printable(text: str) -> str:
    """A text for a terminal: nothing that would steer the terminal or be taken for markup."""
    return escape("".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text))
