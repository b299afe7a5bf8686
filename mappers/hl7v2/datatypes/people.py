"""XPN, XAD, XTN become HumanName, Address and ContactPoint; XCN and XON become resources that are referred to.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html, sections 2A.2.83 to 2A.2.88.
"""

from __future__ import annotations

from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell
from mappers.hl7v2.datatypes.codes import cwe_to_text
from mappers.hl7v2.datatypes.identifiers import build_identifier, derive_identifier, hd_to_system, read_identity
from mappers.hl7v2.datatypes.times import NONE, read_period
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.vocabulary import read_concepts, translate

STRUCTURES = "http://hl7.org/fhir/StructureDefinition/"
ASSEMBLY_ORDER = STRUCTURES + "humanname-assembly-order"
CENSUS_TRACT = STRUCTURES + "iso21090-ADXP-censusTract"
PHONE_PARTS = ((5, "country"), (6, "area"), (7, "local"), (8, "extension"))


def _read_code(code: str, vocabulary: str, cell: Cell) -> str:
    """The code of FHIR for one of a small table; an unknown one is told."""
    if not code:
        return ""
    target = translate(code, vocabulary, "", cell.context.partner)
    if target is None:
        text = f"The code `{code[:40]}` is not in the table {vocabulary}; it is left out."
        cell.context.tell(text, cell.location)
    return target.code if target else ""


def xpn_to_human_name(value: Composite, cell: Cell) -> Resource | None:
    """A HumanName; the row's argument is the use where XPN.7 is empty."""
    name = _read_name(value, cell)
    if not name:
        return None
    use = _read_code(value.text(7), "NameType", cell) or cell.argument
    period = read_period(value, (12, 13, 10), cell)
    order = _read_code(value.text(11), "NameAssemblyOrder", cell)
    extension = [{"url": ASSEMBLY_ORDER, "valueCode": order}] if order else []
    return _complete_name(name, value.text(14), use=use, period=period, extension=extension)


def _read_name(value: Composite, cell: Cell) -> Resource:
    """Family, given, prefix and suffix, which stand in the same places of XPN and of XCN from its second part on."""
    given, suffix = ([text for number in pair if (text := value.text(number))] for pair in ((2, 3), (4, 6)))
    prefix = [value.text(5)] if value.text(5) else []
    pairs = (("family", value.part(1).text(1)), ("given", given), ("prefix", prefix), ("suffix", suffix))
    return {name: found for name, found in pairs if found}


def _complete_name(name: Resource, suffix: str, **more: Any) -> Resource:
    """A name with what else is told of it, and one more suffix."""
    name |= {key: value for key, value in more.items() if value}
    if suffix:
        name["suffix"] = [*name.get("suffix", []), suffix]
    return name


def xpn_to_text(value: Composite, cell: Cell) -> str | None:
    """A name as one text: the family name where it is alone."""
    name = _read_name(value, cell)
    parts = [*name.get("prefix", []), *name.get("given", []), name.get("family", ""), *name.get("suffix", [])]
    return " ".join(part for part in parts if part) or None


def xad_to_address(value: Composite, cell: Cell) -> Resource | None:
    """An Address."""
    street = value.part(1)
    lines = (*(street.text(number) for number in (1, 2, 3)), value.text(2), value.text(19))
    address: Resource = {}
    kind = value.text(7)
    if kind in read_concepts("AddressType[Type]"):
        address["type"] = _read_code(kind, "AddressType[Type]", cell)
    elif use := _read_code(kind, "AddressType[Use]", cell):
        address["use"] = use
    if line := [each for each in lines if each]:
        address["line"] = line
    district = cwe_to_text(value.part(9), cell)
    texts = (("city", value.text(3)), ("district", district), ("state", value.text(4)))
    for name, text in (*texts, ("postalCode", value.text(5)), ("country", value.text(6))):
        if text:
            address[name] = text
    if not set(address) - {"use", "type"}:
        return None
    if period := read_period(value, (13, 14, 12), cell):
        address["period"] = period
    if tract := cwe_to_text(value.part(10), cell):
        address["extension"] = [{"url": CENSUS_TRACT, "valueString": tract}]
    return address


def xtn_to_contact_point(value: Composite, cell: Cell) -> Resource | None:
    """A ContactPoint; the row's argument is the use where XTN.2 is empty."""
    equipment, mail = value.text(3), value.text(4)
    online = equipment.upper() in ("INTERNET", "X.400") or (not equipment and bool(mail))
    number = (mail or value.text(1)) if online else (value.text(12) or _write_number(value) or value.text(1) or mail)
    if not number:
        return None
    system = "email" if online else _read_code(equipment, "TelecommunicationEquipmentType", cell)
    use = _read_code(value.text(2), "TelecommunicationUseCode", cell) or cell.argument
    if system == "mobile":
        system, use = "phone", "mobile"
    point: Resource = {"system": system or "phone", "value": number}
    if use:
        point["use"] = use
    rank = value.text(18)
    if rank.isascii() and rank.isdigit() and int(rank[:9]) > 0:
        point["rank"] = int(rank[:9])
    if period := read_period(value, (13, 14, NONE), cell):
        point["period"] = period
    extensions = [] if online else [(name, value.text(part)) for part, name in PHONE_PARTS]
    if told := [{"url": f"{STRUCTURES}contactpoint-{name}", "valueString": text} for name, text in extensions if text]:
        point["extension"] = told
    return point


def _write_number(value: Composite) -> str:
    """`+1 555 1234567 X89` of country, area, number and extension; "" without a number."""
    country, area, local, extension = (value.text(part) for part, _ in PHONE_PARTS)
    if not local:
        return ""
    number = " ".join(each for each in (country and f"+{country.lstrip('+')}", area, local) if each)
    return f"{number} X{extension}" if extension else number


def xcn_to_practitioner(value: Composite, cell: Cell) -> Resource | None:
    """A reference to a Practitioner, who is added; without a number the name is the identity."""
    number = value.text(1)
    name = _read_name(Composite(value.parts[1:7]), cell)
    if not number and not name.keys() & {"family", "given"}:
        return None
    resource: Resource = {"resourceType": "Practitioner", "identifier": [_identify_practitioner(value, name, cell)]}
    if name:
        use = _read_code(value.text(10), "NameType", cell)
        period = read_period(value, (19, 20, 17), cell)
        resource["name"] = [_complete_name(name, value.text(21), use=use, period=period)]
    return cell.context.changes.add(resource, read_identity(resource["identifier"][0])).reference


def _identify_practitioner(value: Composite, name: Resource, cell: Cell) -> Resource:
    partner = cell.context.partner
    if not (number := value.text(1)):
        parts = (name.get("family", ""), *name.get("given", []), *name.get("suffix", []))
        return derive_identifier("practitioner-name", tuple(part.upper() for part in parts), partner)
    system = hd_to_system(value.part(9), partner) or hd_to_system(value.part(14), partner) or partner.system()
    return build_identifier(number, system, "".join(value.text(13).split()))


def ndl_to_practitioner(value: Composite, cell: Cell) -> Resource | None:
    """The person of an NDL, which is a CNN: number, name and, from the ninth on, authority as sub-components."""
    parts = value.part(1).parts
    empty = (("",),) * (8 - len(parts[:8]))
    authority = tuple(part[0] for part in parts[8:11])
    return xcn_to_practitioner(Composite((*parts[:8], *empty, authority or ("",))), cell)


def xon_to_organization(value: Composite, cell: Cell) -> Resource | None:
    """A reference to an Organization, which is added; without a number the name is the identity."""
    partner = cell.context.partner
    system = hd_to_system(value.part(6), partner) or hd_to_system(value.part(8), partner)
    kind = "".join(value.text(7).split())
    return _add_organization(value.text(1), value.text(10) or value.text(3), system, kind, cell)


def cwe_to_organization(value: Composite, cell: Cell) -> Resource | None:
    """A reference to the Organization that a coded id such as OBX-15 names."""
    system = hd_to_system(Composite(((value.text(3),),)), cell.context.partner)
    return _add_organization(value.text(2), value.text(1), system, "", cell)


def _add_organization(name: str, number: str, system: str, kind: str, cell: Cell) -> Resource | None:
    partner = cell.context.partner
    if not name and not number:
        return None
    if number:
        identifier = build_identifier(number, system or partner.system(), kind)
    else:
        identifier = derive_identifier("organization-name", (name.upper(),), partner)
    resource: Resource = {"resourceType": "Organization", "identifier": [identifier]}
    if name:
        resource["name"] = name
    return cell.context.changes.add(resource, read_identity(identifier)).reference


def xon_to_text(value: Composite, cell: Cell) -> str | None:
    """The name of an organization, else its number."""
    return value.text(1) or value.text(10) or value.text(3) or None
