"""Claim to loop 2300 with its providers: CLM, DTP, AMT, REF, NTE, PWK, HI, 2310 (005010X222A1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from mappers.x12 import codes
from mappers.x12.item_to_2400 import find_lines, item_to_2400
from mappers.x12.loop import Loop
from mappers.x12.parties import (
    Provider,
    facility_to_2310c,
    find_payer,
    find_provider,
    provider_to_name,
    write_date,
)
from mappers.x12.partner import Mapping837
from mappers.x12.resource import (
    Resource,
    find_code,
    find_extension,
    find_identifier,
    find_typed_identifier,
    get_day,
    get_decimal,
    get_list,
    get_object,
    get_text,
    get_texts,
    resolve,
)
from mappers.x12.writer import clean, write_decimal

DIAGNOSES = 12
REPLACING = ("7", "8")
_CONTROL_NUMBER = re.compile(r"[A-Z0-9]{1,17}")
_NOTE = 80
# Members of Claim that say something about it, but for which the 837P or this mapper has no place
_UNSENT = ("procedure", "prescription", "originalPrescription", "payee", "subType")
_CATEGORIES = frozenset({*codes.DATES, "attachment", "patient-paid", "info"})
_LOOPS = {"DN": "2310A", "82": "2310B", "DQ": "2310D"}


def find_control_number(claim: Resource) -> str:
    """The patient control number (CLM01): of our system, else the claim's first identifier."""
    first = next((get_text(each, "value") for each in get_list(claim, "identifier")), "")
    return find_identifier(claim, codes.PATIENT_CONTROL_NUMBER) or first


def claim_to_2300(mapping: Mapping837, focal: Resource, coverage: Resource, billing: Loop) -> Loop:
    """The claim with everything in it but the other payers; `focal` is its entry of `Claim.insurance`."""
    claim, loop = mapping.claim, Loop("2300")
    lines = find_lines(mapping)
    place_of_service = next((line.place_of_service for line in lines), "")
    _add_clm(mapping, loop, coverage, sum((line.charge for line in lines), Decimal(0)), place_of_service)
    _add_dates(claim, loop)
    _add_attachments(mapping, loop)
    _tell_unsent(mapping)
    _add_references(mapping, loop, focal, [line.procedure for line in lines])
    _add_diagnoses(mapping, loop)
    team = find_team(mapping)
    _add_team(mapping, loop, team, billing)
    facility_to_2310c(mapping, loop, billing)
    for number, line in enumerate(lines, 1):
        loop.content.append(item_to_2400(mapping, line, number, place_of_service, team))
    return loop


def find_diagnoses(claim: Resource) -> list[Resource]:
    """The diagnoses by sequence."""
    return sorted(get_list(claim, "diagnosis"), key=lambda each: get_decimal(each, "sequence") or 0)


def choose_assignment(mapping: Mapping837, coverage: Resource) -> str:
    """CLM07: of the claim, its coverage, or the partner's default for the payer; A (assigned) where none says."""
    value = _find_choice(mapping.claim, coverage, codes.ASSIGNMENT)
    _, payer_id = find_payer(mapping.resources, coverage)
    return {"true": "A", "false": "C"}.get(value, value) or mapping.partner.assignments.get(payer_id, "A")


def choose_benefits(mapping: Mapping837, coverage: Resource) -> str:
    """CLM08 and OI03: whether benefits are assigned to the provider."""
    value = _find_choice(mapping.claim, coverage, codes.BENEFITS)
    return {"true": "Y", "false": "N"}.get(value, value) or "Y"


def choose_release(mapping: Mapping837, coverage: Resource) -> str:
    """CLM09 and OI06: whether the patient released the information."""
    return _find_choice(mapping.claim, coverage, codes.RELEASE) or "Y"


def _find_choice(claim: Resource, coverage: Resource, url: str) -> str:
    for element in (claim, coverage):
        value = find_extension(element, url)
        if isinstance(value, bool):
            return "true" if value else "false"
        if value:
            return str(value)
    return ""


def _add_clm(mapping: Mapping837, loop: Loop, coverage: Resource, total: Decimal, place_of_service: str) -> None:
    claim = mapping.claim
    number = find_control_number(claim)
    if not _CONTROL_NUMBER.fullmatch(number):
        sentence = (
            f"The patient control number `{number}` is not 1 to 17 of A–Z and 0–9, which payers return unchanged."
        )
        mapping.tell(sentence, "Claim.identifier", "2300/CLM/1")
    claim_total = get_decimal(get_object(claim, "total"))
    if claim_total is not None and claim_total != total:
        mapping.tell(f"`Claim.total` is {claim_total} but its lines add up to {total}.", "Claim.total", "2300/CLM/2")
    if not place_of_service:
        sentence = "The first line has no place of service."
        mapping.tell(sentence, "Claim.item[0].locationCodeableConcept", "2300/CLM/5")
    accident = get_object(claim, "accident")
    loop.add(
        "CLM",
        number,
        write_decimal(total),
        "",
        "",
        (place_of_service, "B", mapping.source.frequency),
        "Y",
        choose_assignment(mapping, coverage),
        choose_benefits(mapping, coverage),
        choose_release(mapping, coverage),
        str(find_extension(claim, codes.SIGNATURE) or ""),
        _accident_to_clm11(mapping, accident),
        *[""] * 8,
        str(find_extension(claim, codes.DELAY) or ""),
    )
    if day := get_day(get_text(accident, "date")):
        loop.add("DTP", "439", "D8", write_date(day))


def _accident_to_clm11(mapping: Mapping837, accident: Resource) -> tuple[str, ...] | str:
    """The cause, and for a motor accident the state."""
    if not accident:
        return ""
    cause = codes.ACCIDENTS.get(find_code(accident.get("type")), "OA")
    if cause != "AA":
        return (cause,)
    address = get_object(accident, "locationAddress")
    place = resolve(accident.get("locationReference"), mapping.resources, mapping.claim)
    state = clean(get_text(address or get_object(place, "address"), "state"), 2)
    if not state:
        sentence = "A motor vehicle accident needs the state where it happened."
        mapping.tell(sentence, "Claim.accident.locationAddress.state", "2300/CLM/11")
    return (cause, "", "", state)


def iterate_information(claim: Resource, *categories: str) -> Iterator[tuple[str, Resource]]:
    """`Claim.supportingInfo` of these categories, with the category."""
    for info in get_list(claim, "supportingInfo"):
        category = find_code(info.get("category"))
        if category in categories:
            yield category, info


def _add_dates(claim: Resource, loop: Loop) -> None:
    for category, info in iterate_information(claim, *codes.DATES):
        first, *second = codes.DATES[category].split()
        period = get_object(info, "timingPeriod")
        start = get_day(get_text(info, "timingDate") or get_text(period, "start"))
        end = get_day(get_text(period, "end"))
        if category == "employmentimpacted" and start and end:
            loop.add("DTP", "314", "RD8", f"{write_date(start)}-{write_date(end)}")
            continue
        if start:
            loop.add("DTP", first, "D8", write_date(start))
        if end and second:
            loop.add("DTP", second[0], "D8", write_date(end))


def _tell_unsent(mapping: Mapping837) -> None:
    """What the claim says and the file will not."""
    for member in _UNSENT:
        if mapping.claim.get(member):
            mapping.tell(f"`Claim.{member}` is not sent.", f"Claim.{member}", "2300/CLM/1", warning=True)
    for place, info in enumerate(get_list(mapping.claim, "supportingInfo")):
        category = find_code(info.get("category"))
        if category not in _CATEGORIES:
            expression = f"Claim.supportingInfo[{place}]"
            mapping.tell(
                f"`{expression}` of category `{category}` is not sent.", expression, "2300/CLM/1", warning=True
            )


def _add_attachments(mapping: Mapping837, loop: Loop) -> None:
    """PWK, AMT*F5 and NTE from `supportingInfo`."""
    claim = mapping.claim
    for _, info in iterate_information(claim, "attachment"):
        number = clean(get_text(info, "valueString"), 50)
        reference = ("", "", "AC", number) if number else ()
        loop.add("PWK", clean(find_code(info.get("code")), 2) or "OZ", "EL" if number else "AA", *reference)
    paid = [get_decimal(get_object(info, "valueQuantity")) for _, info in iterate_information(claim, "patient-paid")]
    if amount := sum(filter(None, paid), Decimal(0)):
        loop.add("AMT", "F5", write_decimal(amount))
    texts = [clean(get_text(info, "valueString"), 10_000) for _, info in iterate_information(claim, "info")]
    notes = [text for text in texts if text]
    if len(notes) > 1 or any(len(note) > _NOTE for note in notes):
        sentence = f"One note of {_NOTE} characters is sent; the rest is not."
        mapping.tell(sentence, "Claim.supportingInfo", "2300/NTE/2", warning=True)
    if notes:
        loop.add("NTE", "ADD", notes[0][:_NOTE].strip())


def _add_references(mapping: Mapping837, loop: Loop, focal: Resource, procedures: list[str]) -> None:
    claim = mapping.claim
    referral = resolve(claim.get("referral"), mapping.resources, claim)
    of_referral = next((get_text(each, "value") for each in get_list(referral, "identifier")), "")
    patient = resolve(claim.get("patient"), mapping.resources, claim)
    place = resolve(claim.get("facility"), mapping.resources, claim)
    provider = find_provider(mapping, claim.get("provider"), organization_first=True).resource
    laboratory = any(len(code) == 5 and code.isdigit() and code.startswith("8") for code in procedures)
    clia = find_identifier(place, codes.CLIA) or find_identifier(provider, codes.CLIA)
    values = {
        "9F": get_text(get_object(claim, "referral", "identifier"), "value") or of_referral,
        "G1": next(iter(get_texts(focal, "preAuthRef")), ""),
        "F8": find_payer_number(mapping) if mapping.source.frequency in REPLACING else "",
        "X4": clia if laboratory else "",
        "EA": find_typed_identifier(patient, "MR"),
    }
    for qualifier, value in values.items():
        if value:
            loop.add("REF", qualifier, clean(value, 50))
    if mapping.source.frequency in REPLACING and not values["F8"]:
        sentence = "Replacement and void need the payer's number of the claim as it was adjudicated."
        mapping.tell(sentence, "Claim.related.reference", "2300/REF/2")


def find_payer_number(mapping: Mapping837) -> str:
    """The payer's number of the claim to be replaced: as told, of the extension, or of `Claim.related.reference`."""
    claim = mapping.claim
    related = (get_text(get_object(each, "reference"), "value") for each in get_list(claim, "related"))
    number: Any = mapping.source.payer_claim_number or find_extension(claim, codes.ORIGINAL_NUMBER)
    return str(number or next(filter(None, related), ""))


def _add_diagnoses(mapping: Mapping837, loop: Loop) -> None:
    composites = []
    for place, diagnosis in enumerate(find_diagnoses(mapping.claim)):
        condition = resolve(diagnosis.get("diagnosisReference"), mapping.resources, mapping.claim)
        concept = diagnosis.get("diagnosisCodeableConcept") or condition.get("code")
        code = find_code(concept, codes.ICD_10_CM)
        if not code:
            expression = f"Claim.diagnosis[{place}]"
            mapping.tell(f"`{expression}` has no ICD-10-CM code.", expression, "2300/HI/1")
        composites.append(("ABF" if place else "ABK", clean(code.replace(".", ""), 30)))
    if not composites:
        mapping.tell("The claim has no diagnosis; at least one is required.", "Claim.diagnosis", "2300/HI/1")
        return
    if len(composites) > DIAGNOSES:
        sentence = f"The claim has {len(composites)} diagnoses; {DIAGNOSES} are possible. Split it."
        mapping.tell(sentence, "Claim.diagnosis", "2300/HI/12")
    loop.add("HI", *composites[:DIAGNOSES])


def find_team(mapping: Mapping837) -> list[tuple[Decimal, str, Provider]]:
    """`Claim.careTeam` as sequence, NM101 and provider; roles that the 837P has no loop for are told."""
    team = []
    for place, member in enumerate(get_list(mapping.claim, "careTeam")):
        role = find_code(member.get("role")) or "primary"
        if role not in codes.ROLES:
            expression = f"Claim.careTeam[{place}].role"
            mapping.tell(f"`{role}` has no place in an 837P; it is not sent.", expression, "2310B/NM1/1", warning=True)
            continue
        provider = find_provider(mapping, member.get("provider"))
        team.append((get_decimal(member, "sequence") or Decimal(0), codes.ROLES[role], provider))
    return team


def _add_team(mapping: Mapping837, loop: Loop, team: list[tuple[Decimal, str, Provider]], billing: Loop) -> None:
    """One provider of each role for the claim; the rendering one is left out where it is the billing provider."""
    own = billing.loop("2010AA").segment("NM1")
    for entity, loop_id in _LOOPS.items():
        provider = next((provider for _, role, provider in team if role == entity), None)
        if provider is None or (entity == "82" and provider.npi and provider.npi == own.at(9)):
            continue
        provider_to_name(mapping, loop.open(loop_id), entity, provider)
