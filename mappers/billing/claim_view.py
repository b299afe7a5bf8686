"""A claim with all that its references lead to, read once for the scrub and split rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.charges import find_quantity
from mappers.billing.code_sets import CodeSets
from mappers.billing.fields import (
    Resource,
    Resources,
    find_code,
    find_codings,
    find_identifier,
    find_modifiers,
    find_procedure,
    find_reference,
    find_serviced_days,
    resolve,
    to_amount,
)
from mappers.billing.payer_settings import NO_SETTINGS, PayerSettings, SiteSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a claim is judged with: the day, the site's settings and code sets, and other claims of the patient."""

    today: date
    site: SiteSettings = field(default_factory=SiteSettings)
    code_sets: CodeSets = field(default_factory=CodeSets)
    history: Sequence[Resource] = ()


@dataclass(frozen=True, slots=True)
class LineView:
    """One line of a claim; `index` is its place in `Claim.item`, `rendering` a reference."""

    index: int
    item: Resource
    code: str
    modifiers: tuple[str, ...]
    first: date | None
    last: date | None
    units: Decimal
    charge: Decimal
    place: str
    rendering: str


@dataclass(frozen=True, slots=True)
class InsuranceView:
    """One entry of `Claim.insurance` with its Coverage and payer."""

    index: int
    element: Resource
    sequence: int
    coverage: Resource
    payer: Resource
    payer_id: str


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim's parts; what could not be resolved is an empty dictionary. `focal` is None without a focal insurance."""

    claim: Resource
    resources: Resources
    around: Surroundings
    settings: PayerSettings
    patient: Resource
    subscriber: Resource
    provider: Resource
    facility: Resource
    insurance: tuple[InsuranceView, ...]
    focal: InsuranceView | None
    lines: tuple[LineView, ...]
    diagnoses: tuple[tuple[int, str], ...]
    team: tuple[tuple[int, str, Resource], ...]


def view_claim(claim: Resource, resources: Resources, around: Surroundings) -> ClaimView:
    """The parts of a claim, whatever it lacks."""
    insurance = tuple(_view_insurance(n, each, claim, resources) for n, each in enumerate(claim.get("insurance", ())))
    focal = next((each for each in insurance if each.element.get("focal")), None)
    coverage = focal.coverage if focal else {}
    patient = resolve(claim.get("patient"), resources, claim) or {}
    own = find_code(coverage.get("relationship")) == "self"
    subscriber = resolve(coverage.get("subscriber"), resources, coverage) or (patient if own else {})
    members = tuple(claim.get("careTeam", ()))
    return ClaimView(
        claim=claim,
        resources=resources,
        around=around,
        settings=around.site.payers.get(focal.payer_id, NO_SETTINGS) if focal else NO_SETTINGS,
        patient=patient,
        subscriber=subscriber,
        provider=resolve_provider(claim.get("provider"), resources, claim),
        facility=resolve(claim.get("facility"), resources, claim) or {},
        insurance=insurance,
        focal=focal,
        lines=tuple(view_line(n, item, members) for n, item in enumerate(claim.get("item", ()))),
        diagnoses=tuple(
            (each.get("sequence", 0), find_diagnosis(each, resources)) for each in claim.get("diagnosis", ())
        ),
        team=tuple(
            (n, find_code(e.get("role")), resolve_provider(e.get("provider"), resources, claim))
            for n, e in enumerate(members)
        ),
    )


def view_line(index: int, item: Resource, members: Sequence[Resource] = ()) -> LineView:
    """One line; its rendering provider is the `primary` care team member it points to, else the only one."""
    pointers = set(item.get("careTeamSequence", ()))
    primary = [each for each in members if find_code(each.get("role")) in ("primary", "")]
    members_of_line = [each for each in primary if each.get("sequence") in pointers] or (
        primary if len(primary) == 1 else []
    )
    first, last = find_serviced_days(item)
    return LineView(
        index=index,
        item=item,
        code=find_procedure(item),
        modifiers=find_modifiers(item),
        first=first,
        last=last,
        units=find_quantity(item),
        charge=to_amount(item.get("net")),
        place=find_code(item.get("locationCodeableConcept"), codes.POS),
        rendering=find_reference(members_of_line[0].get("provider")) if members_of_line else "",
    )


def _view_insurance(index: int, element: Resource, claim: Resource, resources: Resources) -> InsuranceView:
    coverage = resolve(element.get("coverage"), resources, claim) or {}
    payer = resolve((coverage.get("payor") or [None])[0], resources, coverage) or {}
    payer_id = find_identifier(payer, codes.PAYER_ID)
    return InsuranceView(index, element, element.get("sequence", 0), coverage, payer, payer_id)


def resolve_provider(reference: object, resources: Resources, claim: Resource) -> Resource:
    """A provider; a PractitionerRole is its practitioner with the role's specialty as qualification."""
    party = resolve(reference, resources, claim) or {}
    if party.get("resourceType") != "PractitionerRole":
        return party
    inner = (
        resolve(party.get("practitioner"), resources, claim)
        or resolve(party.get("organization"), resources, claim)
        or {}
    )
    return {**inner, "specialty": party.get("specialty", [])} if inner else {}


def find_diagnosis(entry: Resource, resources: Resources) -> str:
    """The ICD-10-CM code of an entry of `Claim.diagnosis`, without its dot."""
    concept = entry.get("diagnosisCodeableConcept") or (resolve(entry.get("diagnosisReference"), resources) or {}).get(
        "code"
    )
    return find_code(concept, codes.ICD_10_CM).replace(".", "").upper()


def find_taxonomy(provider: Resource) -> str:
    """The NUCC code of a provider: specialty of its role, type of an Organization, or qualification."""
    concepts = [*provider.get("specialty", ()), *provider.get("type", ())]
    concepts += [each.get("code") for each in provider.get("qualification", ())]
    party = (find_code(each, codes.TAXONOMY) for each in concepts if find_codings(each))
    return next((code for code in party if code), "")
