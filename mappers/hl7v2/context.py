"""What the conversions of one message share: partner, header, changes and issues."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, NamedTuple

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.changes import Changes
from mappers.hl7v2.issues import NOWHERE, Issue, Location, refuse, tell, warn
from mappers.hl7v2.partner import Partner

TEXT_EXTENSION = extension_url("hl7v2-text")
"""Holds the text of a v2 value that R4 cannot hold as it was sent: valueString."""


@dataclass(frozen=True, slots=True)
class Context:
    """Given to every conversion of one message; changes and issues are added to as it is read."""

    partner: Partner
    message: str
    event: str
    zone: tzinfo
    changes: Changes
    issues: list[Issue] = field(default_factory=list)

    def tell(self, text: str, location: Location = NOWHERE) -> None:
        """Adds something that is kept with the message and mapped to nothing."""
        self.issues.append(tell(text, location))

    def warn(self, condition: str, text: str, location: Location = NOWHERE) -> None:
        """Adds something that had to be decided or left out."""
        self.issues.append(warn(condition, text, location))

    def refuse(self, condition: str, text: str, location: Location = NOWHERE) -> None:
        """Adds something for which nothing of the message can be stored."""
        self.issues.append(refuse(condition, text, location))


class Cell(NamedTuple):
    """A conversion's second argument: the context, the place of the value, and what its row says."""

    context: Context
    location: Location = NOWHERE
    vocabulary: str = ""
    argument: str = ""

    def warn(self, condition: str, text: str) -> None:
        """Adds a warning about the value."""
        self.context.warn(condition, text, self.location)


class Primitive(NamedTuple):
    """A value of a primitive element with extensions; the value is None where R4 has no form for it."""

    value: Any
    extension: list[dict[str, Any]]


def keep_text(text: str) -> list[dict[str, Any]]:
    """The extension that keeps the text of a value as it was sent."""
    return [{"url": TEXT_EXTENSION, "valueString": text}]
