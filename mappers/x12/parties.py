"""Patients, organizations and practitioners as names, addresses and numbers: 2000A to 2000C, 2310 (005010X222A1)."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from mappers.x12 import codes
from mappers.x12.loop import Loop
from mappers.x12.partner import Mapping837
from mappers.x12.resource import (
    EMPTY,
    Resource,
    Resources,
    find_code,
    find_codes,
    find_extension,
    find_identifier,
    find_typed_identifier,
    get_day,
    get_list,
    get_object,
    get_text,
    get_texts,
    iterate_type,
    resolve,
)
from mappers.x12.writer import clean

_GENDERS = {"male": "M", "female": "F"}


class Provider(NamedTuple):
    """A provider: the resource with name and numbers (Practitioner, Organization or Location), and its role if any."""

    resource: Resource
    role: Resource = EMPTY

    @property
    def npi(self) -> str:
        return find_identifier(self.resource, codes.NPI) or find_identifier(self.role, codes.NPI)


def find_provider(mapping: Mapping837, reference: object, organization_first: bool = False) -> Provider:
    """Who a reference to Practitioner, Organization or PractitionerRole means."""
    resource = resolve(reference, mapping.resources, mapping.claim)
    if resource.get("resourceType") != "PractitionerRole":
        return Provider(resource)
    members = ("organization", "practitioner") if organization_first else ("practitioner", "organization")
    resources = (resolve(resource.get(member), mapping.resources, resource) for member in members)
    return Provider(next(filter(None, resources), EMPTY), resource)


def find_taxonomy(mapping: Mapping837, provider: Provider) -> str:
    """The NUCC code: of the role, the practitioner's qualification, the organization's type, or of another role."""
    concepts = [*get_list(provider.role, "specialty"), *get_list(provider.resource, "type")]
    concepts += [get_object(each, "code") for each in get_list(provider.resource, "qualification")]
    taxonomies = find_codes(concepts, codes.TAXONOMY)
    if taxonomies or provider.resource.get("resourceType") != "Practitioner":
        return taxonomies[0] if taxonomies else ""
    reference = f"Practitioner/{get_text(provider.resource, 'id')}"
    for role in iterate_type(mapping.resources, "PractitionerRole"):
        if get_text(role.get("practitioner"), "reference") == reference:
            taxonomies += find_codes(get_list(role, "specialty"), codes.TAXONOMY)
    return taxonomies[0] if taxonomies else ""


def name_to_nm1(entity: str, resource: Resource, qualifier: str = "", number: str = "") -> tuple[str, ...]:
    """NM1 of a person (Patient, Practitioner, RelatedPerson: NM102 is 1) or of anything else by its name (2)."""
    names = resource.get("name")
    if isinstance(names, str):
        return ("NM1", entity, "2", clean(names, 60), "", "", "", "", qualifier, clean(number, 80))
    candidates = get_list(resource, "name")
    human_name = next(
        (each for each in candidates if each.get("use") == "official"), candidates[0] if candidates else EMPTY
    )
    given, family = get_texts(human_name, "given"), get_text(human_name, "family")
    if not family:
        *given, family = get_text(human_name, "text").split() or [""]
    first, middle = ([*given, "", ""])[:2]
    suffix = " ".join(get_texts(human_name, "suffix"))
    person = (clean(family, 60), clean(first, 35), clean(middle, 25), "", clean(suffix, 10))
    return ("NM1", entity, "1", *person, qualifier, clean(number, 80))


def add_address(loop: Loop, address: Resource) -> None:
    """N3 and N4 of an Address; nothing where it is empty."""
    lines, country = get_texts(address, "line"), get_text(address, "country").upper()
    if not address:
        return
    loop.add("N3", *(clean(line, 55) for line in lines[:2]))
    postal = clean(get_text(address, "postalCode").replace("-", "").replace(" ", ""), 15)
    abroad = country if country not in ("", "US", "USA") else ""
    loop.add("N4", clean(get_text(address, "city"), 30), clean(get_text(address, "state"), 2), postal, clean(abroad, 3))


def choose_address(resource: Resource) -> Resource:
    """The address that is not for billing only; Location has one, others a list."""
    single = get_object(resource, "address")
    if single:
        return single
    addresses = get_list(resource, "address")
    return next((each for each in addresses if each.get("use") != "billing"), addresses[0] if addresses else EMPTY)


def write_date(day: date | None) -> str:
    """CCYYMMDD, empty where there is none."""
    return f"{day:%Y%m%d}" if day else ""


def add_demographics(mapping: Mapping837, loop: Loop, person: Resource, expression: str) -> None:
    """DMG: birth date and sex."""
    day = get_day(get_text(person, "birthDate"))
    if day is None:
        sentence = f"`{expression}.birthDate` has no whole day; enter the birth date."
        mapping.tell(sentence, f"{expression}.birthDate", f"{loop.id}/DMG/2")
    loop.add("DMG", "D8", write_date(day), _GENDERS.get(get_text(person, "gender"), "U"))


def need_address(mapping: Mapping837, loop: Loop, address: Resource, expression: str) -> None:
    """N3 and N4 that the guide requires."""
    add_address(loop, address)
    if not get_texts(address, "line") or not get_text(address, "city"):
        mapping.tell(f"`{expression}` lacks street or city; both are required.", expression, f"{loop.id}/N3/1")
    if len(get_texts(address, "line")) > 2:
        sentence = f"`{expression}` has more than two lines; the first two are sent."
        mapping.tell(sentence, f"{expression}.line", f"{loop.id}/N3/2", warning=True)


def provider_to_2000a(mapping: Mapping837) -> Loop:
    """2000A with PRV, 2010AA and, where a billing address differs, 2010AB."""
    provider = find_provider(mapping, mapping.claim.get("provider"), organization_first=True)
    loop, resource = Loop("2000A"), provider.resource
    loop.add("HL", "", "", "20", "")
    if taxonomy := find_taxonomy(mapping, provider):
        loop.add("PRV", "BI", "PXC", taxonomy)
    name = loop.open("2010AA")
    name.add(*name_to_nm1("85", resource, "XX" if provider.npi else "", provider.npi))
    if not resource:
        mapping.tell("`Claim.provider` is not among the resources.", "Claim.provider", "2010AA/NM1/3")
        return loop
    need_address(mapping, name, choose_address(resource), "Claim.provider.address")
    employer, social = find_identifier(resource, *codes.EIN), find_identifier(resource, codes.SSN)
    if employer or social:
        name.add("REF", "EI" if employer else "SY", clean((employer or social).replace("-", ""), 50))
    else:
        sentence = "`Claim.provider` has neither employer nor social security number; one is required."
        mapping.tell(sentence, "Claim.provider.identifier", "2010AA/REF/2")
    pay_to = next((each for each in get_list(resource, "address") if each.get("use") == "billing"), EMPTY)
    if pay_to and not _equal_addresses(pay_to, choose_address(resource)):
        inner = loop.open("2010AB")
        inner.add("NM1", "87", "1" if name.segment("NM1").at(2) == "1" else "2")
        add_address(inner, pay_to)
    return loop


def _equal_addresses(one: Resource, other: Resource) -> bool:
    first, second = Loop(""), Loop("")
    add_address(first, one)
    add_address(second, other)
    return first.content == second.content


def provider_to_name(mapping: Mapping837, loop: Loop, entity: str, provider: Provider) -> None:
    """NM1 of a provider within a claim or line, with PRV*PE for the rendering one."""
    number = provider.npi
    loop.add(*name_to_nm1(entity, provider.resource, "XX" if number else "", number))
    if not loop.segment("NM1").at(3):
        sentence = f"The provider of loop {loop.id} has no name or is not among the resources."
        mapping.tell(sentence, "Claim.careTeam.provider", f"{loop.id}/NM1/3")
    if entity == "82" and (taxonomy := find_taxonomy(mapping, provider)):
        loop.add("PRV", "PE", "PXC", taxonomy)


def facility_to_2310c(mapping: Mapping837, claim: Loop, billing: Loop) -> None:
    """2310C, unless the place's address is the billing provider's."""
    place = resolve(mapping.claim.get("facility"), mapping.resources, mapping.claim)
    if not place:
        return
    owner = resolve(place.get("managingOrganization"), mapping.resources, place)
    address = choose_address(place) or choose_address(owner)
    loop = Loop("2310C")
    number = find_identifier(place, codes.NPI) or find_identifier(owner, codes.NPI)
    loop.add(*name_to_nm1("77", place if place.get("name") else owner, "XX" if number else "", number))
    need_address(mapping, loop, address, "Claim.facility.address")
    own = billing.loop("2010AA")
    if loop.segment("N3").elements != own.segment("N3").elements:
        claim.content.append(loop)


def find_payer(resources: Resources, coverage: Resource) -> tuple[Resource, str]:
    """The payer of a Coverage and its id: of our payer system, else the first identifier that is no NPI or EIN."""
    payer = next((resolve(each, resources, coverage) for each in get_list(coverage, "payor")), EMPTY)
    number = find_identifier(payer, codes.PAYER_ID)
    others = (each for each in get_list(payer, "identifier") if each.get("system") not in (codes.NPI, *codes.EIN))
    return payer, number or next((get_text(each, "value") for each in others), "")


def find_relationship(coverage: Resource) -> str:
    """SBR02 and PAT01: what the patient is to the subscriber."""
    concept = coverage.get("relationship")
    if exact := find_code(concept, codes.RELATIONSHIP):
        return exact
    subscriber, patient = coverage.get("subscriber"), coverage.get("beneficiary")
    same = not subscriber or get_text(subscriber, "reference") == get_text(patient, "reference")
    return codes.RELATIONSHIPS.get(find_code(concept), "18" if same else "G8")


def find_subscriber(mapping: Mapping837, coverage: Resource) -> tuple[Resource, str]:
    """The subscriber and the member id."""
    members = ("beneficiary",) if find_relationship(coverage) == "18" else ("subscriber", "policyHolder")
    people = (resolve(coverage.get(member), mapping.resources, coverage) for member in members)
    number = get_text(coverage, "subscriberId") or find_typed_identifier(coverage, "MB")
    return next(filter(None, people), EMPTY), number


def coverage_to_sbr(mapping: Mapping837, coverage: Resource, sequence: str, other: bool) -> tuple[str, ...]:
    """SBR of 2000B, or of 2320 (`other`), where SBR02 always stands."""
    _, payer_id = find_payer(mapping.resources, coverage)
    groups = [each for each in get_list(coverage, "class") if find_code(each.get("type")) == "group"]
    group = clean(get_text(groups[0], "value"), 50) if groups else ""
    name = clean(get_text(groups[0], "name"), 60) if groups and not group else ""
    filing = mapping.partner.filing_codes.get(payer_id) or codes.FILING_CODES.get(find_code(coverage.get("type")), "ZZ")
    relationship = find_relationship(coverage)
    secondary = str(find_extension(coverage, codes.SECONDARY_TYPE) or "") if sequence != "P" else ""
    if filing in ("MA", "MB") and sequence != "P" and not secondary:
        sentence = "Medicare does not pay first here: the reason (12–16, 41–43, 47) is required on the Coverage."
        mapping.tell(
            sentence, f"Coverage.extension('{codes.SECONDARY_TYPE}')", ("2320" if other else "2000B") + "/SBR/5"
        )
    own = relationship if other or relationship == "18" else ""
    return ("SBR", sequence, own, group, name, clean(secondary, 3), "", "", "", filing)


def add_payer(mapping: Mapping837, loop: Loop, coverage: Resource) -> str:
    """NM1*PR of a Coverage's payer; answers its id."""
    payer, number = find_payer(mapping.resources, coverage)
    loop.add(*name_to_nm1("PR", payer, "PI", number))
    if not number or not loop.segment("NM1").at(3):
        sentence = "`Coverage.payor` needs a name and a payer id."
        mapping.tell(sentence, "Coverage.payor", f"{loop.id}/NM1/9")
    return number


def coverage_to_2000b(mapping: Mapping837, coverage: Resource, sequence: str) -> Loop:
    """2000B with SBR, 2010BA and 2010BB."""
    loop = Loop("2000B")
    loop.add("HL", "", "", "22", "")
    loop.add(*coverage_to_sbr(mapping, coverage, sequence, other=False))
    person, number = find_subscriber(mapping, coverage)
    name = loop.open("2010BA")
    name.add(*name_to_nm1("IL", person, "MI" if number else "", number))
    if not number:
        mapping.tell("`Coverage.subscriberId` is required.", "Coverage.subscriberId", "2010BA/NM1/9")
    if not name.segment("NM1").at(3):
        mapping.tell("The subscriber's name is required.", "Coverage.subscriber", "2010BA/NM1/3")
    if find_relationship(coverage) == "18":
        need_address(mapping, name, choose_address(person), "Patient.address")
        add_demographics(mapping, name, person, "Patient")
    else:
        add_address(name, choose_address(person))
        if get_day(get_text(person, "birthDate")):
            add_demographics(mapping, name, person, "Patient")
    payer = loop.open("2010BB")
    add_payer(mapping, payer, coverage)
    return loop


def patient_to_2000c(mapping: Mapping837, coverage: Resource) -> Loop | None:
    """2000C for a patient who is not the subscriber."""
    relationship = find_relationship(coverage)
    if relationship == "18":
        return None
    patient = resolve(coverage.get("beneficiary") or mapping.claim.get("patient"), mapping.resources, coverage)
    loop = Loop("2000C")
    loop.add("HL", "", "", "23", "")
    loop.add("PAT", relationship)
    name = loop.open("2010CA")
    name.add(*name_to_nm1("QC", patient))
    if not name.segment("NM1").at(3):
        mapping.tell("The patient's name is required.", "Claim.patient", "2010CA/NM1/3")
    need_address(mapping, name, choose_address(patient), "Patient.address")
    add_demographics(mapping, name, patient, "Patient")
    return loop
