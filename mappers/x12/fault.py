"""What is wrong in an X12 file: a sentence, its place, and the code by which TA1 and 999 name it (005010X231A1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fhir_server.fhir.outcome import Issue
from mappers.x12.segment import Segment

Level = Literal["interchange", "group", "set", "segment", "element"]
"""Which code list: TA1-05, AK905, IK502, IK304, IK403."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file: `number` counts its segments from 1, `index` those of the set (ST is 1), `offset` bytes from 0.

    0, -1 and the empty text mean *not known*; `element`, `component` and `repetition` count from 1.
    """

    number: int = 0
    index: int = 0
    offset: int = -1
    loop: str = ""
    segment: str = ""
    element: int = 0
    component: int = 0
    repetition: int = 0

    @property
    def path(self) -> str:
        """`loop/segment/element-component`, such as `2300/CLM/05-1`."""
        element = f"{self.element:02}" if self.element else ""
        if self.component:
            element += f"-{self.component}"
        return "/".join(part for part in (self.loop, self.segment, element) if part)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `code` is of the list of its level, `expression` a FHIRPath where a resource caused it."""

    sentence: str
    place: Place = Place()
    level: Level = "segment"
    code: str = ""
    severity: Literal["error", "warning"] = "error"
    expression: str = ""
    value: str = ""


def place_segment(segment: Segment, loop: str = "", element: int = 0, component: int = 0) -> Place:
    """The place of a segment that was read, or of one of its elements."""
    return Place(segment.number, segment.ordinal, segment.offset, loop, segment.id, element, component)


def fault_to_issue(fault: Fault) -> Issue:
    """The fault as an OperationOutcome issue; `expression` holds the FHIRPath, else the X12 path."""
    place = fault.place
    words = [f"segment {place.number}"] if place.number else []
    words += [f"at {place.path}"] if place.path else []
    words += [f"byte {place.offset}"] if place.offset >= 0 else []
    where = f" ({', '.join(words)})" if words else ""
    path = fault.expression or place.path
    return Issue(fault.severity, "invalid", fault.sentence + where, (path,) if path else ())


def find_errors(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Those faults that are no mere warnings."""
    return tuple(fault for fault in faults if fault.severity == "error")
