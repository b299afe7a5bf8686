"""The checks of a prescription, each by the rule that docs/prescribing.md states or a regulation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mappers.prescribing.checks import (
    CHECKS,
    OVERRIDES,
    Other,
    Prescription,
    apply_override,
    check_prescription,
    findings_to_outcome,
)
from mappers.prescribing.codes import SCHEDULES
from mappers.prescribing.medicines import read_medicine
from mappers.prescribing.prescribers import is_dea
from mappers.scheduling.elements import target_of
from tests.mappers.prescribing.prescriptions import (
    DEA,
    Tree,
    allergy,
    concept,
    practitioner,
    prescription,
    schedule,
)

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "prescribing.md").read_text(encoding="utf-8")


def view(
    request: Tree, *allergies: Tree, others: Sequence[Tree] = (), dea: str = "", **resources: Tree
) -> Prescription:
    named = {reference.replace("_", "/"): each for reference, each in resources.items()}
    patient = target_of(request["subject"])
    return Prescription(
        request,
        read_medicine(request, named),
        patient if patient.startswith("Patient/") else "",
        target_of(request.get("priorPrescription")),
        [practitioner(dea=dea)],
        allergies,
        [Other(each, read_medicine(each, named)) for each in others],
    )


def find(prescription: Prescription) -> list[tuple[str, str]]:
    return [(each.issue.severity, each.check) for each in check_prescription(prescription)]


def dispense(**changes: Any) -> Tree:
    return {**prescription()["dispenseRequest"], **changes}


def test_a_complete_prescription_is_fine() -> None:
    assert find(view(prescription())) == []


@pytest.mark.parametrize(
    ("changes", "check", "where"),
    [
        ({"subject": {"reference": "Group/all"}}, "patient", "subject"),
        ({"dosageInstruction": []}, "dose", "dosageInstruction"),
        ({"dosageInstruction": [{"patientInstruction": "x"}] * 101}, "dose", "dosageInstruction"),
        ({"dosageInstruction": [{"patientInstruction": "with food"}]}, "dose", "dosageInstruction[0]"),
        (
            {"dosageInstruction": [{"doseAndRate": [{"doseQuantity": {"value": 0}}]}]},
            "dose",
            "dosageInstruction[0]",
        ),
        ({"dispenseRequest": dispense(quantity={"value": 0})}, "quantity", "dispenseRequest.quantity"),
        ({"dispenseRequest": dispense(quantity={"unit": "tablet"})}, "quantity", "dispenseRequest.quantity"),
        (
            {"dispenseRequest": dispense(expectedSupplyDuration={"value": 1, "code": "mo"})},
            "days-supply",
            "dispenseRequest.expectedSupplyDuration",
        ),
        (
            {"dispenseRequest": {"quantity": {"value": 1}}},
            "days-supply",
            "dispenseRequest.expectedSupplyDuration",
        ),
    ],
)
def test_what_is_missing_is_an_error_with_its_place(changes: Tree, check: str, where: str) -> None:
    (found,) = check_prescription(view(prescription(**changes)))
    assert (found.issue.severity, found.check) == ("error", check)
    assert found.issue.expression == (f"MedicationRequest.{where}",)


@pytest.mark.parametrize(
    "dose",
    [
        {"doseRange": {"low": {"value": 1}, "high": {"value": 2}}},
        {"rateRatio": {"numerator": {"value": 100}, "denominator": {"value": 1}}},
        {"rateQuantity": {"value": 0.5}},
    ],
)
def test_every_form_of_a_dose_counts(dose: Tree) -> None:
    assert find(view(prescription(dosageInstruction=[{"doseAndRate": [dose]}]))) == []


def test_a_dose_in_words_is_a_warning() -> None:
    assert find(view(prescription(dosageInstruction=[{"text": "thinly, twice a day"}]))) == [("warning", "dose")]


def test_a_prescriber_needs_a_valid_npi() -> None:
    fine = view(prescription())
    assert find(replace(fine, prescriber=())) == [("error", "prescriber")]
    assert find(replace(fine, prescriber=[practitioner(npi="")])) == [("error", "prescriber")]
    assert find(replace(fine, prescriber=[practitioner(npi="1234567890")])) == [("error", "prescriber")]


@pytest.mark.parametrize(
    ("number", "valid"),
    [(DEA, True), ("AB1234564", False), ("A91234563", True), (f"{DEA}-X1", True), ("1B1234563", False), ("", False)],
)
def test_the_check_digit_of_a_dea_number(number: str, valid: bool) -> None:
    assert is_dea(number) == valid


@pytest.mark.parametrize("code", [code for code, number in SCHEDULES.items() if number != "I"])
def test_a_controlled_substance_needs_a_dea_number(code: str) -> None:
    request = prescription(extension=[schedule(code)])
    assert find(view(request)) == [("error", "schedule")]
    assert find(view(request, dea="AB1234564")) == [("error", "schedule")]
    assert find(view(request, dea=DEA)) == []


def test_schedules_that_nobody_prescribes_and_that_are_none() -> None:
    """21 USC 812: no accepted medical use. Table 0477 has `VI`, which is no schedule of the federal act."""
    assert find(view(prescription(extension=[schedule("I")]), dea=DEA)) == [("error", "schedule")]
    assert find(view(prescription(extension=[schedule("VI")]))) == []
    assert find(view(prescription(extension=[schedule("X")]))) == [("error", "schedule")]


@pytest.mark.parametrize(("code", "allowed", "refused"), [("II", 0, 1), ("III", 5, 6), ("IV", 5, 6)])
def test_refills_of_controlled_substances(code: str, allowed: int, refused: int) -> None:
    """21 CFR 1306.12 (schedule II: none) and 1306.22 (III and IV: five)."""
    for refills, expected in ((allowed, []), (refused, [("error", "refills")])):
        request = prescription(extension=[schedule(code)], dispenseRequest=dispense(numberOfRepeatsAllowed=refills))
        assert find(view(request, dea=DEA)) == expected


def test_the_schedule_is_read_from_the_medication_and_from_what_is_known_of_the_drug() -> None:
    drug = {"resourceType": "Medication", "id": "m", "extension": [schedule("C48675", "urn:nci")]}
    request = prescription()
    del request["medicationCodeableConcept"]
    request["medicationReference"] = {"reference": "Medication/m"}
    assert read_medicine(request, {"Medication/m": drug}).schedule == "II"
    knowledge = {"regulatory": [{"schedule": [{"schedule": concept("IV")}, {"schedule": concept("III")}]}]}
    assert read_medicine(prescription(), {}, [knowledge]).schedule == "III"


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        ({}, "error"),
        ({"criticality": "high"}, "error"),
        ({"criticality": "low"}, "warning"),
        ({"type": "intolerance"}, "warning"),
        ({"clinicalStatus": concept("resolved")}, None),
        ({"clinicalStatus": concept("inactive")}, None),
        ({"verificationStatus": concept("refuted")}, None),
        ({"verificationStatus": concept("entered-in-error")}, None),
        ({"verificationStatus": concept("unconfirmed")}, "error"),
        ({"code": concept("999"), "reaction": [{"substance": concept("314076")}]}, "error"),
        ({"code": concept("314076", "http://snomed.info/sct")}, None),
    ],
)
def test_allergies_by_equal_codes(more: Tree, severity: str | None) -> None:
    found = find(view(prescription(), {**allergy("a", "314076"), **more}))
    assert found == ([(severity, "allergy")] if severity else [])


def test_an_allergy_without_a_code_is_told() -> None:
    assert find(view(prescription(), {**allergy("a", "1"), "code": {"text": "sulfa"}})) == [("information", "allergy")]


def test_an_allergy_to_an_ingredient_of_a_contained_and_of_a_stored_medication() -> None:
    inner = {"resourceType": "Medication", "id": "m", "code": concept("1"), "ingredient": [
        {"itemCodeableConcept": concept("2")}, {"itemReference": {"reference": "#s"}},
        {"itemReference": {"reference": "Substance/x"}},
    ]}  # fmt: skip
    substance = {"resourceType": "Substance", "id": "s", "code": concept("3")}
    request = prescription(contained=[inner, substance], medicationReference={"reference": "#m"})
    del request["medicationCodeableConcept"]
    stored = {"resourceType": "Substance", "id": "x", "code": concept("4")}
    for code in "1234":
        assert find(view(request, allergy("a", code), Substance_x=stored)) == [("error", "allergy")], code
    assert find(view(request, allergy("a", "5"), Substance_x=stored)) == []


def test_duplicate_therapy() -> None:
    """An active one of the same code is an error; one on hold, or of a shared ingredient alone, a warning."""
    active = prescription("old", status="active")
    mixture = {"resourceType": "Medication", "id": "m", "code": concept("7"), "ingredient": [
        {"itemCodeableConcept": concept("314076")}
    ]}  # fmt: skip
    shared = prescription("mix", status="active", contained=[mixture], medicationReference={"reference": "#m"})
    del shared["medicationCodeableConcept"]
    for other, expected in (
        (active, [("error", "duplicate")]),
        ({**active, "status": "on-hold"}, [("warning", "duplicate")]),
        (shared, [("warning", "duplicate")]),
        ({**active, "intent": "plan"}, [("warning", "duplicate")]),
        ({**active, "doNotPerform": True}, []),
        (prescription("old", "999", status="active"), []),
        (prescription("rx", status="active"), []),
    ):
        assert find(view(prescription(), others=[other])) == expected
    renewing = prescription(priorPrescription={"reference": "MedicationRequest/old"})
    assert find(view(renewing, others=[active])) == [("information", "duplicate")]


def test_what_is_hidden_is_not_named() -> None:
    seen = view(prescription(), allergy("secret", "314076"), others=[prescription("covert", status="active")])
    texts = [each.issue.diagnostics for each in check_prescription(seen)]
    assert "`AllergyIntolerance/secret`" in texts[0] and "`MedicationRequest/covert`" in texts[1]
    hidden = replace(seen, hidden=frozenset(("AllergyIntolerance/secret", "MedicationRequest/covert")))
    texts = [each.issue.diagnostics for each in check_prescription(hidden)]
    assert len(texts) == 2 and not any("secret" in text or "covert" in text for text in texts)


def test_only_allergies_and_duplicates_can_be_overridden() -> None:
    found = check_prescription(view(prescription(dosageInstruction=[]), allergy("a", "314076")))
    assert set(OVERRIDES) <= CHECKS.keys()
    weighed, refused = apply_override(found, OVERRIDES)
    assert refused and [(each.issue.severity, each.check) for each in weighed] == [
        ("error", "dose"),
        ("warning", "allergy"),
    ]


def test_a_prohibition_is_not_checked() -> None:
    assert find(view(prescription(doNotPerform=True, dosageInstruction=[]), allergy("a", "314076"))) == []


def test_a_drug_without_a_code_is_told() -> None:
    assert find(view(prescription(medicationCodeableConcept={"text": "the blue pill"}))) == [("warning", "medicine")]


def test_findings_as_an_outcome_name_their_check() -> None:
    outcome = findings_to_outcome(check_prescription(view(prescription(dosageInstruction=[]))))
    (issue,) = outcome["issue"]
    assert issue["details"]["coding"][0]["code"] == "dose"
    assert findings_to_outcome([])["issue"][0]["severity"] == "information"


def test_the_page_shows_every_check_and_what_can_be_overridden() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| (error|warning|information) \| (yes|no|–) \|$", PAGE, re.MULTILINE)
    assert {check for check, _, _ in rows} == CHECKS.keys()
    assert {check for check, _, overridden in rows if overridden == "yes"} == set(OVERRIDES)
    assert all((severity == "error") == (overridden != "–") for _, severity, overridden in rows)
