"""A loop of a transaction set with its segments and inner loops, and how they are found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from mappers.x12.segment import Element, Segment, make_segment

_NO_SEGMENT = Segment(("",))


@dataclass(frozen=True, slots=True)
class Loop:
    """An occurrence of the loop `id`; `content` holds its segments and inner loops in their order."""

    id: str
    content: list[Segment | Loop] = field(default_factory=list)

    def add(self, *elements: Element) -> None:
        """Append a segment made of these elements; its first is the segment id."""
        self.content.append(make_segment(*elements))

    def open(self, loop_id: str) -> Loop:
        """Append an inner loop and return it."""
        inner = Loop(loop_id)
        self.content.append(inner)
        return inner

    def segments(self, segment_id: str, *qualifiers: str) -> list[Segment]:
        """The segments of this loop with the id and, where given, one of the qualifiers in element 1."""
        return [
            each
            for each in self.content
            if isinstance(each, Segment) and each.id == segment_id and (not qualifiers or each.at(1) in qualifiers)
        ]

    def segment(self, segment_id: str, *qualifiers: str) -> Segment:
        """The first of `segments`, else an empty one, whose elements are all empty."""
        return next(iter(self.segments(segment_id, *qualifiers)), _NO_SEGMENT)

    def value(self, segment_id: str, qualifier: str, element: int = 2) -> str:
        """An element of the first segment with the id and qualifier, such as REF02 of REF*F8."""
        return self.segment(segment_id, qualifier).at(element)

    def loops(self, *loop_ids: str) -> list[Loop]:
        """The inner loops, one level down, with one of the ids."""
        return [each for each in self.content if isinstance(each, Loop) and each.id in loop_ids]

    def loop(self, loop_id: str) -> Loop:
        """The first inner loop of the id, else an empty one."""
        return next(iter(self.loops(loop_id)), Loop(loop_id))

    def find_loops(self, *loop_ids: str) -> Iterator[Loop]:
        """All loops with one of the ids at any depth, in their order."""
        for each in self.content:
            if isinstance(each, Loop):
                if each.id in loop_ids:
                    yield each
                yield from each.find_loops(*loop_ids)

    def walk(self) -> Iterator[tuple[Segment, str]]:
        """Every segment from the first to the last, with the id of its loop."""
        for each in self.content:
            if isinstance(each, Loop):
                yield from each.walk()
            else:
                yield each, self.id


def to_decimal(text: str) -> Decimal | None:
    """An X12 number (type R or N0); None where it is none. Exponents and signs within are none."""
    if not text.strip("+-.0123456789") and text:
        try:
            return Decimal(text)
        except InvalidOperation:
            return None
    return None


def to_amount(text: str) -> Decimal:
    """A number, 0 where there is none; faults of the text are told by `check_elements`."""
    return to_decimal(text) or Decimal(0)
