"""Segments, their elements, components and repetitions, and the delimiters between them (X12.6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Element = str | Sequence[str]
"""An element to be written: text, or the components of a composite."""


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The four separators of an interchange; `repetition` is empty where ISA11 is none.

    `newline` is what stands after each segment terminator, line breaks or nothing.
    """

    element: str = "*"
    component: str = ":"
    repetition: str = "^"
    terminator: str = "~"
    newline: str = ""


STANDARD = Delimiters()
_SEPARATORS = re.compile(r"[~*:^\x00-\x1f]")


class Segment(NamedTuple):
    """A segment: `elements[0]` is its id, `elements[n]` its element n as written.

    `number` counts the segments of the file from 1 (0: not read from a file), `ordinal` those of the set with
    ST as 1, `offset` is the first byte's place in the file.
    """

    elements: tuple[str, ...]
    number: int = 0
    ordinal: int = 0
    offset: int = -1
    delimiters: Delimiters = STANDARD

    @property
    def id(self) -> str:
        return self.elements[0]

    def at(self, element: int, component: int = 0) -> str:
        """An element, or with `component` (from 1) one of its components; empty where absent."""
        text = self.elements[element] if element < len(self.elements) else ""
        if not component:
            return text
        parts = text.split(self.delimiters.component)
        return parts[component - 1] if component <= len(parts) else ""

    def parts(self, element: int) -> tuple[str, ...]:
        """The components of an element; none where it is empty."""
        text = self.at(element)
        return tuple(text.split(self.delimiters.component)) if text else ()

    def repeats(self, element: int) -> tuple[str, ...]:
        """The repetitions of an element; none where it is empty."""
        text, separator = self.at(element), self.delimiters.repetition
        if not text:
            return ()
        return tuple(text.split(separator)) if separator else (text,)


def make_segment(*elements: Element) -> Segment:
    """A segment to be written, in the standard delimiters; a sequence is a composite.

    What is empty at the end is left out. A delimiter within a text becomes a space: no content can end a segment.
    """
    composites = [element if isinstance(element, str) else "".join(element) for element in elements]
    if _SEPARATORS.search("".join(composites)):
        elements = tuple(
            strip_separators(element) if isinstance(element, str) else [strip_separators(part) for part in element]
            for element in elements
        )
    texts = [element if isinstance(element, str) else ":".join(trim(element)) for element in elements]
    return Segment(trim(texts))


def strip_separators(text: str) -> str:
    """The text with the standard delimiters and control characters as spaces."""
    return _SEPARATORS.sub(" ", text).strip() if _SEPARATORS.search(text) else text


def trim(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts without the empty ones at the end."""
    size = len(parts)
    while size and not parts[size - 1]:
        size -= 1
    return tuple(parts[:size])


def render_segment(segment: Segment, delimiters: Delimiters) -> str:
    """The text of a segment with these delimiters, terminator and line break included."""
    own, texts = segment.delimiters, segment.elements
    if own is not delimiters and own != delimiters and segment.id != "ISA":
        texts = tuple(_translate(text, own, delimiters) for text in texts)
    return delimiters.element.join(texts) + delimiters.terminator + delimiters.newline


def _translate(text: str, own: Delimiters, target: Delimiters) -> str:
    """The text in other delimiters; those that were plain characters before become spaces."""
    for separator in (target.element, target.component, target.repetition, target.terminator):
        if separator and separator in text and separator not in (own.component, own.repetition):
            text = text.replace(separator, " ")
    if own.component != target.component:
        text = text.replace(own.component, target.component)
    if own.repetition and own.repetition != target.repetition:
        text = text.replace(own.repetition, target.repetition)
    return text
