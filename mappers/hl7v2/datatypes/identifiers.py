"""CX, EI, EIP, HD, ST and DLN become Identifier and its system.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html#Heading15. The system is the assigning authority: a known URI, an object
identifier, or a URI below the partner's root; without any it is the partner's default authority.
"""

from __future__ import annotations

from urllib.parse import quote

from mappers.hl7v2.changes import Change, Identity, Resource, derive_uuid
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.times import NONE, read_period
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.vocabulary import OBJECT_IDENTIFIERS, OID, URI, UUID

CHECK_DIGIT = "http://hl7.org/fhir/StructureDefinition/identifier-checkDigit"
CHECK_SCHEME = "http://hl7.org/fhir/StructureDefinition/namingsystem-checkDigit"
IDENTIFIER_TYPES = "v2-0203"
NUMBERS = {"PLAC": "placer", "FILL": "filler", "PGN": "placer-group", "FGN": "filler-group"}
"""Homes of numbers without authority: placers and fillers count by themselves."""

READABLE = frozenset({"location", "organization-name", "practitioner-name"})


def hd_to_system(value: Composite, partner: Partner) -> str:
    """The URI of an assigning authority (HD): the site's choice, else by the universal id, else by the namespace."""
    namespace, universal, kind = value.text(1), value.text(2), value.text(3)
    for key in (universal, namespace):
        if key and key in partner.authorities:
            return partner.authorities[key]
    for text in (universal, namespace):
        if OID.fullmatch(text) and (kind == "ISO" or text.count(".") > 4):
            return OBJECT_IDENTIFIERS.get(text) or f"urn:oid:{text}"
        if UUID.fullmatch(text):
            return f"urn:uuid:{text.lower()}"
        if URI.fullmatch(text):
            return text
    if namespace or universal:
        return f"{partner.root}/{quote(namespace or universal, safe='')}"
    return ""


def build_identifier(value: str, system: str, kind: str = "") -> Resource:
    """An Identifier; `kind` is a code of HL70203."""
    identifier: Resource = {}
    if kind:
        identifier["type"] = build_concept(IDENTIFIER_TYPES, kind)
    if system:
        identifier["system"] = system
    identifier["value"] = value
    return identifier


def cx_to_identifier(value: Composite, cell: Cell) -> Resource | None:
    """An Identifier from a CX. The row's argument is the type where CX.5 is empty."""
    number = value.text(1).strip()
    if not number:
        return None
    system = hd_to_system(value.part(4), cell.context.partner) or hd_to_system(value.part(6), cell.context.partner)
    kind = "".join(value.text(5).split()) or cell.argument
    identifier = build_identifier(number, system or cell.context.partner.system(), kind)
    extensions = [(CHECK_DIGIT, value.text(2)), (CHECK_SCHEME, value.text(3))]
    if found := [{"url": url, "valueString": text} for url, text in extensions if text]:
        identifier["extension"] = found
    if period := read_period(value, (7, 8, NONE), cell):
        identifier["period"] = period
    if assigner := value.part(6).text(1) or value.part(9).text(2):
        identifier["assigner"] = {"display": assigner}
    return identifier


def cx_to_visit_number(value: Composite, cell: Cell) -> Resource | None:
    """The Identifier of a visit, whose type the guide fixes."""
    identifier = cx_to_identifier(value, cell)
    if identifier:
        identifier["type"] = {**build_concept(IDENTIFIER_TYPES, "VN"), "text": "visit number"}
    return identifier


def ei_to_identifier(value: Composite, cell: Cell) -> Resource | None:
    """An Identifier from an EI. The row's argument is its type."""
    number = value.text(1).strip()
    if not number:
        return None
    partner = cell.context.partner
    system = hd_to_system(Composite(value.parts[1:4]), partner)
    return build_identifier(number, system or f"{partner.root}/{NUMBERS.get(cell.argument, 'number')}", cell.argument)


def eip_to_placer_identifier(value: Composite, cell: Cell) -> Resource | None:
    """The placer's Identifier of an EIP."""
    return ei_to_identifier(value.part(1), cell._replace(argument=cell.argument or "PGN"))


def eip_to_filler_identifier(value: Composite, cell: Cell) -> Resource | None:
    """The filler's Identifier of an EIP."""
    return ei_to_identifier(value.part(2), cell._replace(argument=cell.argument or "FGN"))


def ssn_to_identifier(value: Composite, cell: Cell) -> Resource | None:
    """The social security number of PID-19 and NK1-37."""
    number = value.text().strip()
    return build_identifier(number, "http://hl7.org/fhir/sid/us-ssn", "SS") if number else None


def dln_to_identifier(value: Composite, cell: Cell) -> Resource | None:
    """A driver's licence: the issuing state is its authority."""
    number = value.text(1)
    if not number:
        return None
    system = hd_to_system(Composite((value.parts[1],)) if value.text(2) else Composite(()), cell.context.partner)
    identifier = build_identifier(number, system or cell.context.partner.system(), "DL")
    if period := read_period(value, (NONE, 3, NONE), cell):
        identifier["period"] = period
    return identifier


def cwe_to_identifier(value: Composite, cell: Cell) -> Resource | None:
    """The Identifier that a coded id such as IN1-2 or AIG-3 is."""
    number = value.text(1)
    if not number:
        return None
    name = value.text(3)
    system = hd_to_system(Composite(((name,),)), cell.context.partner) if name else cell.context.partner.system()
    return build_identifier(number, system, cell.argument)


def read_identity(identifier: Resource | None) -> Identity | None:
    """The identity that an Identifier gives, None where it lacks its system."""
    if not identifier or not identifier.get("system") or not identifier.get("value"):
        return None
    return Identity(identifier["system"], identifier["value"])


def derive_identifier(kind: str, parts: tuple[str, ...], partner: Partner) -> Resource:
    """An Identifier made of what tells a resource from others where the message gives it no number.

    Places and names stay readable; what speaks of a patient becomes a UUID.
    """
    text = "|".join(part.replace("%", "%25").replace("|", "%7C") for part in parts)
    value = text if kind in READABLE else derive_uuid(f"{kind}|{text}")
    return build_identifier(value, f"{partner.root}/{kind}")


def add_derived(
    resource: Resource, kind: str, parts: tuple[str, ...], context: Context, *, create_only: bool = False
) -> Change:
    """Adds a resource that is known by an identifier made of `parts`."""
    identifier = derive_identifier(kind, parts, context.partner)
    resource.setdefault("identifier", []).append(identifier)
    return context.changes.add(resource, read_identity(identifier), create_only=create_only)
