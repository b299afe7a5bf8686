"""HumanName, Address and ContactPoint become XPN, XAD and XTN; who and what is referred to becomes XCN, XON and PL."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes.people import ASSEMBLY_ORDER, CENSUS_TRACT, PHONE_PARTS, STRUCTURES
from mappers.hl7v2.datatypes.places import LEVELS
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.outbound.codes import Part, compose, find_code, read_first_code
from mappers.hl7v2.outbound.identifiers import choose_identifier, read_type, write_authority
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.times import take_period


def _take_code(owner: Resource, name: str, vocabulary: str, writing: Writing) -> str:
    """Takes an element whose code the vocabulary has; another one stays."""
    code = find_code(owner.get(name, ""), "", vocabulary, "", writing.receiver.partner) if name in owner else ""
    if code:
        owner.pop(name)
    return code


def _take_extension(owner: Resource, url: str, value: str) -> str:
    entries = owner.get("extension", [])
    entry = next((each for each in entries if each.get("url") == url), None)
    if entry is None:
        return ""
    entries.remove(entry)
    return str(entry.get(value, ""))


def _take_first(owner: Resource, name: str) -> str:
    values = owner.get(name) or []
    return str(values.pop(0)) if values else ""


def _take_name(name: Resource) -> list[Part]:
    """Family, given, further given, suffix and prefix; a name of which only the text is told is a family name."""
    text = name.pop("text", "")
    family, given = name.pop("family", ""), _take_first(name, "given")
    further = " ".join(name.pop("given", []))
    suffix, prefix = _take_first(name, "suffix"), _take_first(name, "prefix")
    parts: list[Part] = [family, given, further, suffix, prefix]
    return parts if any(parts) else [text]


def write_name(name: Resource, writing: Writing) -> Composite | None:
    """A HumanName."""
    parts = [*_take_name(name), "", "", "", "", ""][:5]
    kind = _take_code(name, "use", "NameType", writing)
    order = _take_extension(name, ASSEMBLY_ORDER, "valueCode")
    start, end = take_period(name, writing)
    return compose(*parts, "", kind, "", "", "", order, start, end, _take_first(name, "suffix"))


def write_address(address: Resource, writing: Writing) -> Composite | None:
    """An Address; one of use and type fits."""
    text = address.pop("text", "")
    lines = [_take_first(address, "line") for _ in range(3)]
    places = [address.pop(name, "") for name in ("city", "state", "postalCode", "country")]
    kind = _take_code(address, "use", "AddressType[Use]", writing)
    kind = kind or _take_code(address, "type", "AddressType[Type]", writing)
    district, tract = address.pop("district", ""), _take_extension(address, CENSUS_TRACT, "valueString")
    start, end = take_period(address, writing)
    if not any([*lines, *places, district]):
        lines[0] = text
    more = ["", "", start, end, "", "", "", "", lines[2]]
    return compose([lines[0]], lines[1], *places, kind, "", district, tract, *more)


def write_contact(point: Resource, use: str, writing: Writing) -> Composite | None:
    """A ContactPoint; `use` is what the field means, and a ContactPoint of another use is none for it."""
    told, system = point.get("use", ""), point.get("system", "phone")
    mobile = system == "phone" and told == "mobile"
    if told == "old" or (use and told != use and not (use == "home" and mobile)):
        return None
    equipment = "CP" if mobile else find_code(
        system, "", "TelecommunicationEquipmentType", "", writing.receiver.partner
    )  # fmt: skip
    if not equipment or "value" not in point:
        return None
    number = point.pop("value")
    point.pop("system", None)
    kind = _take_code(point, "use", "TelecommunicationUseCode", writing)
    parts = [_take_extension(point, f"{STRUCTURES}contactpoint-{name}", "valueString") for _, name in PHONE_PARTS]
    start, end = take_period(point, writing)
    rank = str(point.pop("rank", ""))
    ends = [start, end, "", "", "", rank]
    if equipment == "Internet":
        return compose("", kind or "NET", equipment, number, *[""] * 8, *ends)
    plain = "" if any(parts) else number
    return compose(plain, "" if mobile else kind, equipment, "", *parts, "", "", "", "" if plain else number, *ends)


def _is_other(reference: Resource, types: tuple[str, ...], writing: Writing) -> bool:
    """Whether a Reference is known to lead to none of these types."""
    known = writing.index.find(reference)
    text = str(reference.get("reference", ""))
    kind = known["resourceType"] if known else reference.get("type") or (text.split("/")[-2] if "/" in text else "")
    return bool(kind) and kind not in types


def _name_by_reference(reference: Resource) -> tuple[str, str, str]:
    """Number, system and name that a Reference itself tells."""
    identifier = reference.get("identifier", {})
    return identifier.get("value", ""), identifier.get("system", ""), reference.get("display", "")


def write_person(reference: Resource, writing: Writing) -> Composite | None:
    """The number, name, authority and type of a Practitioner; a PractitionerRole is its Practitioner."""
    partner = writing.receiver.partner
    if _is_other(reference, ("Practitioner", "PractitionerRole"), writing):
        return None
    person = writing.follow(reference, "Practitioner", "PractitionerRole")
    if person and person["resourceType"] == "PractitionerRole":
        return write_person(person.get("practitioner", {}), writing)
    if person is None:
        number, system, name = _name_by_reference(reference)
        return compose(number, [name], *[""] * 6, write_authority(system, partner)) if number or name else None
    identifier = choose_identifier(person, partner) or {}
    name_: Resource = next(iter(person.get("name", [])), {})
    parts = [*_take_name(name_), "", "", "", "", ""][:5]
    kind = _take_code(name_, "use", "NameType", writing)
    more = write_authority(identifier.get("system", ""), partner), kind, "", "", read_type(identifier)
    return compose(identifier.get("value", ""), [str(parts[0])], *parts[1:], "", "", *more)


def write_ndl(reference: Resource, writing: Writing) -> Composite | None:
    """A person as NDL: number, name and authority as sub-components of the first component."""
    person = write_person(reference, writing)
    if person is None:
        return None
    parts = [person.text(number) for number in range(1, 7)]
    authority = person.part(9)
    return compose([*parts, "", "", *(authority.text(number) for number in (1, 2, 3))])


def write_organization(reference: Resource, writing: Writing) -> Composite | None:
    """The name, number, authority and type of an Organization."""
    partner = writing.receiver.partner
    if _is_other(reference, ("Organization",), writing):
        return None
    organization = writing.follow(reference, "Organization")
    if organization is None:
        number, system, name = _name_by_reference(reference)
        kind = ""
    else:
        identifier = choose_identifier(organization, partner) or {}
        number, system, kind = identifier.get("value", ""), identifier.get("system", ""), read_type(identifier)
        name = organization.get("name", "")
    return compose(name, "", "", "", "", write_authority(system, partner), kind, "", "", number)


def write_organization_code(reference: Resource, writing: Writing) -> Composite | None:
    """An Organization as a coded id: number, name and the namespace of its authority."""
    if _is_other(reference, ("Organization",), writing):
        return None
    organization = writing.follow(reference, "Organization")
    identifier = choose_identifier(organization, writing.receiver.partner) or {} if organization else {}
    authority = write_authority(identifier.get("system", ""), writing.receiver.partner)
    name = (organization or {}).get("name", "") or reference.get("display", "")
    return compose(identifier.get("value", ""), name, authority[0] or authority[1])


def write_location(reference: Resource, writing: Writing) -> Composite | None:
    """A Location and those that it is part of, each in the component of its physical type; else as point of care."""
    parts = [""] * 9
    components = {kind: number for number, kind in LEVELS}
    location = writing.follow(reference, "Location")
    for _ in LEVELS:
        if location is None:
            break
        number = components.get(read_first_code(location.get("physicalType")), 1)
        if not parts[number - 1]:
            parts[number - 1] = location.get("name", "") or location.get("id", "")
        parts[8] = parts[8] or location.get("description", "")
        location = writing.follow(location.get("partOf"), "Location")
    if not any(parts[:8]):
        parts[0] = reference.get("display", "")
    return compose(*parts) if any(parts[:8]) else None


def write_discharge_place(reference: Resource, writing: Writing) -> Composite | None:
    """A Location by its name alone."""
    location = writing.follow(reference, "Location") or {}
    return compose([location.get("name", "") or reference.get("display", "")])
