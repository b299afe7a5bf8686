"""The table `hl7v2` of a partner's file: who sends, what is accepted, what messages may change (docs/partners.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fhir_server.partners.section import Section, Text

Segment = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}(-[1-9][0-9]{0,2})?$")]
"""A segment such as `ZPD`, or one of its fields, `PID-25`."""

Event = Annotated[str, Field(pattern=r"^[A-Z]{3}(\^[A-Z][0-9]{2})?$")]
"""A message type such as `ORU`, or one event of it, `SIU^S12`."""


class Hl7v2Side(Section):
    """An application and facility (MSH-3/4, MSH-5/6) by namespace or universal id; left out, any will do."""

    application: str = ""
    facility: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> Hl7v2Side:
        if not self.application and not self.facility:
            raise ValueError("Name `application`, `facility` or both.")
        return self


class Hl7v2Field(Section):
    """A field of the site, such as `ZPD-3`: the resource and path that it fills, its conversion and vocabulary."""

    field: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}-[1-9][0-9]{0,2}(\.[1-9])?$")]
    resource: Text
    path: Text
    convert: Text
    vocabulary: str = ""


class Hl7v2Send(Section):
    """Which changes are sent, as what: versions of a type that a search matches, and the event of their message.

    `change`: `new` where the version before was not matched or is not there, `later` where it was, `any` for both.
    `leave_out`: segments of the message that the partner is not to have.
    """

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+$")]
    filter: str = ""
    change: Literal["any", "new", "later"] = "any"
    event: Annotated[str, Field(pattern=r"^[A-Z]{3}\^[A-Z][0-9]{2}$")]
    leave_out: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}$")], ...] = ()

    @field_validator("leave_out")
    @classmethod
    def _optional(cls, segments: tuple[str, ...]) -> tuple[str, ...]:
        if fixed := {"MSH", "EVN", "PID"}.intersection(segments):
            raise ValueError(f"Every message has {' and '.join(sorted(fixed))}.")
        return segments


class Hl7v2OutSection(Section):
    """What is sent to a partner: the way, MSH-3 to MSH-6, MSH-11, MSH-12, and the changes, of which the first counts.

    `tries`: how often a message goes that is refused, before a person has to look; `retry_seconds` between them.
    """

    transport: Literal["mllp", "http", "folder"]
    sending: Hl7v2Side
    receiving: Hl7v2Side
    version: Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2"] = "2.5.1"
    processing: Literal["P", "T", "D"] = "P"
    tries: Annotated[int, Field(ge=1, le=100)] = 3
    retry_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    send: Annotated[tuple[Hl7v2Send, ...], Field(min_length=1)]


class Hl7v2Section(Section):
    """How HL7 v2 is exchanged with a partner.

    `permissions`: by message type or event, what may be done with resources of a type; what is not named there follows
    the table of `docs/mappers/hl7v2.md`. `concept_maps`: vocabulary or field → canonical URL of a stored ConceptMap.
    `ignored`: segments and fields that are left out without an issue.
    """

    senders: tuple[Hl7v2Side, ...] = ()
    receivers: tuple[Hl7v2Side, ...] = ()
    processing: Annotated[tuple[Literal["P", "T", "D", ""], ...], Field(min_length=1)] = ("P",)
    character_set: str = ""
    code_systems: Mapping[str, Text] = Field(default_factory=dict)
    concept_maps: Mapping[str, Text] = Field(default_factory=dict)
    permissions: Mapping[Event, Mapping[str, Literal["create", "change", "none"]]] = Field(default_factory=dict)
    custom_fields: tuple[Hl7v2Field, ...] = ()
    ignored: tuple[Segment, ...] = ()
    patient_to_insured: bool = False
    severity_is_criticality: bool = True
    acknowledgements: Literal["as-asked", "original"] = "as-asked"
    out: Hl7v2OutSection | None = None
