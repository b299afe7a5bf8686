"""Claims for the visits and what the payers answered. Every amount follows from the tables here:

net = unit price × quantity; eligible = the payer's price × quantity; eligible = copay + deductible + benefit.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from scripts.sample_clinic.build import Resource, concept, identifier, money, reference, resource
from scripts.sample_clinic.people import COVERED, patient
from scripts.sample_clinic.visits import ENCOUNTERS, encounter, practitioner


class Charge(NamedTuple):
    """What the practice asks for a service, and the share of it that each payer accepts as price."""

    text: str
    price: Decimal
    accepted: dict[str, Decimal]


def _charge(text: str, price: str, mutual: str, senior: str) -> Charge:
    return Charge(text, Decimal(price), {"meadow-mutual": Decimal(mutual), "state-senior-plan": Decimal(senior)})


CHARGES = {
    "visit-short": _charge("Office visit, up to 20 minutes", "95.00", "82.40", "71.15"),
    "visit-long": _charge("Office visit, up to 40 minutes", "165.00", "138.00", "119.80"),
    "wellness": _charge("Wellness visit", "180.00", "180.00", "150.00"),
    "therapy-15": _charge("Physical therapy, 15 minutes", "42.50", "36.00", "31.25"),
    "lab-a1c": _charge("Hemoglobin A1c", "32.50", "18.75", "13.32"),
    "lab-lipids": _charge("Lipid panel", "48.00", "26.10", "18.36"),
    "lab-tsh": _charge("Thyrotropin", "41.25", "30.05", "23.01"),
    "strep-test": _charge("Rapid strep test", "22.75", "16.53", "15.00"),
    "vaccine": _charge("Vaccine", "74.00", "68.20", "61.90"),
    "vaccine-given": _charge("Giving a vaccine", "25.00", "21.00", "19.40"),
}


class Billed(NamedTuple):
    """A claim: (charge, quantity) pairs, and the answer: copay and deductible; None is no answer yet."""

    items: list[tuple[str, int]]
    answer: tuple[str, str] | None
    denied: bool = False


# By encounter. A wellness visit costs the patient nothing; the deductible is used up by the first claims of a year.
CLAIMS = {
    "amina-annual": Billed([("wellness", 1), ("lab-lipids", 1)], ("0.00", "0.00")),
    "mateo-may": Billed([("visit-long", 1), ("lab-a1c", 1), ("vaccine", 1), ("vaccine-given", 1)], ("0.00", "60.00")),
    "zuri-checkup": Billed([("wellness", 1), ("vaccine", 2), ("vaccine-given", 2)], ("0.00", "0.00")),
    "linh-thyroid": Billed([("visit-long", 1), ("lab-tsh", 1)], ("25.00", "50.00")),
    "lucia-knee": Billed([("visit-long", 1)], ("0.00", "119.80")),
    "lucia-therapy": Billed([("therapy-15", 3)], ("10.00", "0.00")),
    "george-september": Billed([("visit-long", 1)], ("10.00", "0.00")),
    "chidi-asthma": Billed([("visit-long", 1), ("vaccine", 1), ("vaccine-given", 1)], ("25.00", "0.00")),
    "hannah-throat": Billed([("visit-short", 1), ("strep-test", 1)], ("0.00", "0.00"), denied=True),
    "omar-pressure": Billed([("visit-long", 1)], ("25.00", "113.00")),
    "mateo-november": Billed([("visit-long", 1), ("lab-a1c", 1)], ("10.00", "0.00")),
    "amina-november": Billed([("visit-short", 1), ("vaccine", 1), ("vaccine-given", 1)], None),
}
ZERO = Decimal("0.00")


def resources() -> list[Resource]:
    """Claims, then explanations of benefit."""
    return [*(_claim(id) for id in CLAIMS), *(_explanation(id) for id, billed in CLAIMS.items() if billed.answer)]


def _claim(visit: str) -> Resource:
    who, doctor, date, _, _, _, conditions = ENCOUNTERS[visit]
    items = [_item(visit, sequence, *pair) for sequence, pair in enumerate(CLAIMS[visit].items, 1)]
    return resource(
        "Claim",
        visit,
        identifier=[identifier("claims", f"C-{date}-{visit}")],
        status="active",
        type=concept("claim-type", "professional"),
        use="claim",
        patient=patient(who),
        billablePeriod={"start": date, "end": date},
        created=date,
        insurer=_insurer(who),
        provider=reference("Organization/riverbend"),
        priority=concept("processpriority", "normal"),
        careTeam=[{"sequence": 1, "provider": practitioner(doctor)}],
        diagnosis=_diagnosis(conditions),
        insurance=[{"sequence": 1, "focal": True, "coverage": _coverage(who)}],
        item=items,
        total=money(sum((item["net"]["value"] for item in items), ZERO)),
    )


def _item(visit: str, sequence: int, code: str, count: int) -> Resource:
    charge = CHARGES[code]
    return {
        "sequence": sequence,
        "careTeamSequence": [1],
        **({"diagnosisSequence": [1]} if ENCOUNTERS[visit][6] else {}),
        "productOrService": concept("charge", code, charge.text),
        "servicedDate": ENCOUNTERS[visit][2],
        "quantity": {"value": count},
        "unitPrice": money(charge.price),
        "net": money(charge.price * count),
        "encounter": [encounter(visit)],
    }


def _explanation(visit: str) -> Resource:
    who, _, date, _, _, _, conditions = ENCOUNTERS[visit]
    billed = CLAIMS[visit]
    shares = _shares(visit)
    items = [
        _item(visit, sequence, *pair) | {"adjudication": _amounts(share)}
        for sequence, (pair, share) in enumerate(zip(billed.items, shares, strict=True), 1)
    ]
    totals = {category: sum((share[category] for share in shares), ZERO) for category in shares[0]}
    answered = f"{date[:8]}28"
    return resource(
        "ExplanationOfBenefit",
        visit,
        identifier=[identifier("remittances", f"R-{date}-{visit}")],
        status="active",
        type=concept("claim-type", "professional"),
        use="claim",
        patient=patient(who),
        billablePeriod={"start": date, "end": date},
        created=answered,
        insurer=_insurer(who),
        provider=reference("Organization/riverbend"),
        claim=reference(f"Claim/{visit}"),
        outcome="complete",
        disposition="Denied: the coverage was not verified on the day." if billed.denied else "Settled.",
        diagnosis=_diagnosis(conditions),
        insurance=[{"focal": True, "coverage": _coverage(who)}],
        item=items,
        total=_amounts(totals),
        payment={"date": answered, "amount": money(totals["benefit"])} if totals["benefit"] else None,
    )


def _shares(visit: str) -> list[dict[str, Decimal]]:
    """Per item, who bears what; copay and deductible are taken from the items in order, as far as each goes."""
    billed, payer = CLAIMS[visit], COVERED[ENCOUNTERS[visit][0]][0]
    copay, deductible = (Decimal(amount) for amount in billed.answer or ("0", "0"))
    shares = []
    for code, count in billed.items:
        eligible = ZERO if billed.denied else CHARGES[code].accepted[payer] * count
        own_copay = min(copay, eligible)
        own_deductible = min(deductible, eligible - own_copay)
        copay, deductible = copay - own_copay, deductible - own_deductible
        shares.append(
            {
                "submitted": CHARGES[code].price * count,
                "eligible": eligible,
                "copay": own_copay,
                "deductible": own_deductible,
                "benefit": eligible - own_copay - own_deductible,
            }
        )
    return shares


def _amounts(share: dict[str, Decimal]) -> list[Resource]:
    return [
        {"category": concept("adjudication", category), "amount": money(value)} for category, value in share.items()
    ]


def _diagnosis(conditions: list[str]) -> list[Resource] | None:
    diagnoses = [
        {"sequence": sequence, "diagnosisReference": reference(f"Condition/{condition}")}
        for sequence, condition in enumerate(conditions, 1)
    ]
    return diagnoses or None


def _coverage(who: str) -> Resource:
    return reference(f"Coverage/{who}-coverage")


def _insurer(who: str) -> Resource:
    return reference(f"Organization/{COVERED[who][0]}")
