"""Billable ChargeItems to draft professional Claims (https://hl7.org/fhir/R4/claim.html; 837P loops 2300 and 2400)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from decimal import Decimal

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.charges import (
    Definitions,
    find_definition,
    find_price,
    find_quantity,
    find_reasons,
    index_definitions,
    procedures_to_charge_items,
)
from mappers.billing.claim_numbers import find_key
from mappers.billing.fields import (
    CENT,
    Resource,
    Resources,
    covers,
    derive_id,
    find_code,
    find_extension,
    find_extensions,
    find_reference,
    make_concept,
    make_control_number,
    make_money,
    make_reference,
    resolve,
    sum_amounts,
    to_local_day,
)
from mappers.billing.packing import MAX_DIAGNOSES, Pack, pack_lines

MAX_POINTERS = 4


@dataclass(frozen=True, slots=True)
class AssemblySettings:
    """What a practice sets: its billing provider, place of service where none is said, zone, the clock's instant.

    `billing_provider` may be empty: then charges and encounters name theirs. `taken`: control numbers that other claims
    have, because numbers are unique for ever.
    """

    billing_provider: str
    created: str
    place_of_service: str = "11"
    zone: tzinfo = UTC
    currency: str = "USD"
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Assembly:
    """What `assemble_claims` gives: draft Claims, charges that become `billed`, what cannot be billed."""

    claims: tuple[Resource, ...] = ()
    charge_items: tuple[Resource, ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    charge: Resource
    encounter: Resource | None
    day: date
    reasons: tuple[str, ...]
    price: Decimal
    provider: str
    coverages: tuple[str, ...]
    team: tuple[tuple[str, str], ...]


def make_charges(resources: Resources, entered: str) -> tuple[list[Resource], list[Issue]]:
    """ChargeItems for each Encounter that has Procedures and no ChargeItem of its own, whatever that one's status."""
    everything = list(resources.values())
    definitions = index_definitions(e for e in everything if e["resourceType"] == "ChargeItemDefinition")
    charged = {find_reference(each.get("context")) for each in everything if each["resourceType"] == "ChargeItem"}
    procedures: dict[str, list[Resource]] = {}
    for each in everything:
        if each["resourceType"] == "Procedure":
            procedures.setdefault(find_reference(each.get("encounter")), []).append(each)
    charges, issues = [], []
    for place in sorted(procedures.keys() - charged):
        if place in resources:
            new, more = procedures_to_charge_items(resources[place], procedures[place], definitions, entered)
            charges += new
            issues += more
    return charges, issues


def assemble_claims(charges: Iterable[Resource], resources: Resources, settings: AssemblySettings) -> Assembly:
    """Draft Claims of the billable charges, one per patient, encounter, billing provider and list of coverages.

    `resources` holds what the charges lead to: Patient, Encounter, Coverage, Condition, ChargeItemDefinition, Location.
    Charges that cannot be billed (no coverage, price, date or code) stay `billable` and are issues. The same charges at
    the same versions give the same identifiers, so that two runs meet in one Claim.
    """
    definitions = index_definitions(e for e in resources.values() if e["resourceType"] == "ChargeItemDefinition")
    coverages = coverages_by_patient(resources)
    groups: dict[tuple[object, ...], list[_Line]] = {}
    issues: list[Issue] = []
    for charge in sorted(charges, key=_charge_order):
        if charge.get("status") != "billable":
            continue
        line = _read_charge(charge, resources, definitions, coverages, settings)
        if isinstance(line, Issue):
            issues.append(line)
            continue
        patient, context = find_reference(charge.get("subject")), find_reference(charge.get("context"))
        groups.setdefault((patient, context, line.provider, line.coverages), []).append(line)
        issues += _find_excess(line)
    drafts = [_pack_to_claim(pack, resources, settings) for lines in groups.values() for pack in _pack(lines)]
    return Assembly(
        claims=tuple(claim for claim, _ in drafts),
        charge_items=tuple({**line.charge, "status": "billed"} for _, pack in drafts for line in pack.lines),
        issues=tuple(issues),
    )


def coverages_by_patient(resources: Resources) -> dict[str, list[Resource]]:
    """The active Coverages of each beneficiary by `Coverage.order`, those without one last, then by id."""
    by_patient: dict[str, list[Resource]] = {}
    for each in resources.values():
        if each["resourceType"] == "Coverage" and each.get("status") == "active":
            by_patient.setdefault(find_reference(each.get("beneficiary")), []).append(each)
    for several in by_patient.values():
        several.sort(key=lambda each: (each.get("order", 99), str(each.get("id", ""))))
    return by_patient


def _charge_order(charge: Resource) -> tuple[str, str]:
    return _occurrence(charge), make_reference(charge)


def _occurrence(charge: Resource) -> str:
    period = charge.get("occurrencePeriod") or {}
    return str(charge.get("occurrenceDateTime") or period.get("start", ""))


def _read_charge(
    charge: Resource,
    resources: Resources,
    definitions: Definitions,
    coverages: dict[str, list[Resource]],
    settings: AssemblySettings,
) -> _Line | Issue:
    """One charge with all that its line needs, or the issue that keeps it from being billed."""
    place = make_reference(charge)
    encounter = resolve(charge.get("context"), resources)
    occurrence = _occurrence(charge) or str(((encounter or {}).get("period") or {}).get("start", ""))
    day = to_local_day(occurrence, settings.zone)
    price = find_price(charge, find_definition(charge.get("code"), definitions))
    if not find_code(charge.get("code")):
        return Issue("error", "required", f"`{place}` has no code. Enter its CPT or HCPCS code.", (f"{place}.code",))
    if day is None:
        return Issue("error", "required", f"`{place}` has no date of service. Enter it.", (f"{place}.occurrence",))
    if price is None:
        text = f"`{place}` has no price, and no ChargeItemDefinition gives one. Enter `priceOverride`."
        return Issue("error", "required", text, (f"{place}.priceOverride",))
    provider = _find_provider(charge, encounter, settings)
    if not provider:
        text = f"Nobody bills `{place}`: enter its `performingOrganization`, or set the practice's billing provider."
        return Issue("error", "required", text, (f"{place}.performingOrganization",))
    patient = find_reference(charge.get("subject"))
    in_force = [make_reference(each) for each in coverages.get(patient, ()) if covers(each.get("period"), day)]
    if not in_force:
        text = f"`{patient}` has no coverage in force on {day}, so `{place}` is not billed to a payer. Add one."
        return Issue("warning", "not-found", text, (place,))
    reasons = tuple(find_reasons(charge, encounter, resources))
    team = _find_team(charge, encounter, resources)
    return _Line(charge, encounter, day, reasons, price.quantize(CENT), provider, tuple(in_force), team)


def _find_provider(charge: Resource, encounter: Resource | None, settings: AssemblySettings) -> str:
    """Who bills: the charge's own organization, else the practice's, else the one that the encounter names."""
    own = find_reference(charge.get("performingOrganization"))
    return own or settings.billing_provider or find_reference((encounter or {}).get("serviceProvider"))


def _find_team(charge: Resource, encounter: Resource | None, resources: Resources) -> tuple[tuple[str, str], ...]:
    """(role, reference) of rendering, referring and supervising providers; the charge's own before the encounter's."""
    team: dict[str, str] = {}
    for performer in charge.get("performer", ()):
        team.setdefault(
            codes.ROLES.get(find_code(performer.get("function")), "primary"), find_reference(performer.get("actor"))
        )
    orders = [
        resolve(each, resources) for each in (*charge.get("service", ()), *charge.get("supportingInformation", ()))
    ]
    for order in orders:
        if order and order["resourceType"] == "ServiceRequest" and "requester" in order:
            team.setdefault("referring", find_reference(order["requester"]))
    for participant in (encounter or {}).get("participant", ()):
        kinds = [codes.ROLES[code] for each in participant.get("type", ()) if (code := find_code(each)) in codes.ROLES]
        for role in kinds:
            team.setdefault(role, find_reference(participant.get("individual")))
    return tuple((role, who) for role, who in sorted(team.items()) if who)


def _find_excess(line: _Line) -> list[Issue]:
    """What an 837P cannot carry: a fifth pointer of a line, and a thirteenth diagnosis of one charge."""
    if len(line.reasons) <= MAX_POINTERS:
        return []
    place = make_reference(line.charge)
    text = (
        f"`{place}` has {len(line.reasons)} diagnoses; its line points to the first four. Put the most important first."
    )
    if len(line.reasons) > MAX_DIAGNOSES:
        text += f" The claim has all of them, and is held until somebody leaves {MAX_DIAGNOSES}."
    return [Issue("warning", "too-long", text, (f"{place}.reason",))]


def _pack(lines: Sequence[_Line]) -> list[Pack[_Line]]:
    return pack_lines((line, line.reasons) for line in lines)


def _number_claim(pack: Pack[_Line], taken: frozenset[str]) -> str:
    """The control number that the charges and their versions determine; the next one where another claim has it."""
    first = pack.lines[0]
    versions = [f"{make_reference(e.charge)}/{(e.charge.get('meta') or {}).get('versionId', '')}" for e in pack.lines]
    number = make_control_number(first.provider, *first.coverages, *versions)
    while number in taken:
        number = make_control_number(number)
    return number


def _pack_to_claim(pack: Pack[_Line], resources: Resources, settings: AssemblySettings) -> tuple[Resource, Pack[_Line]]:
    first = pack.lines[0]
    number = _number_claim(pack, settings.taken)
    team = list(dict.fromkeys(member for line in pack.lines for member in line.team))
    claim: Resource = {
        "resourceType": "Claim",
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
        "status": "draft",
        "type": make_concept(codes.CLAIM_TYPE, "professional"),
        "use": "claim",
        "patient": {"reference": find_reference(first.charge.get("subject"))},
        "billablePeriod": {"start": str(min(e.day for e in pack.lines)), "end": str(max(e.day for e in pack.lines))},
        "created": settings.created,
        "provider": {"reference": first.provider},
        "priority": make_concept(codes.PRIORITY, "normal"),
        "careTeam": [_team_member(n, role, who) for n, (role, who) in enumerate(team, 1)],
        "diagnosis": [make_diagnosis(number, code) for number, code in enumerate(pack.diagnoses, 1)],
        "insurance": _make_insurance(first.coverages),
        "item": [_line_to_item(n, line, pack, team, resources, settings) for n, line in enumerate(pack.lines, 1)],
        "total": make_money(sum_amounts(line.price for line in pack.lines), settings.currency),
    }
    payor = (resources[first.coverages[0]].get("payor") or [None])[0]
    optional = {"insurer": payor, "facility": _find_facility(first.encounter)}
    claim |= {key: value for key, value in optional.items() if value}
    return {key: value for key, value in claim.items() if value != []}, pack


def make_diagnosis(sequence: int, code: str) -> Resource:
    """An entry of `Claim.diagnosis`; the first is the principal one (HI*ABK)."""
    return {"sequence": sequence, "diagnosisCodeableConcept": make_concept(codes.ICD_10_CM, code)}


def _team_member(sequence: int, role: str, who: str) -> Resource:
    return {"sequence": sequence, "provider": {"reference": who}, "role": make_concept(codes.CARE_TEAM_ROLE, role)}


def _make_insurance(coverages: Sequence[str]) -> list[Resource]:
    return [
        {"sequence": number, "focal": number == 1, "coverage": {"reference": reference}}
        for number, reference in enumerate(coverages, 1)
    ]


def _find_facility(encounter: Resource | None) -> Resource | None:
    """The encounter's first location as `Claim.facility`."""
    for each in (encounter or {}).get("location", ()):
        if find_reference(each.get("location")):
            return {"reference": find_reference(each["location"])}
    return None


def _find_place_code(line: _Line, resources: Resources, settings: AssemblySettings) -> str:
    """The charge's own, else that of its encounter's location, else the practice's."""
    own = find_code(find_extension(line.charge, codes.PLACE_OF_SERVICE))
    location = resolve(_find_facility(line.encounter), resources)
    kinds = (find_code(each, codes.POS) for each in (location or {}).get("type", ()))
    return own or next((kind for kind in kinds if kind), settings.place_of_service)


def _line_to_item(
    number: int,
    line: _Line,
    pack: Pack[_Line],
    team: Sequence[tuple[str, str]],
    resources: Resources,
    settings: AssemblySettings,
) -> Resource:
    charge = line.charge
    quantity = find_quantity(charge)
    unit = line.price / quantity if quantity else line.price
    item: Resource = {
        "id": make_control_number(make_reference(charge), length=16),
        "extension": [{"url": codes.CHARGE_ITEM, "valueReference": {"reference": make_reference(charge)}}],
        "sequence": number,
        "careTeamSequence": [place for place, member in enumerate(team, 1) if member in line.team],
        "diagnosisSequence": [pack.diagnoses.index(code) + 1 for code in line.reasons[:MAX_POINTERS]],
        "productOrService": charge["code"],
        "modifier": find_extensions(charge, codes.MODIFIER),
        "locationCodeableConcept": make_concept(codes.POS, _find_place_code(line, resources, settings)),
        "quantity": charge.get("quantity") or {"value": 1},
        "net": make_money(line.price, settings.currency),
    }
    item |= _build_serviced_time(charge, line.day, settings.zone)
    if unit == unit.quantize(CENT):
        item["unitPrice"] = make_money(unit, settings.currency)
    if "productCodeableConcept" in charge:
        item["detail"] = [{"sequence": 1, "productOrService": charge["productCodeableConcept"]}]
    if line.encounter is not None:
        item["encounter"] = [{"reference": make_reference(line.encounter)}]
    return {key: value for key, value in item.items() if value != []}


def _build_serviced_time(charge: Resource, first: date, zone: tzinfo) -> Resource:
    """`servicedDate`, or `servicedPeriod` where the charge ends on a later day."""
    last = to_local_day(str((charge.get("occurrencePeriod") or {}).get("end", "")), zone)
    if last is None or last <= first:
        return {"servicedDate": str(first)}
    return {"servicedPeriod": {"start": str(first), "end": str(last)}}


def mark_charges(claim: Resource, charges: Resources) -> tuple[Resource, list[Resource]]:
    """A Claim written by others, with the ChargeItems (`billed`) that its lines lack, one each (at `$transmit`)."""
    items, drafts = [], []
    for item in claim.get("item", ()):
        if find_reference(find_extension(item, codes.CHARGE_ITEM)) in charges:
            items.append(item)
            continue
        charge = _item_to_charge_item(claim, item)
        drafts.append(charge)
        link = {"url": codes.CHARGE_ITEM, "valueReference": {"reference": make_reference(charge)}}
        kept = [each for each in item.get("extension", ()) if each.get("url") != codes.CHARGE_ITEM]
        items.append({**item, "extension": [*kept, link]})
    return {**claim, "item": items}, drafts


def _item_to_charge_item(claim: Resource, item: Resource) -> Resource:
    key = f"{find_key(claim)}:{item.get('id') or item.get('sequence')}"
    serviced = item.get("servicedPeriod")
    charge: Resource = {
        "resourceType": "ChargeItem",
        "id": derive_id("ChargeItem", key),
        "identifier": [{"system": codes.CLAIM_SOURCE, "value": key}],
        "extension": [{"url": codes.MODIFIER, "valueCodeableConcept": each} for each in item.get("modifier", ())],
        "status": "billed",
        "code": item["productOrService"],
        "subject": claim["patient"],
        "quantity": item.get("quantity") or {"value": 1},
        "priceOverride": item.get("net") or make_money(Decimal(0)),
        "enteredDate": claim.get("created", ""),
        "occurrencePeriod" if serviced else "occurrenceDateTime": serviced or item.get("servicedDate", ""),
    }
    return {key: value for key, value in charge.items() if value}
