"""Identifier becomes CX, EI and ST; its system becomes the assigning authority that the inbound mapper reads as it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes.identifiers import CHECK_DIGIT, CHECK_SCHEME, NUMBERS
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.outbound.codes import compose, read_first_code
from mappers.hl7v2.outbound.leaves import is_derived
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.times import take_period
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.vocabulary import OBJECT_IDENTIFIERS, OID, UUID

SOCIAL_SECURITY = "http://hl7.org/fhir/sid/us-ssn"


def write_authority(system: str, partner: Partner) -> list[str]:
    """The HD of a system: namespace, universal id and its type; three empty texts for the partner's default."""
    if not system or system == partner.system():
        return ["", "", ""]
    name = next((key for key, uri in partner.authorities.items() if uri == system), "")
    if name:
        return ["", name, "ISO"] if OID.fullmatch(name) else [name, "", ""]
    oid = next((key for key, uri in OBJECT_IDENTIFIERS.items() if uri == system), "")
    if oid or (system.startswith("urn:oid:") and OID.fullmatch(system.removeprefix("urn:oid:"))):
        return ["", oid or system.removeprefix("urn:oid:"), "ISO"]
    uuid = system.removeprefix("urn:uuid:")  # what is no UUID of small letters is read back as it is as a URI alone
    if uuid != system and UUID.fullmatch(uuid) and uuid == uuid.lower():
        return ["", uuid, "UUID"]
    own = f"{partner.root}/"
    if system.startswith(own) and "/" not in system.removeprefix(own):
        return [unquote(system.removeprefix(own)), "", ""]
    return ["", system, "URI"]


def read_type(identifier: Resource) -> str:
    """The code of HL70203 that an Identifier has, "" without one."""
    return read_first_code(identifier.get("type"))


def is_current(identifier: Any, partner: Partner) -> bool:
    """Whether a number may be sent as one that is in use: it has a value, is not old, and was not derived."""
    return bool(identifier.get("value")) and identifier.get("use") != "old" and not is_derived(identifier, partner)


def choose_identifier(resource: Resource, partner: Partner) -> Resource | None:
    """The first number of a resource that may be sent."""
    return next((each for each in resource.get("identifier", []) if is_current(each, partner)), None)


def _take_extension(owner: Resource, url: str) -> str:
    """Takes the string of an extension."""
    entries = owner.get("extension", [])
    entry = next((each for each in entries if each.get("url") == url), None)
    if entry is None:
        return ""
    entries.remove(entry)
    return str(entry.get("valueString", ""))


def _take_type(identifier: Resource) -> str:
    kind = read_type(identifier)
    if kind:
        identifier.pop("type")
    return kind


def write_cx(identifier: Resource, writing: Writing) -> Composite | None:
    """Value, check digit, authority, type, facility and period of an Identifier that is in use."""
    if not is_current(identifier, writing.receiver.partner):
        return None
    system = identifier.pop("system", "")
    authority = write_authority(system, writing.receiver.partner)
    facility = identifier.get("assigner", {}).pop("display", "") if any(authority) else ""
    check = [_take_extension(identifier, url) for url in (CHECK_DIGIT, CHECK_SCHEME)]
    period = take_period(identifier, writing)
    return compose(identifier.pop("value"), *check, authority, _take_type(identifier), facility, *period)


def write_old_cx(identifier: Resource, writing: Writing) -> Composite | None:
    """An Identifier that is not used any more, for MRG."""
    identifier.pop("use", None)
    return write_cx(identifier, writing)


def write_ei(identifier: Resource, kind: str, writing: Writing) -> Composite | None:
    """Value and authority of an Identifier; `kind` is the type that the field means."""
    partner = writing.receiver.partner
    if not is_current(identifier, partner) or read_type(identifier) not in ("", kind):
        return None
    system = identifier.pop("system", "")
    default = f"{partner.root}/{NUMBERS.get(kind, 'number')}"
    identifier.pop("type", None)
    return compose(identifier.pop("value"), *(["", "", ""] if system == default else write_authority(system, partner)))


def write_social_security(identifier: Resource, writing: Writing) -> Composite | None:
    """The value alone: PID-19 tells system and type."""
    if identifier.get("system") != SOCIAL_SECURITY or not is_current(identifier, writing.receiver.partner):
        return None
    identifier.pop("system")
    if read_type(identifier) == "SS":
        identifier.pop("type")
    return compose(identifier.pop("value"))
