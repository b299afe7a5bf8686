"""Charges become draft claims: grouping, diagnoses, pointers, providers, totals, identifiers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from mappers.billing import codes
from mappers.billing.assembly import Assembly, AssemblySettings, assemble_claims, make_charges, mark_charges
from mappers.billing.charges import find_charge_of_procedure, make_charge_task
from mappers.billing.claim_view import Surroundings, view_claim
from mappers.billing.fields import find_code
from mappers.billing.scrub import scrub_view

Resource = dict[str, Any]
SETTINGS = AssemblySettings(billing_provider="Organization/us", created="2026-11-20", zone=ZoneInfo("America/Chicago"))


def concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def charge(id: str, code: str, *reasons: str, price: str = "100.00", **more: Any) -> Resource:
    return {
        "resourceType": "ChargeItem",
        "id": id,
        "meta": {"versionId": "1"},
        "status": "billable",
        "code": concept(codes.CPT, code),
        "subject": {"reference": "Patient/ada"},
        "context": {"reference": "Encounter/e1"},
        "occurrenceDateTime": "2026-11-02",
        "quantity": {"value": 1},
        "priceOverride": {"value": Decimal(price), "currency": "USD"},
        "reason": [concept(codes.ICD_10_CM, reason) for reason in reasons],
        **more,
    }


def coverage(id: str, order: int, **period: str) -> Resource:
    return {
        "resourceType": "Coverage",
        "id": id,
        "status": "active",
        "order": order,
        "beneficiary": {"reference": "Patient/ada"},
        "payor": [{"reference": f"Organization/payer-of-{id}"}],
        "period": period,
    }


ENCOUNTER: Resource = {
    "resourceType": "Encounter",
    "id": "e1",
    "subject": {"reference": "Patient/ada"},
    "period": {"start": "2026-11-02T09:00:00-06:00"},
    "participant": [
        {"type": [concept("", "ATND")], "individual": {"reference": "Practitioner/pine"}},
        {"type": [concept("", "REF")], "individual": {"reference": "Practitioner/elm"}},
    ],
    "location": [{"location": {"reference": "Location/north"}}],
    "diagnosis": [
        {"condition": {"reference": "Condition/two"}, "rank": 2},
        {"condition": {"reference": "Condition/one"}, "rank": 1},
    ],
}


def assemble(*charges: Resource, more: tuple[Resource, ...] = (), settings: AssemblySettings = SETTINGS) -> Assembly:
    everything = (
        ENCOUNTER,
        coverage("one", 1),
        {"resourceType": "Location", "id": "north", "type": [concept(codes.POS, "19")]},
        {"resourceType": "Condition", "id": "one", "code": concept(codes.ICD_10_CM, "I10")},
        {"resourceType": "Condition", "id": "two", "code": concept(codes.ICD_10_CM, "E11.9")},
        *more,
    )
    resources = {f"{each['resourceType']}/{each['id']}": each for each in everything}
    return assemble_claims(charges, resources, settings)


def icd(claim: Resource) -> list[str]:
    return [find_code(each["diagnosisCodeableConcept"]) for each in claim["diagnosis"]]


def test_diagnoses_stand_once_in_order_of_first_use_and_pointers_follow() -> None:
    found = assemble(charge("a", "99213", "E11.9", "I10"), charge("b", "93000", "I10", "R05.1"))
    (claim,) = found.claims
    assert icd(claim) == ["E11.9", "I10", "R05.1"]
    assert [item["diagnosisSequence"] for item in claim["item"]] == [[1, 2], [2, 3]]
    assert claim["total"] == {"value": Decimal("200.00"), "currency": "USD"}
    assert claim["billablePeriod"] == {"start": "2026-11-02", "end": "2026-11-02"}


def test_the_encounter_gives_providers_facility_place_and_diagnoses() -> None:
    (claim,) = assemble(charge("a", "99213")).claims
    team = {find_code(each["role"]): each["provider"]["reference"] for each in claim["careTeam"]}
    assert team == {"primary": "Practitioner/pine", "referring": "Practitioner/elm"}
    assert claim["facility"] == {"reference": "Location/north"}
    assert find_code(claim["item"][0]["locationCodeableConcept"], codes.POS) == "19"
    assert icd(claim) == ["I10", "E11.9"]  # by rank
    assert claim["item"][0]["encounter"] == [{"reference": "Encounter/e1"}]


def test_the_charge_comes_before_the_encounter() -> None:
    own = charge(
        "a",
        "20610",
        "M17.11",
        performer=[{"function": concept("", "supervisor"), "actor": {"reference": "Practitioner/oak"}}],
    )
    own["performer"].append({"actor": {"reference": "Practitioner/ash"}})
    own["extension"] = [
        {"url": codes.MODIFIER, "valueCodeableConcept": concept("", "RT")},
        {"url": codes.MODIFIER, "valueCodeableConcept": concept("", "59")},
        {"url": codes.PLACE_OF_SERVICE, "valueCodeableConcept": concept(codes.POS, "22")},
    ]
    (claim,) = assemble(own).claims
    team = {find_code(each["role"]): each["provider"]["reference"] for each in claim["careTeam"]}
    assert team == {"primary": "Practitioner/ash", "supervisor": "Practitioner/oak", "referring": "Practitioner/elm"}
    (item,) = claim["item"]
    assert [find_code(each) for each in item["modifier"]] == ["RT", "59"]
    assert find_code(item["locationCodeableConcept"]) == "22"


def test_coverages_stand_in_order_and_the_first_is_focal() -> None:
    (claim,) = assemble(
        charge("a", "99213", "I10"), more=(coverage("two", 0), coverage("old", 2, end="2026-11-01"))
    ).claims
    assert [each["coverage"]["reference"] for each in claim["insurance"]] == ["Coverage/two", "Coverage/one"]
    assert [(each["sequence"], each["focal"]) for each in claim["insurance"]] == [(1, True), (2, False)]
    assert claim["insurer"] == {"reference": "Organization/payer-of-two"}


def test_a_thirteenth_diagnosis_goes_on_in_another_claim() -> None:
    lines = [charge(f"c{n:02d}", "97110", f"E11.{n:02d}") for n in range(1, 14)] + [charge("d", "97112", "E11.01")]
    found = assemble(*lines)
    assert [len(claim["diagnosis"]) for claim in found.claims] == [12, 1]
    assert [len(claim["item"]) for claim in found.claims] == [13, 1]
    assert sum(claim["total"]["value"] for claim in found.claims) == Decimal("1400.00")
    assert len({claim["identifier"][0]["value"] for claim in found.claims}) == 2


def test_a_line_of_more_than_four_diagnoses_says_what_it_keeps() -> None:
    found = assemble(charge("a", "99215", *(f"E11.{n}" for n in range(6))))
    assert found.claims[0]["item"][0]["diagnosisSequence"] == [1, 2, 3, 4]
    assert len(found.claims[0]["diagnosis"]) == 6
    assert [issue.code for issue in found.issues] == ["too-long"]


def test_one_charge_with_thirteen_diagnoses_keeps_them_all_and_is_held() -> None:
    """X222A1 has 12 places in HI and four pointers in SV107; which of the 13 to leave out is a person's choice."""
    thirteen = [f"E11.{n}" for n in range(13)]
    found = assemble(charge("a", "99215", *thirteen), charge("b", "97110", "E11.3"), charge("c", "97112", "I10"))
    assert [icd(claim) for claim in found.claims] == [thirteen, ["I10"]]
    assert [len(claim["item"]) for claim in found.claims] == [2, 1]
    assert found.claims[0]["item"][0]["diagnosisSequence"] == [1, 2, 3, 4]
    assert "held until somebody leaves 12" in found.issues[0].diagnostics
    view = view_claim(found.claims[0], {}, Surroundings(date(2026, 11, 20)))
    assert "diagnosis-count" in [each.rule for each in scrub_view(view) if each.severity == "error"]


def test_charges_at_the_same_versions_give_the_same_identifiers_and_later_versions_others() -> None:
    first = assemble(charge("a", "99213", "I10"))
    assert assemble(charge("a", "99213", "I10")).claims == first.claims
    again = assemble(charge("a", "99213", "I10", meta={"versionId": "3"}))
    assert again.claims[0]["identifier"] != first.claims[0]["identifier"]
    number = first.claims[0]["identifier"][0]["value"]
    assert len(number) == 17 and number.isalnum() and number == number.upper()


def test_each_charge_becomes_billed() -> None:
    found = assemble(charge("a", "99213", "I10"), charge("b", "99213", "I10", status="billed"))
    assert [(each["id"], each["status"]) for each in found.charge_items] == [("a", "billed")]


def test_what_cannot_be_billed_stays_billable_and_is_told() -> None:
    bare = charge("price", "99213", "I10")
    del bare["priceOverride"]
    undated = charge("date", "99213", "I10", context={})
    del undated["occurrenceDateTime"]
    old = charge("cover", "99213", "I10", subject={"reference": "Patient/bo"})
    found = assemble(bare, undated, old, charge("code", "", "I10"))
    assert found.claims == () and found.charge_items == ()
    told = {issue.diagnostics.split("`")[1] for issue in found.issues}
    assert told == {"ChargeItem/price", "ChargeItem/date", "Patient/bo", "ChargeItem/code"}


def test_a_day_is_that_of_the_practice() -> None:
    late = charge("a", "99213", "I10", occurrenceDateTime="2026-11-03T03:00:00Z")
    assert assemble(late).claims[0]["item"][0]["servicedDate"] == "2026-11-02"
    pacific = replace(SETTINGS, zone=ZoneInfo("Europe/Berlin"))
    assert assemble(late, settings=pacific).claims[0]["item"][0]["servicedDate"] == "2026-11-03"


def test_encounters_without_charges_get_them_from_their_procedures() -> None:
    procedure = {
        "resourceType": "Procedure",
        "id": "p1",
        "status": "completed",
        "code": concept(codes.CPT, "17110"),
        "subject": {"reference": "Patient/ada"},
        "encounter": {"reference": "Encounter/e1"},
        "performedDateTime": "2026-11-02T10:00:00-06:00",
        "reasonCode": [concept(codes.ICD_10_CM, "B07.9")],
    }
    other = {**procedure, "id": "p2", "code": concept(codes.CPT, "99999")}
    definition = {
        "resourceType": "ChargeItemDefinition",
        "id": "d1",
        "status": "active",
        "url": "https://clinic.example/charges/17110",
        "code": concept(codes.CPT, "17110"),
        "propertyGroup": [
            {"priceComponent": [{"type": "base", "amount": {"value": Decimal("140.00"), "currency": "USD"}}]}
        ],
    }
    resources = {f"{e['resourceType']}/{e['id']}": e for e in (ENCOUNTER, procedure, other, definition)}
    charges, issues = make_charges(resources, "2026-11-20")
    (made,) = charges
    assert made["identifier"] == [{"system": codes.CHARGE_OF_PROCEDURE, "value": "Procedure/p1"}]
    assert made["priceOverride"]["value"] == Decimal("140.00")
    assert [issue.expression for issue in issues] == [("Procedure/p2.code",)]
    made = {**made, "id": "x"}
    (claim,) = assemble(made).claims
    assert icd(claim) == ["B07.9"] and claim["total"]["value"] == Decimal("140.00")
    charged = {**resources, "ChargeItem/x": {**made, "status": "billed"}}
    assert make_charges(charged, "2026-11-20") == ([], [])


def test_a_charge_sent_later_meets_the_one_of_the_procedure() -> None:
    made = charge("x", "17110", identifier=[{"system": codes.CHARGE_OF_PROCEDURE, "value": "Procedure/p1"}])
    later = charge(
        "y", "17110", identifier=[{"system": "urn:ehr", "value": "77"}], occurrenceDateTime="2026-11-02T10:00:00-06:00"
    )
    assert find_charge_of_procedure(later, [made]) == made
    assert find_charge_of_procedure({**later, "code": concept(codes.CPT, "17111")}, [made]) is None
    task = make_charge_task(later, made, "2026-11-20")
    assert find_code(task["code"]) == "charge-review" and task["focus"] == {"reference": "ChargeItem/x"}


def test_a_claim_written_by_others_gets_a_charge_for_each_line_that_lacks_one() -> None:
    (claim,) = assemble(charge("a", "99213", "I10")).claims
    claim["item"].append({"sequence": 2, "productOrService": concept(codes.CPT, "93000"), "servicedDate": "2026-11-02"})
    marked, made = mark_charges(claim, {"ChargeItem/a": charge("a", "99213")})
    assert [find_code(each["code"]) for each in made] == ["93000"] and made[0]["status"] == "billed"
    assert mark_charges(marked, {"ChargeItem/a": charge("a", "99213")})[1] == made


PRICES = st.decimals(min_value="0.00", max_value="999.99", places=2)
REASONS = st.lists(st.sampled_from([f"E11.{n:02d}" for n in range(30)]), min_size=1, max_size=8, unique=True)


@given(st.lists(st.tuples(PRICES, REASONS), max_size=30))
def test_totals_lines_and_pointers_hold_whatever_the_charges(rows: list[tuple[Decimal, list[str]]]) -> None:
    charges = [charge(f"c{n:02d}", "97110", *reasons, price=str(price)) for n, (price, reasons) in enumerate(rows)]
    found = assemble(*charges)
    items = [item for claim in found.claims for item in claim["item"]]
    linked = [item["extension"][0]["valueReference"]["reference"] for item in items]
    assert sorted(linked) == [f"ChargeItem/c{n:02d}" for n in range(len(rows))]
    assert sum(claim["total"]["value"] for claim in found.claims) == sum(price for price, _ in rows)
    for claim in found.claims:
        assert len(claim["diagnosis"]) <= 12 and len(claim["item"]) <= 50
        for item in claim["item"]:
            row = int(item["extension"][0]["valueReference"]["reference"][-2:])
            assert [icd(claim)[n - 1] for n in item["diagnosisSequence"]] == rows[row][1][:4]
