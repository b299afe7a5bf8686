"""Every scrub rule: a claim that passes, one that fails; no false alarm on 500 random valid claims."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappers.billing import codes
from mappers.billing.claim_view import Surroundings
from mappers.billing.code_sets import CodeSets, SortedRows
from mappers.billing.parties import is_npi
from mappers.billing.payer_settings import SiteSettings
from mappers.billing.scrub import CHECKS, RULES, find_unknown_rules, findings_to_outcome, has_errors, scrub_claim
from mappers.billing.scrub_coverage import MEDICARE_TYPE
from mappers.billing.scrub_prior import ADJUDICATION_DATE
from tests.mappers.billing.valid_claims import TODAY, make_claims, make_npi

Resource = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]

ALWAYS = ("2000-01-01", "9999-12-31")
CODE_SETS = CodeSets(
    icd_10_cm=SortedRows(
        [
            ("E119", "1", *ALWAYS),
            ("I10", "1", *ALWAYS),
            ("E11", "0", *ALWAYS),
            ("W19XXXA", "1", *ALWAYS),
            ("O80", "1", *ALWAYS),
            ("P599", "1", *ALWAYS),
            ("Z992", "1", "2000-01-01", "2020-09-30"),
        ]
    ),
    hcpcs=SortedRows(
        [
            ("J1885", "1", *ALWAYS),
            ("J3490", "1", *ALWAYS),
            ("RT", "1", *ALWAYS),
            ("LT", "1", *ALWAYS),
            ("G0008", "1", *ALWAYS),
            ("G9999", "1", "2000-01-01", "2019-12-31"),
        ]
    ),
    ptp=SortedRows(
        [
            ("93000+94010", "0", *ALWAYS),
            ("93000+97110", "1", *ALWAYS),
            ("93000+96372", "9", *ALWAYS),
            ("93000+90686", "0", "2000-01-01", "2019-12-31"),
        ]
    ),
    mue=SortedRows([("93000", "1", "1", *ALWAYS), ("94010", "2", "2", *ALWAYS), ("97110", "4", "3", *ALWAYS)]),
)
SITE = SiteSettings.model_validate(
    {
        "payers": {
            "90001": {
                "payer_id": "90001",
                "member_id_pattern": "M[0-9]{9}",
                "filing_days": 90,
                "prior_authorization": ["2061"],
                "referral": ["9401"],
                "ordering": ["97"],
            }
        }
    }
)
AROUND = Surroundings(today=TODAY, site=SITE, code_sets=CODE_SETS)


def concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def money(text: str) -> Resource:
    return {"value": Decimal(text), "currency": "USD"}


def address(line: str = "1 MAIN ST") -> Resource:
    return {"line": [line], "city": "BOSTON", "state": "MA", "postalCode": "021081234"}


def line(number: int, code: str, *modifiers: str, units: int = 1, price: str = "100.00") -> Resource:
    item: Resource = {
        "id": f"L{number}",
        "sequence": number,
        "careTeamSequence": [1],
        "diagnosisSequence": [1],
        "productOrService": concept(codes.HCPCS if code[0].isalpha() else codes.CPT, code),
        "servicedDate": "2026-11-02",
        "locationCodeableConcept": concept(codes.POS, "11"),
        "quantity": {"value": units},
        "net": money(str(Decimal(price) * units)),
    }
    if modifiers:
        item["modifier"] = [concept("", each) for each in modifiers]
    return item


class Case:
    """A valid claim of one line, with everything that it refers to, for a test to spoil."""

    def __init__(self) -> None:
        npi = [{"system": codes.NPI, "value": "1700000007"}]
        taxonomy = concept(codes.TAXONOMY, "207Q00000X")
        self.claim: Resource = {
            "resourceType": "Claim",
            "id": "c1",
            "status": "draft",
            "use": "claim",
            "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": "PCN1"}],
            "type": concept(codes.CLAIM_TYPE, "professional"),
            "patient": {"reference": "Patient/ada"},
            "provider": {"reference": "Organization/us"},
            "careTeam": [
                {"sequence": 1, "provider": {"reference": "Practitioner/pine"}, "role": concept("", "primary")}
            ],
            "diagnosis": [{"sequence": 1, "diagnosisCodeableConcept": concept(codes.ICD_10_CM, "E11.9")}],
            "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": "Coverage/one"}}],
            "item": [line(1, "99213")],
            "total": money("100.00"),
        }
        self.patient: Resource = {
            "resourceType": "Patient",
            "gender": "female",
            "birthDate": "1980-01-02",
            "address": [address()],
            "name": [{"family": "QUILL", "given": ["ADA"]}],
        }
        self.coverage: Resource = {
            "resourceType": "Coverage",
            "status": "active",
            "subscriberId": "M123456789",
            "period": {"start": "2026-01-01"},
            "beneficiary": {"reference": "Patient/ada"},
            "payor": [{"reference": "Organization/payer"}],
            "relationship": concept("", "self"),
            "type": concept("", "5"),
        }
        self.provider: Resource = {
            "resourceType": "Organization",
            "name": "RIVERBEND",
            "type": [taxonomy],
            "address": [address()],
            "identifier": [
                *npi,
                {"system": codes.EIN[0], "value": "12-3456789"},
                {"system": codes.CLIA, "value": "11D1234567"},
            ],
        }
        self.practitioner: Resource = {
            "resourceType": "Practitioner",
            "identifier": [{"system": codes.NPI, "value": "1700000015"}],
            "name": [{"family": "PINE", "given": ["PAT"]}],
        }
        self.payer: Resource = {
            "resourceType": "Organization",
            "name": "PLAN ONE",
            "identifier": [{"system": codes.PAYER_ID, "value": "90001"}],
        }
        self.facility: Resource = {"resourceType": "Location", "name": "NORTH", "address": address("2 ELM ST")}
        self.other_coverage: Resource = {**self.coverage, "payor": [{"reference": "Organization/payer2"}]}
        self.other_payer: Resource = {
            **self.payer,
            "name": "PLAN TWO",
            "identifier": [{"system": codes.PAYER_ID, "value": "90002"}],
        }
        self.subscriber: Resource = copy.deepcopy(self.patient)
        self.response: Resource = prior(Decimal("60.00"), [("CO", "45", "30.00"), ("PR", "2", "10.00")])
        self.history: list[Resource] = []

    @property
    def item(self) -> Resource:
        item: Resource = self.claim["item"][0]
        return item

    def lines(self, *items: Resource) -> None:
        self.claim["item"] = list(items)
        self.claim["total"] = money(str(sum((item["net"]["value"] for item in items), Decimal("0.00"))))

    def secondary(self) -> None:
        """The claim goes to the second payer, after the first."""
        first = {
            "sequence": 1,
            "focal": False,
            "coverage": {"reference": "Coverage/one"},
            "claimResponse": {"reference": "ClaimResponse/one"},
        }
        self.claim["insurance"] = [first, {"sequence": 2, "focal": True, "coverage": {"reference": "Coverage/two"}}]

    def rules(self) -> set[str]:
        resources = {
            "Patient/ada": self.patient,
            "Coverage/one": self.coverage,
            "Organization/us": self.provider,
            "Practitioner/pine": self.practitioner,
            "Organization/payer": self.payer,
            "Location/north": self.facility,
            "Coverage/two": self.other_coverage,
            "Organization/payer2": self.other_payer,
            "Patient/bo": self.subscriber,
            "ClaimResponse/one": self.response,
        }
        around = Surroundings(today=TODAY, site=SITE, code_sets=CODE_SETS, history=self.history)
        return {finding.rule for finding in scrub_claim(self.claim, resources, around)}


def prior(paid: Decimal, adjustments: list[tuple[str, str, str]], lines: bool = True) -> Resource:
    entries: list[Resource] = [{"category": concept(codes.ADJUDICATION, "benefit"), "amount": {"value": paid}}]
    cas = [
        {"category": concept(codes.GROUP, g), "reason": concept(codes.CARC, r), "amount": money(a)}
        for g, r, a in adjustments
    ]
    head: Resource = {
        "resourceType": "ClaimResponse",
        "payment": {"amount": {"value": paid}, "date": "2026-11-10"},
        "identifier": [{"system": codes.PAYER_CONTROL_NUMBER, "value": "ICN1"}],
    }
    return (
        {**head, "item": [{"itemSequence": 1, "adjudication": entries + cas}]}
        if lines
        else {**head, "adjudication": cas}
    )


def set_at(target: str, path: str, value: object) -> Callable[[Case], None]:
    """A fault: the value at a dotted path of one part; None removes it."""

    def spoil(case: Case) -> None:
        place: Any = getattr(case, target)
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return spoil


def do(*steps: Callable[[Case], object]) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        for step in steps:
            step(case)

    return spoil


def lines(*items: Resource) -> Callable[[Case], None]:
    return lambda case: case.lines(*items)


def diagnoses(*icd: str) -> Callable[[Case], None]:
    entries = [
        {"sequence": n, "diagnosisCodeableConcept": concept(codes.ICD_10_CM, code)} for n, code in enumerate(icd, 1)
    ]
    return set_at("claim", "diagnosis", entries)


def member(role: str, npi: str | None = None, name: str | None = "PINE") -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        inner = {
            "resourceType": "Practitioner",
            "id": "x",
            "name": [{"family": name, "given": ["PAT"]}] if name else [],
        }
        if npi:
            inner["identifier"] = [{"system": codes.NPI, "value": npi}]
        case.claim["contained"] = [inner]
        case.claim["careTeam"].append({"sequence": 2, "provider": {"reference": "#x"}, "role": concept("", role)})

    return spoil


def extension(url: str, value: str) -> Callable[[Case], None]:
    return set_at("claim", "extension", [{"url": url, "valueCode": value}])


def drug(ndc: str | None, quantity: Resource | None = None) -> Resource:
    item = line(1, "J1885")
    if ndc:
        item["detail"] = [
            {
                "sequence": 1,
                "productOrService": concept(codes.NDC, ndc),
                "quantity": quantity or {"value": 1, "unit": "ML"},
            }
        ]
    return item


def at_facility(place: str = "21") -> Callable[[Case], None]:
    return do(
        set_at("claim", "facility", {"reference": "Location/north"}),
        set_at("claim", "item.0.locationCodeableConcept", concept(codes.POS, place)),
    )


def secondary(response: Resource | None = None) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.secondary()
        case.response = response or case.response

    return spoil


def copy_of_claim(case: Case) -> None:
    other = copy.deepcopy(case.claim)
    other["id"], other["identifier"][0]["value"] = "c0", "PCN0"
    case.history.append(other)


def subscriber(case: Case) -> None:
    case.coverage["subscriber"], case.coverage["relationship"] = {"reference": "Patient/bo"}, concept("", "child")


BAD_NPI = "1700000008"
Spoil = Callable[[Case], object]

# rule: a claim that passes (the valid one where None), one that fails
CASES: dict[str, tuple[Spoil | None, Spoil]] = {
    "provider-missing": (None, set_at("claim", "provider", {"reference": "Organization/none"})),
    "provider-name": (None, set_at("provider", "name", None)),
    "provider-npi": (None, set_at("provider", "identifier.0.value", BAD_NPI)),
    "provider-taxonomy": (None, set_at("provider", "type", [])),
    "provider-tax-number": (None, set_at("provider", "identifier.1.value", "12-345678")),
    "provider-address": (None, set_at("provider", "address.0.city", None)),
    "provider-street": (
        set_at("provider", "address.0.line", ["1 BOXWOOD LN"]),
        set_at("provider", "address.0.line", ["P.O. Box 12"]),
    ),
    "provider-zip": (None, set_at("provider", "address.0.postalCode", "02108")),
    "facility-missing": (at_facility(), set_at("claim", "item.0.locationCodeableConcept", concept(codes.POS, "21"))),
    "facility-npi": (
        at_facility(),
        do(at_facility(), set_at("facility", "identifier", [{"system": codes.NPI, "value": BAD_NPI}])),
    ),
    "facility-address": (at_facility(), do(at_facility(), set_at("facility", "address.state", "XX"))),
    "facility-zip": (at_facility(), do(at_facility(), set_at("facility", "address.postalCode", "02108"))),
    "rendering-npi": (None, set_at("practitioner", "identifier", [])),
    "rendering-name": (None, set_at("practitioner", "name.0.given", [])),
    "referring-npi": (member("referring", "1700000023"), member("referring")),
    "referring-name": (member("referring", "1700000023"), member("referring", "1700000023", name=None)),
    "ordering-npi": (member("ordering", "1700000023"), member("ordering", BAD_NPI)),
    "supervising-npi": (member("supervisor", "1700000023"), member("supervisor", BAD_NPI)),
    "ordering-missing": (do(lines(line(1, "97110")), member("referring", "1700000023")), lines(line(1, "97110"))),
    "patient-missing": (None, set_at("claim", "patient", {"reference": "Patient/none"})),
    "patient-name": (None, set_at("patient", "name.0.family", "")),
    "patient-birth-date": (None, set_at("patient", "birthDate", "2026-12-01")),
    "patient-gender": (None, set_at("patient", "gender", None)),
    "patient-address": (None, set_at("patient", "address", [])),
    "subscriber-missing": (subscriber, set_at("coverage", "relationship", concept("", "child"))),
    "subscriber-name": (subscriber, do(subscriber, set_at("subscriber", "name", []))),
    "subscriber-address": (subscriber, do(subscriber, set_at("subscriber", "address", []))),
    "relationship": (None, set_at("coverage", "relationship", None)),
    "text-characters": (None, set_at("patient", "name.0.family", "QUÍLL")),
    "text-length": (None, set_at("patient", "address.0.line", ["1 " + "LONG " * 12 + "ST"])),
    "insurance-focal": (None, set_at("claim", "insurance.0.focal", False)),
    "insurance-sequence": (secondary(), do(secondary(), set_at("claim", "insurance.1.sequence", 1))),
    "insurance-count": (
        None,
        lambda case: case.claim["insurance"].extend(
            [{"sequence": n, "focal": False, "coverage": {"reference": "Coverage/one"}} for n in range(2, 13)]
        ),
    ),
    "coverage-missing": (None, set_at("claim", "insurance.0.coverage", {"reference": "Coverage/none"})),
    "coverage-beneficiary": (None, set_at("coverage", "beneficiary", {"reference": "Patient/bo"})),
    "coverage-status": (None, set_at("coverage", "status", "cancelled")),
    "coverage-period": (
        set_at("coverage", "period", {"end": "2026-11-02"}),
        set_at("coverage", "period", {"end": "2026-11-01"}),
    ),
    "member-id": (None, set_at("coverage", "subscriberId", None)),
    "member-id-pattern": (None, set_at("coverage", "subscriberId", "X12")),
    "payer-missing": (None, set_at("coverage", "payor", [{"reference": "Organization/none"}])),
    "payer-id": (None, set_at("payer", "identifier", [])),
    "medicare-secondary": (
        do(
            secondary(),
            set_at("other_coverage", "type", concept("", "1")),
            set_at("claim", "insurance.1.extension", [{"url": MEDICARE_TYPE, "valueCode": "12"}]),
        ),
        do(secondary(), set_at("other_coverage", "type", concept("", "1"))),
    ),
    "timely-filing": (
        set_at("claim", "item.0.servicedDate", "2026-08-22"),
        set_at("claim", "item.0.servicedDate", "2026-08-21"),
    ),
    "prior-authorization": (
        do(lines(line(1, "20610")), set_at("claim", "insurance.0.preAuthRef", ["PA77"])),
        lines(line(1, "20610")),
    ),
    "referral": (
        do(lines(line(1, "94010")), set_at("claim", "referral", {"reference": "ServiceRequest/1"})),
        lines(line(1, "94010")),
    ),
    "assignment": (extension(codes.ASSIGNMENT, "C"), extension(codes.ASSIGNMENT, "P")),
    "benefits-assignment": (extension(codes.BENEFITS, "W"), extension(codes.BENEFITS, "A")),
    "release-of-information": (extension(codes.RELEASE, "I"), extension(codes.RELEASE, "N")),
    "claim-type": (None, set_at("claim", "type", concept(codes.CLAIM_TYPE, "institutional"))),
    "control-number": (
        set_at("claim", "identifier.0.value", "ABCDEFGH123456789"),
        set_at("claim", "identifier.0.value", "ABCDEFGH1234567890"),
    ),
    "line-control-number": (
        lines(line(1, "99213"), line(2, "93000")),
        lines(line(1, "99213"), {**line(2, "93000"), "id": "L1"}),
    ),
    "line-missing": (None, lines()),
    "line-count": (
        lines(*(line(n, "99213", "76") for n in range(1, 51))),
        lines(*(line(n, "99213", "76") for n in range(1, 52))),
    ),
    "total": (None, set_at("claim", "total", money("100.01"))),
    "line-product": (
        set_at("claim", "item.0.unitPrice", money("100.00")),
        set_at("claim", "item.0.unitPrice", money("99.00")),
    ),
    "line-charge": (lines(line(1, "99213", price="0.00")), lines(line(1, "99213", price="-1.00"))),
    "currency": (None, set_at("claim", "item.0.net.currency", "EUR")),
    "frequency": (extension(codes.FREQUENCY, "1"), extension(codes.FREQUENCY, "6")),
    "original-number": (
        lambda case: case.claim.update(
            extension=[
                {"url": codes.FREQUENCY, "valueCode": "7"},
                {"url": codes.ORIGINAL_NUMBER, "valueString": "ICN1"},
            ]
        ),
        extension(codes.FREQUENCY, "7"),
    ),
    "accident-date": (
        set_at("claim", "accident", {"date": "2026-11-01"}),
        set_at("claim", "accident", {"type": concept("", "WPA")}),
    ),
    "accident-state": (
        set_at(
            "claim", "accident", {"date": "2026-11-01", "type": concept("", "MVA"), "locationAddress": {"state": "MA"}}
        ),
        set_at("claim", "accident", {"date": "2026-11-01", "type": concept("", "MVA")}),
    ),
    "admission-date": (
        do(
            at_facility(), set_at("claim", "supportingInfo", [{"sequence": 1, "category": concept("", "hospitalized")}])
        ),
        at_facility(),
    ),
    "duplicate-claim": (do(copy_of_claim, lambda case: case.history[0].update(status="cancelled")), copy_of_claim),
    "diagnosis-missing": (None, diagnoses()),
    "diagnosis-count": (diagnoses(*(f"E11{n:02d}" for n in range(12))), diagnoses(*(f"E11{n:02d}" for n in range(13)))),
    "diagnosis-sequence": (diagnoses("E119", "I10"), set_at("claim", "diagnosis.0.sequence", 2)),
    "diagnosis-repeated": (diagnoses("E119", "I10"), diagnoses("E119", "E11.9")),
    "diagnosis-form": (None, diagnoses("250.00")),
    "diagnosis-validity": (diagnoses("I10"), diagnoses("Z99.2")),
    "diagnosis-header": (None, diagnoses("E11")),
    "diagnosis-external-cause": (diagnoses("I10", "W19XXXA"), diagnoses("W19XXXA")),
    "diagnosis-sex": (diagnoses("O80"), do(diagnoses("O80"), set_at("patient", "gender", "male"))),
    "diagnosis-newborn": (do(diagnoses("P59.9"), set_at("patient", "birthDate", "2026-10-30")), diagnoses("P59.9")),
    "service-sex": (lines(line(1, "59400")), do(lines(line(1, "59400")), set_at("patient", "gender", "male"))),
    "service-age": (lines(line(1, "99396")), lines(line(1, "99397"))),
    "code-form": (lines(line(1, "0001F")), lines(line(1, "9921"))),
    "code-validity": (lines(line(1, "G0008")), lines(line(1, "G9999"))),
    "code-text": (
        do(lines(line(1, "J3490")), set_at("claim", "item.0.productOrService.text", "COMPOUND")),
        lines(line(1, "J3490")),
    ),
    "modifier-count": (
        lines(line(1, "97110", "GP", "59", "76", "CR")),
        lines(line(1, "97110", "GP", "59", "76", "CR", "99")),
    ),
    "modifier-form": (lines(line(1, "97110", "GP")), lines(line(1, "97110", "G"))),
    "modifier-validity": (lines(line(1, "20610", "RT")), lines(line(1, "20610", "R9"))),
    "modifier-repeated": (lines(line(1, "20610", "RT", "59")), lines(line(1, "20610", "RT", "RT"))),
    "modifier-25-place": (lines(line(1, "99213", "25")), lines(line(1, "93000", "25"))),
    "modifier-25-missing": (lines(line(1, "99213", "25"), line(2, "20610")), lines(line(1, "99213"), line(2, "20610"))),
    "modifier-sides": (lines(line(1, "20610", "RT")), lines(line(1, "20610", "RT", "LT"))),
    "units": (None, lines(line(1, "99213", units=0))),
    "place-missing": (None, set_at("claim", "item.0.locationCodeableConcept", None)),
    "place-validity": (None, set_at("claim", "item.0.locationCodeableConcept", concept(codes.POS, "29"))),
    "service-date": (None, set_at("claim", "item.0.servicedDate", None)),
    "service-period": (
        do(
            set_at("claim", "item.0.servicedDate", None),
            set_at("claim", "item.0.servicedPeriod", {"start": "2026-11-01", "end": "2026-11-02"}),
        ),
        do(
            set_at("claim", "item.0.servicedDate", None),
            set_at("claim", "item.0.servicedPeriod", {"start": "2026-11-02", "end": "2026-11-01"}),
        ),
    ),
    "service-future": (
        set_at("claim", "item.0.servicedDate", "2026-11-20"),
        set_at("claim", "item.0.servicedDate", "2026-11-21"),
    ),
    "pointer-missing": (None, set_at("claim", "item.0.diagnosisSequence", [])),
    "pointer-count": (None, set_at("claim", "item.0.diagnosisSequence", [1, 1, 1, 1, 1])),
    "pointer-target": (None, set_at("claim", "item.0.diagnosisSequence", [1, 2])),
    "line-repeated": (lines(line(1, "93000"), line(2, "93000", "76")), lines(line(1, "93000"), line(2, "93000"))),
    "clia": (
        lines(line(1, "81002")),
        do(lines(line(1, "81002")), set_at("provider", "identifier.2.value", "D1234567")),
    ),
    "drug-missing": (lines(drug("00000123456")), lines(drug(None))),
    "drug-form": (lines(drug("00000-1234-56")), lines(drug("0000-1234-56"))),
    "drug-quantity": (lines(drug("00000123456")), lines(drug("00000123456", {"value": 1, "unit": "bottle"}))),
    "ptp": (lines(line(1, "93000"), line(2, "90686")), lines(line(1, "93000"), line(2, "94010", "59"))),
    "ptp-modifier": (lines(line(1, "93000"), line(2, "97110", "59")), lines(line(1, "93000"), line(2, "97110"))),
    "mue-line": (lines(line(1, "93000"), line(2, "93000", "76")), lines(line(1, "93000", units=2))),
    "mue-day": (lines(line(1, "94010", units=2)), lines(line(1, "94010", units=2), line(2, "94010", "76"))),
    "mue-day-clinical": (lines(line(1, "97110", units=4)), lines(line(1, "97110", units=5))),
    "prior-missing": (secondary(), do(secondary(), set_at("claim", "insurance.0.claimResponse", None))),
    "prior-line-balance": (secondary(), secondary(prior(Decimal(60), [("CO", "45", "30.00")]))),
    "prior-claim-balance": (
        secondary(prior(Decimal(60), [("CO", "45", "40.00")], lines=False)),
        secondary(prior(Decimal(60), [("CO", "45", "30.00")], lines=False)),
    ),
    "prior-reason": (secondary(), secondary(prior(Decimal(60), [("CO", "45", "40.00"), ("PR", "2", "0.00")]))),
    "prior-paid": (
        secondary(prior(Decimal(0), [("CO", "45", "100.00")])),
        do(secondary(), set_at("response", "payment.amount", None)),
    ),
    "prior-paid-negative": (secondary(), secondary(prior(Decimal(-60), [("CO", "45", "160.00")]))),
    "prior-date": (
        secondary(),
        do(
            secondary(), set_at("response", "item.0.extension", [{"url": ADJUDICATION_DATE, "valueDate": "2026-11-10"}])
        ),
    ),
    "prior-level": (
        secondary(),
        do(secondary(), lambda case: case.response.update(adjudication=case.response["item"][0]["adjudication"])),
    ),
    "prior-number": (secondary(), do(secondary(), set_at("response", "identifier", []))),
}


def test_the_valid_claim_has_no_findings() -> None:
    assert Case().rules() == set()


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_a_rule_has_a_claim_that_passes_and_one_that_fails(rule: str) -> None:
    passes, fails = CASES[rule]
    good, bad = Case(), Case()
    if passes:
        passes(good)
    fails(bad)
    assert rule not in good.rules()
    assert rule in bad.rules()


def test_every_check_has_its_row_and_every_row_its_cases() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(CHECKS) == set(CASES)


def test_no_false_alarm_on_500_valid_claims() -> None:
    around = Surroundings(today=TODAY)
    alarms = {
        claim["id"]: found for claim, resources in make_claims(500) if (found := scrub_claim(claim, resources, around))
    }
    assert alarms == {}


@pytest.mark.parametrize("npi", ["1700000007", "1700000015", "1700000023", "1234567893"])
def test_numbers_with_a_right_check_digit(npi: str) -> None:
    assert is_npi(npi)
    assert make_npi(int(npi[:9])) == npi
    assert not is_npi(npi[:9] + str((int(npi[9]) + 1) % 10))


def test_a_secondary_claim_that_does_not_balance_says_what_is_missing() -> None:
    """B9 of the reported faults: line 100, paid 60, adjusted 30."""
    case = Case()
    case.secondary()
    resources = {"ClaimResponse/one": prior(Decimal("60.00"), [("CO", "45", "30.00")])}
    finding = next(each for each in scrub_claim(case.claim, resources, AROUND) if each.rule == "prior-line-balance")
    assert (finding.severity, finding.loop) == ("error", "2430")
    assert "10.00 missing" in finding.wrong


def test_payers_switch_rules_off_and_change_their_severity() -> None:
    claim, resources = make_claims(1)[0]
    del claim["diagnosis"]
    payer = resources[resources[claim["insurance"][0]["coverage"]["reference"]]["payor"][0]["reference"]]
    number = payer["identifier"][0]["value"]

    def severities(rules: dict[str, str]) -> dict[str, str]:
        site = SiteSettings.model_validate({"payers": {number: {"rules": rules}}})
        return {e.rule: e.severity for e in scrub_claim(claim, resources, Surroundings(today=TODAY, site=site))}

    assert severities({})["diagnosis-missing"] == "error"
    assert severities({"diagnosis-missing": "warning"})["diagnosis-missing"] == "warning"
    assert "diagnosis-missing" not in severities({"diagnosis-missing": "off"})
    assert [issue.severity for issue in find_unknown_rules(["diagnosis-mising", "total"])] == ["error"]


def test_an_outcome_names_rule_path_and_element() -> None:
    case = Case()
    case.claim["total"] = money("1.00")
    findings = scrub_claim(case.claim, {}, AROUND)
    assert has_errors(findings)
    outcome = findings_to_outcome(findings)
    issue = next(each for each in outcome["issue"] if each["details"]["coding"][0]["code"] == "total")
    assert issue["expression"] == ["Claim.total"]
    assert issue["location"] == ["2300/CLM02"]
    assert issue["diagnostics"] == "The total is not the sum of the lines: 1.00 against 100.00. Correct total or lines."
    assert findings_to_outcome(())["issue"][0]["severity"] == "information"


def test_whatever_is_missing_is_a_finding_and_no_exception() -> None:
    assert has_errors(scrub_claim({"resourceType": "Claim"}, {}, Surroundings(today=date(2026, 1, 1))))


def test_the_page_lists_the_table() -> None:
    text = (ROOT / "docs" / "scrub-rules.md").read_text(encoding="utf-8")
    rows = [
        f"| `{e.id}` | {e.severity} | `{e.expression}` | {e.loop} {e.element} | {e.wrong} | {e.mend} |" for e in RULES
    ]
    assert [row for row in rows if row not in text.splitlines()] == []
    assert text.count("\n| `") == len(rows)
