"""What a site says of a partner: authorities, zone, codes, segments of its own, and what its messages may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class Target(NamedTuple):
    """What a code of the partner is translated to."""

    code: str
    system: str = ""
    display: str = ""


class CustomField(NamedTuple):
    """A row of the site: a field such as `ZPD-3`, the resource and path that it fills, and its conversion."""

    field: str
    resource: str
    path: str
    convert: str
    vocabulary: str = ""


CREATE = "create"
CHANGE = "change"

# What messages of a type may change where it is known already; everything else they may only create.
OWN_TYPES: Mapping[str, frozenset[str]] = {
    "ADT": frozenset(
        {"Patient", "RelatedPerson", "Coverage", "Encounter", "Account"}
        | {"Condition", "AllergyIntolerance", "Observation", "Procedure"}
    ),
    "SIU": frozenset({"Appointment", "Slot", "ServiceRequest"}),
    "DFT": frozenset({"ChargeItem", "Procedure", "Condition", "Task"}),
    "OMP": frozenset({"MedicationRequest"}),
    "RDE": frozenset({"MedicationRequest"}),
    "ORU": frozenset({"DiagnosticReport", "Observation", "Specimen", "ServiceRequest"}),
}


@dataclass(frozen=True, slots=True)
class Partner:
    """The configuration of a partner. Every URI that has no home elsewhere is made below `root`.

    `authorities` gives the system of an assigning authority by its namespace or universal id; `translations` gives, by
    name of a vocabulary or of a field (`IN1-17`), the targets of codes; `permissions` gives, by event (`SIU^S12`) or
    message type (`SIU`), for a resource type `create`, `change` or an empty text (neither); what is not named there
    follows `OWN_TYPES`. `ignored` names segments and fields that are left out without an issue. `enhanced`: MSH-15 and
    MSH-16 decide on acknowledgements. `makes_slots`: an appointment has Slots; without, whoever books makes them.
    """

    name: str = "partner"
    root: str = ""
    zone: str = "UTC"
    default_authority: str = ""
    authorities: Mapping[str, str] = field(default_factory=dict)
    code_systems: Mapping[str, str] = field(default_factory=dict)
    translations: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    permissions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    custom_fields: tuple[CustomField, ...] = ()
    ignored: frozenset[str] = frozenset()
    processing: frozenset[str] = frozenset({"P"})
    receivers: frozenset[tuple[str, str]] = frozenset()
    character_set: str = ""
    patient_to_insured: bool = False
    severity_is_criticality: bool = True
    enhanced: bool = True
    makes_slots: bool = True

    def __post_init__(self) -> None:
        """Without a root of its own each partner has one by its name, so that numbers of two never meet."""
        if not self.root:
            object.__setattr__(self, "root", f"urn:hl7v2:{quote(self.name, safe='')}")

    def system(self) -> str:
        """The system of identifiers that name no assigning authority."""
        return self.default_authority or f"{self.root}/identifier"

    def may(self, message: str, event: str, resource_type: str) -> str:
        """`change`, `create` or "": what a message may do with resources of a type."""
        for key in (f"{message}^{event}", message):
            told = self.permissions.get(key, {}).get(resource_type)
            if told is not None:
                return told
        return CHANGE if resource_type in OWN_TYPES.get(message, ()) else CREATE


@cache
def find_zone(name: str) -> ZoneInfo:
    """The time zone of a partner; a name that is none is taken as UTC (`check_partner` tells)."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def check_partner(partner: Partner) -> tuple[str, ...]:
    """The faults of a configuration, each a sentence."""
    faults = []
    if find_zone(partner.zone).key != partner.zone:
        faults.append(
            f"The zone `{partner.zone}` of partner `{partner.name}` is not known. Use a name such as `Europe/Paris`."
        )
    for key, permissions in partner.permissions.items():
        for resource_type, told in permissions.items():
            if told not in (CREATE, CHANGE, ""):
                faults.append(
                    f"The permission `{key}` {resource_type} is `{told}`. Use `create`, `change` or an empty text."
                )
    return tuple(faults)
