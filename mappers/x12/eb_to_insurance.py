"""An answer of a 271 to a CoverageEligibilityResponse (005010X279A1 EB; hl7.org/fhir/R4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mappers.x12 import codes
from mappers.x12.eligibility import PERIOD_DATES, Benefit, EligibilityAnswer
from mappers.x12.resource import drop_empty, make_concept, make_money
from mappers.x12.writer import write_decimal

_TYPES = {"A": "copay-percent", "B": "copay", "C": "deductible", "G": "copay-maximum", "F": "benefit"}
"""EB01 to benefit-type; others keep the code of X12."""
_TERMS = {"22": "annual", "23": "annual", "24": "annual", "25": "annual", "29": "annual", "7": "day",
          "32": "lifetime", "33": "lifetime"}  # fmt: skip
_UNITS = {"IND": "individual", "FAM": "family"}
_NETWORKS = {"Y": "in", "N": "out"}
_AUTHORIZATIONS = {"Y": True, "N": False}
REMAINING = "29"
_WHOLE = ("22", "23", "25")

Wholes = Mapping[tuple[str, str, str, str], Decimal]


@dataclass(frozen=True, slots=True)
class EligibilityContext:
    """What the answer was matched to by TRN02, as references, and when the response is made."""

    request: str
    patient: str
    insurer: str
    coverage: str
    created: str


def answer_to_response(answer: EligibilityAnswer, context: EligibilityContext) -> dict[str, Any]:
    """The response for one person; an AAA makes its outcome `error`."""
    insurance: dict[str, Any] = {"coverage": {"reference": context.coverage}}
    if answer.active is not None:
        insurance["inforce"] = answer.active
    insurance |= drop_empty({"benefitPeriod": _find_period(answer), "item": benefits_to_items(answer.benefits)})
    return drop_empty(
        {
            "resourceType": "CoverageEligibilityResponse",
            "status": "active",
            "purpose": ["benefits"],
            "patient": {"reference": context.patient},
            "created": context.created,
            "request": {"reference": context.request},
            "outcome": "error" if answer.rejections else "complete",
            "disposition": f"{len(answer.benefits)} benefits" if answer.benefits else "",
            "insurer": {"reference": context.insurer},
            "insurance": [insurance],
            "error": [{"code": _rejection_to_concept(*rejection)} for rejection in answer.rejections],
        }
    )


def _rejection_to_concept(loop: str, reason: str, follow_up: str) -> dict[str, Any]:
    text = f"Rejected in loop {loop or '(none)'}"
    return make_concept(codes.REJECT_REASON, reason, text + (f"; follow-up action {follow_up}" if follow_up else ""))


def _find_period(answer: EligibilityAnswer) -> dict[str, str]:
    """Of DTP*346 to 349, 291 or 307, a begin and an end standing apart included."""
    start = next((str(days[0]) for key in PERIOD_DATES if (days := answer.dates.get(key)) and days[0]), "")
    ends = [(answer.dates.get(key) or (None, None)) for key in ("347", "349")]
    end = next((str(days[0]) for days in ends if days[0]), "")
    ranges = [days for days in answer.dates.values() if days[0] != days[1]]
    end = end or next((str(days[1]) for days in ranges if days[1]), "")
    return drop_empty({"start": start, "end": end})


def benefits_to_items(benefits: Sequence[Benefit]) -> list[dict[str, Any]]:
    """An item for each service type of each EB; one that says only whether the plan is in force has an item too.

    Each has a category or a product, never both and never none (ces-1); an EB without either is about the whole plan.
    """
    wholes = _index_wholes(benefits)
    return [
        _benefit_to_item(benefit, service_type, wholes)
        for benefit in benefits
        for service_type in benefit.service_types or ("",)
    ]


def _benefit_to_item(benefit: Benefit, service_type: str, wholes: Wholes) -> dict[str, Any]:
    procedure = benefit.procedure
    code = procedure[1] if len(procedure) > 1 else ""
    primary = next((entity for kind, entity in benefit.entities if kind == "P3"), None)
    provider = drop_empty({"display": " ".join(filter(None, (primary.given, primary.name)))}) if primary else {}
    if primary and primary.id and primary.qualifier == "XX":
        provider["identifier"] = {"system": codes.NPI, "value": primary.id}
    item = drop_empty(
        {
            "category": {} if code else make_concept(codes.SERVICE_TYPE, service_type or codes.WHOLE_PLAN),
            "productOrService": make_concept(codes.CPT if code[:1].isdigit() else codes.HCPCS[0], code) if code else {},
            "modifier": [make_concept(codes.CPT, each) for each in procedure[2:6] if each],
            "provider": provider,
            "name": benefit.plan,
            "description": _describe(benefit, service_type if code else ""),
            "network": _to_concept(codes.BENEFIT_NETWORK, _NETWORKS.get(benefit.network, "")),
            "unit": _unit(benefit.level),
            "term": _term(benefit.period),
            "benefit": [_make_benefit(benefit, service_type, wholes)],
        }
    )
    if benefit.code == "I":
        item["excluded"] = True
    if benefit.authorization in _AUTHORIZATIONS:
        item["authorizationRequired"] = _AUTHORIZATIONS[benefit.authorization]
    return item


def _to_concept(system: str, code: str) -> dict[str, Any]:
    return make_concept(system, code) if code else {}


def _unit(level: str) -> dict[str, Any]:
    if level in _UNITS:
        return make_concept(codes.BENEFIT_UNIT, _UNITS[level])
    return _to_concept(f"{codes.X12}/coverage-level-codes", level)


def _term(period: str) -> dict[str, Any]:
    if period in _TERMS:
        return make_concept(codes.BENEFIT_TERM, _TERMS[period])
    return _to_concept(f"{codes.X12}/time-period-qualifiers", period)


def _describe(benefit: Benefit, service_type: str) -> str:
    """The payer's messages and what has no element of its own: insurance type, references, other entities, delivery.

    `service_type`: that of a benefit for a product.
    """
    texts = [*benefit.messages]
    texts += [f"service type {service_type}"] if service_type else []
    texts += [f"insurance type {benefit.insurance_type}"] if benefit.insurance_type else []
    texts += [f"reference {kind} {value}" for kind, value in benefit.references.items()]
    texts += [f"{kind} {entity.name} {entity.id}".strip() for kind, entity in benefit.entities if kind != "P3"]
    texts += [f"delivery {each}" for each in benefit.delivery]
    texts += [f"date {kind} {days[0]}" for kind, days in benefit.dates.items() if days[0]]
    return "; ".join(texts)


def _make_benefit(benefit: Benefit, service_type: str, wholes: Wholes) -> dict[str, Any]:
    """Type with the code of X12 beside FHIR's; money, percent or count. What remains also says what is used."""
    coding = [{"system": codes.BENEFIT_TYPE, "code": _TYPES[benefit.code]}] if benefit.code in _TYPES else []
    entry: dict[str, Any] = {"type": {"coding": [*coding, {"system": codes.BENEFIT_INFORMATION, "code": benefit.code}]}}
    if benefit.amount is not None:
        whole = _find_whole(benefit, service_type, wholes) if benefit.period == REMAINING else None
        entry["allowedMoney"] = make_money(benefit.amount if whole is None else whole)
        if whole is not None:
            entry["usedMoney"] = make_money(whole - benefit.amount)
        elif benefit.period == REMAINING:
            entry["type"]["text"] = "remaining"
    elif benefit.percent is not None:
        entry["allowedString"] = f"{write_decimal(benefit.percent * 100)}%"
    elif benefit.quantity is not None:
        entry |= _count(benefit.quantity)
        if benefit.quantity_kind:
            entry["type"]["text"] = benefit.quantity_kind
    return entry


def _count(quantity: Decimal) -> dict[str, Any]:
    if quantity == quantity.to_integral_value() and 0 <= quantity < 2**31:
        return {"allowedUnsignedInt": int(quantity)}
    return {"allowedString": write_decimal(quantity)}


def _index_wholes(benefits: Sequence[Benefit]) -> Wholes:
    """Amounts for a whole period by code, level, network and service type; the first of each."""
    wholes: dict[tuple[str, str, str, str], Decimal] = {}
    for each in benefits:
        if each.period in _WHOLE and each.amount is not None:
            for service_type in each.service_types or ("",):
                wholes.setdefault((each.code, each.level, each.network, service_type), each.amount)
    return wholes


def _find_whole(remaining: Benefit, service_type: str, wholes: Wholes) -> Decimal | None:
    """The amount that what remains is a part of."""
    whole = wholes.get((remaining.code, remaining.level, remaining.network, service_type))
    return whole if whole is not None and remaining.amount is not None and whole >= remaining.amount else None
