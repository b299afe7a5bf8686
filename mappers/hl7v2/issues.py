"""What is wrong or worth telling in a message, with its place: the material of ERR segments and OperationOutcomes.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, section 2.14.5 (ERR) and table HL70357.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Location(NamedTuple):
    """A place in a message, counted from 1 as ERR-2 counts; 0 where the place is not that exact."""

    segment: str
    sequence: int = 1
    field: int = 0
    repetition: int = 0
    component: int = 0

    def __str__(self) -> str:
        """`PID[1]-3[2].4`, and less where less is known."""
        if not self.segment:
            return ""
        text = f"{self.segment}[{self.sequence}]"
        if self.field:
            text += f"-{self.field}"
            if self.repetition:
                text += f"[{self.repetition}]"
            if self.component:
                text += f".{self.component}"
        return text


NOWHERE = Location("")

# Condition codes of HL70357, each with the code of https://hl7.org/fhir/R4/valueset-issue-type.html that says the same.
CONDITIONS = {
    "0": "informational",
    "100": "structure",
    "101": "required",
    "102": "value",
    "103": "code-invalid",
    "200": "not-supported",
    "201": "not-supported",
    "202": "not-supported",
    "203": "not-supported",
    "204": "not-found",
    "205": "duplicate",
    "206": "lock-error",
    "207": "processing",
}

REJECTING = frozenset({"200", "201", "202", "203"})
"""Conditions for which a message is rejected (AR) and not only in error (AE)."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A sentence about the message, with the severity of an OperationOutcome and the condition of an ERR segment.

    An `error` or `fatal` issue means that nothing of the message is stored.
    """

    severity: str
    condition: str
    text: str
    location: Location = NOWHERE
    rejected: bool = False

    @property
    def code(self) -> str:
        """The issue type of FHIR."""
        return CONDITIONS[self.condition]


def tell(text: str, location: Location = NOWHERE) -> Issue:
    """Something that is kept with the message and mapped to nothing."""
    return Issue("information", "0", text, location)


def warn(condition: str, text: str, location: Location = NOWHERE) -> Issue:
    """Something that the mapper had to decide or leave out."""
    return Issue("warning", condition, text, location)


def refuse(condition: str, text: str, location: Location = NOWHERE, *, rejected: bool = False) -> Issue:
    """Something for which nothing of the message can be stored; `rejected`: with AR, though its condition means AE."""
    return Issue("error", condition, text, location, rejected or condition in REJECTING)


def has_errors(issues: tuple[Issue, ...] | list[Issue]) -> bool:
    """Whether an issue forbids storing."""
    return any(issue.severity in ("error", "fatal") for issue in issues)
