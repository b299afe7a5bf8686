"""What is to be billed: a price list, two visits to assemble, two claims with faults to mend.

Procedure codes stand bare, without the descriptors that are licensed.
"""

from __future__ import annotations

from decimal import Decimal

from mappers.billing import codes
from scripts.sample_clinic.build import CLINIC, Resource, concept, money, reference, resource
from scripts.sample_clinic.people import COVERED, patient
from scripts.sample_clinic.visits import ENCOUNTERS, encounter, practitioner

PRICES = {"99213": "95.00", "99214": "165.00", "96127": "12.50", "93000": "38.00", "87880": "22.75"}

# Charges that the front desk entered: id → (encounter, code, units).
ENTERED = {"sophie-visit": ("sophie-anxiety", "99214", 1), "sophie-questionnaire": ("sophie-anxiety", "96127", 2)}
# What was done at a visit that has no charges yet: id → (encounter, code).
DONE = {"omar-check": ("omar-november", "99213"), "omar-ecg": ("omar-november", "93000")}
# Claims that were typed by hand: id → (patient, practitioner, day, diagnosis, codes, total).
TYPED = {
    # The second line points to no diagnosis, and two digits of the total were swapped.
    "hannah-typed": ("hannah-weiss", "pr", "2026-11-12", "J02.0", ["99213", "87880"], "171.75"),
    # The diagnosis has a letter O for a zero, and the place of service was forgotten.
    "linh-typed": ("linh-tran", "pr", "2026-11-16", "EO3.9", ["99213"], "95.00"),
}


def resources() -> list[Resource]:
    """Prices, charges, Procedures, claims."""
    return [
        *(_price(code) for code in PRICES),
        *(_charge(id, *row) for id, row in ENTERED.items()),
        *(_procedure(id, *row) for id, row in DONE.items()),
        *(_claim(number, id) for number, id in enumerate(TYPED, 1)),
    ]


def _price(code: str) -> Resource:
    return resource(
        "ChargeItemDefinition",
        f"price-{code}",
        url=f"{CLINIC}/charges/{code}",
        status="active",
        code=concept(codes.CPT, code),
        propertyGroup=[{"priceComponent": [{"type": "base", "amount": money(Decimal(PRICES[code]))}]}],
    )


def _charge(id: str, visit: str, code: str, units: int) -> Resource:
    who, doctor, day, *_ = ENCOUNTERS[visit]
    return resource(
        "ChargeItem",
        id,
        definitionCanonical=[f"{CLINIC}/charges/{code}"],
        status="billable",
        code=concept(codes.CPT, code),
        subject=patient(who),
        context=encounter(visit),
        occurrenceDateTime=day,
        performer=[{"actor": practitioner(doctor)}],
        quantity={"value": units},
        enteredDate=day,
    )


def _procedure(id: str, visit: str, code: str) -> Resource:
    who, doctor, day, *_, conditions = ENCOUNTERS[visit]
    return resource(
        "Procedure",
        id,
        status="completed",
        code=concept(codes.CPT, code),
        subject=patient(who),
        encounter=encounter(visit),
        performedDateTime=day,
        performer=[{"actor": practitioner(doctor)}],
        reasonReference=[reference(f"Condition/{condition}") for condition in conditions],
    )


def _claim(number: int, id: str) -> Resource:
    who, doctor, day, diagnosis, services, total = TYPED[id]
    payer = COVERED[who][0]
    return resource(
        "Claim",
        id,
        identifier=[{"system": codes.PATIENT_CONTROL_NUMBER, "value": f"RB2026{number:05}"}],
        status="draft",
        type=concept("claim-type", "professional"),
        use="claim",
        patient=patient(who),
        billablePeriod={"start": day, "end": day},
        created=day,
        insurer=reference(f"Organization/{payer}"),
        provider=reference("Organization/riverbend"),
        priority=concept("processpriority", "normal"),
        careTeam=[{"sequence": 1, "provider": practitioner(doctor), "role": concept("claimcareteamrole", "primary")}],
        diagnosis=[{"sequence": 1, "diagnosisCodeableConcept": concept("icd10", diagnosis)}],
        insurance=[{"sequence": 1, "focal": True, "coverage": reference(f"Coverage/{who}-coverage")}],
        item=[_line(id, place, code, day) for place, code in enumerate(services, 1)],
        total=money(Decimal(total)),
    )


def _line(claim: str, place: int, code: str, day: str) -> Resource:
    """A line; the faults are those that TYPED tells."""
    price = money(Decimal(PRICES[code]))
    line: Resource = {"id": f"{claim}-{place}", "sequence": place, "careTeamSequence": [1]}
    if place == 1:
        line["diagnosisSequence"] = [1]
    line |= {"productOrService": concept(codes.CPT, code), "servicedDate": day}
    if claim != "linh-typed":
        line["locationCodeableConcept"] = concept(codes.POS, "11")
    return {**line, "quantity": {"value": 1}, "unitPrice": price, "net": price}
