"""CoverageEligibilityRequest to a 270 (005010X279A1; http://hl7.org/fhir/R4/coverageeligibilityrequest.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mappers.x12 import codes
from mappers.x12.fault import Fault, find_errors
from mappers.x12.loop import Loop
from mappers.x12.parties import (
    add_payer,
    find_payer,
    find_provider,
    find_relationship,
    find_subscriber,
    name_to_nm1,
    write_date,
)
from mappers.x12.partner import ClaimSource, Mapping837, Partner
from mappers.x12.resource import (
    EMPTY,
    Resource,
    Resources,
    find_code,
    find_codes,
    get_day,
    get_list,
    get_object,
    get_text,
    resolve,
)
from mappers.x12.structure import check_interchange
from mappers.x12.tables.eligibility import TABLE_270
from mappers.x12.writer import ControlNumbers, clean, write_interchange, write_set

_SEXES = {"male": "M", "female": "F"}


@dataclass(frozen=True, slots=True)
class EligibilitySource:
    """A request with the resources it refers to, its trace number (TRN02), and the day asked for where it has none."""

    request: Resource
    resources: Resources
    trace: str
    day: date


@dataclass(frozen=True, slots=True)
class Written270:
    """The interchange (empty where a fault is an error), the mapper's faults, and those our own reader finds in it."""

    text: str
    faults: tuple[Fault, ...]
    check: tuple[Fault, ...]


def write_270(source: EligibilitySource, partner: Partner, numbers: ControlNumbers, set_number: str) -> Written270:
    """A 270 in real-time shape: one request, one subscriber or dependent."""
    mapping = Mapping837(ClaimSource(source.request, source.resources), partner)
    root = Loop("ST")
    root.add("BHT", "0022", "13", clean(source.trace, 50), f"{numbers.moment:%Y%m%d}", f"{numbers.moment:%H%M}")
    coverage = find_coverage(source.request, source.resources)
    if not coverage:
        sentence = "The coverage to ask about is not among the resources."
        mapping.tell(sentence, "CoverageEligibilityRequest.insurance.coverage", "2100C/NM1/9")
    _add_sides(mapping, root, coverage)
    _add_people(mapping, root.loop("2000A").loop("2000B"), coverage, source)
    faults = tuple(mapping.faults)
    if find_errors(faults):
        return Written270("", faults, ())
    segments = write_set(TABLE_270, root, set_number)
    text = write_interchange(partner.envelope, numbers, TABLE_270, [segments])
    return Written270(text, faults, check_interchange(text))


def find_coverage(request: Resource, resources: Resources) -> Resource:
    """The coverage that a request asks about: the focal one, else the first."""
    insurances = get_list(request, "insurance")
    focal = next((each for each in insurances if each.get("focal") is True), insurances[0] if insurances else EMPTY)
    return resolve(focal.get("coverage"), resources, request)


def find_payer_id(request: Resource, resources: Resources) -> str:
    """The id of the payer who is asked."""
    return find_payer(resources, find_coverage(request, resources))[1]


def _add_sides(mapping: Mapping837, root: Loop, coverage: Resource) -> None:
    """2000A the payer, 2000B the provider who asks."""
    payer = root.open("2000A")
    payer.add("HL", "", "", "20", "")
    add_payer(mapping, payer.open("2100A"), coverage)
    provider = find_provider(mapping, mapping.claim.get("provider"), organization_first=True)
    receiver = payer.open("2000B")
    receiver.add("HL", "", "", "21", "")
    name = receiver.open("2100B")
    name.add(*name_to_nm1("1P", provider.resource, "XX", provider.npi))
    if not provider.npi or not name.segment("NM1").at(3):
        sentence = "The provider who asks needs a name and an NPI."
        mapping.tell(sentence, "CoverageEligibilityRequest.provider", "2100B/NM1/9")


def _add_people(mapping: Mapping837, parent: Loop, coverage: Resource, source: EligibilitySource) -> None:
    """2000C the subscriber, 2000D the dependent; trace, date and inquiry stand with the one who is the patient."""
    person, number = find_subscriber(mapping, coverage)
    subscriber = parent.open("2000C")
    subscriber.add("HL", "", "", "22", "")
    name = subscriber.open("2100C")
    name.add(*name_to_nm1("IL", person, "MI" if number else "", number))
    if not number:
        mapping.tell("`Coverage.subscriberId` is required.", "Coverage.subscriberId", "2100C/NM1/9")
    if find_relationship(coverage) == "18":
        _add_inquiry(mapping, subscriber, name, person, source)
        return
    patient = resolve(coverage.get("beneficiary"), source.resources, coverage)
    dependent = subscriber.open("2000D")
    dependent.add("HL", "", "", "23", "")
    name = dependent.open("2100D")
    name.add(*name_to_nm1("03", patient))
    if not name.segment("NM1").at(3):
        mapping.tell("The patient's name is required.", "Coverage.beneficiary", "2100D/NM1/3")
    _add_inquiry(mapping, dependent, name, patient, source)


def _add_inquiry(mapping: Mapping837, level: Loop, name: Loop, person: Resource, source: EligibilitySource) -> None:
    company = "".join(filter(str.isalnum, mapping.partner.submitter.id.upper()))
    level.add("TRN", "1", clean(source.trace, 50), f"9{company:0>9}"[:10])
    birth = get_day(get_text(person, "birthDate"))
    if birth:
        name.add("DMG", "D8", write_date(birth), _SEXES.get(get_text(person, "gender"), ""))
    name.add("DTP", "291", *_find_dates(source))
    for service_type, procedure in _find_inquiries(source.request):
        inquiry = level.open("2110" + level.id[-1])
        inquiry.add("EQ", service_type, procedure)


def _find_dates(source: EligibilitySource) -> tuple[str, str]:
    """DTP02 and DTP03: `servicedDate` or `servicedPeriod`, else the day told."""
    period = get_object(source.request, "servicedPeriod")
    start = get_day(get_text(source.request, "servicedDate") or get_text(period, "start")) or source.day
    end = get_day(get_text(period, "end")) or start
    if end == start:
        return "D8", write_date(start)
    return "RD8", f"{write_date(start)}-{write_date(end)}"


def _find_inquiries(request: Resource) -> Sequence[tuple[str, tuple[str, ...] | str]]:
    """EQ01 and EQ02 of each item; service type 30 (the plan as a whole) where there is none."""
    inquiries: list[tuple[str, tuple[str, ...] | str]] = []
    for item in get_list(request, "item"):
        procedure = find_code(item.get("productOrService"), *codes.PROCEDURES)
        if procedure:
            modifiers = find_codes(get_list(item, "modifier"))
            inquiries.append(("", ("HC", procedure, *modifiers[:4])))
        elif code := find_code(item.get("category")):
            inquiries.append((clean(code, 2), ""))
    return inquiries[:99] or [("30", "")]
