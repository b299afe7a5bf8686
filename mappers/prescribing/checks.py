"""What a prescription is checked for before it is activated: one table of checks (docs/prescribing.md).

Allergies and other prescriptions are compared by equal codes alone; the server knows no classes of drugs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.billing.fields import Resource, find_codings, find_reference, make_reference, to_decimal
from mappers.billing.parties import is_npi
from mappers.prescribing.codes import CHECK
from mappers.prescribing.medicines import NO_MEDICINE, Medicine
from mappers.prescribing.prescribers import find_dea, find_npi, is_dea
from mappers.scheduling.elements import code_of, list_codings, members

OVERRIDES = ("allergy", "duplicate")
"""The checks that a person may set aside, with a reason."""

MOST_REFILLS = {"I": 0, "II": 0, "III": 5, "IV": 5}
"""Refills that a schedule allows at most (21 CFR 1306.12 and 1306.22)."""

MOST_DOSAGES = 100
"""Dosages that one prescription may have."""

_DAYS = {"d": 1, "day": 1, "days": 1, "wk": 7, "week": 7, "weeks": 7}
_NO_ORDERS = frozenset(("proposal", "plan", "option"))
_PAST = frozenset(("inactive", "resolved"))
_DENIED = frozenset(("refuted", "entered-in-error"))


class Other(NamedTuple):
    """Another prescription of the patient that is active or on hold, and its drug."""

    request: Resource
    medicine: Medicine


@dataclass(frozen=True, slots=True)
class Prescription:
    """A MedicationRequest with what it is checked against.

    `patient`, `prior`: `Type/id` of those here that `subject` and `priorPrescription` refer to; "" without any.
    `prescriber`: the Practitioner, and the PractitionerRole, that requests it, as far as they are stored here.
    `allergies`: the AllergyIntolerances of the patient. `hidden`: references of them and of `others` that the person
    who asks may not see.
    """

    request: Resource
    medicine: Medicine = NO_MEDICINE
    patient: str = ""
    prior: str = ""
    prescriber: Sequence[Resource] = ()
    allergies: Sequence[Resource] = ()
    others: Sequence[Other] = ()
    hidden: frozenset[str] = frozenset()


class Finding(NamedTuple):
    """What one check has to say; `check` is its name in the table, by which it is overridden."""

    check: str
    issue: Issue

    @property
    def is_error(self) -> bool:
        """Whether it keeps the prescription from being active."""
        return self.issue.severity == "error"


Check = Callable[[Prescription], Iterator[Issue]]


def check_prescription(prescription: Prescription) -> list[Finding]:
    """All findings, errors first. What says that a drug is not to be given is not checked."""
    if prescription.request.get("doNotPerform") is True:
        return []
    found = [Finding(name, issue) for name, check in CHECKS.items() for issue in check(prescription)]
    return sorted(found, key=lambda each: ("error", "warning", "information").index(each.issue.severity))


def check_completeness(prescription: Prescription) -> list[Finding]:
    """The errors that no person can set aside: what is missing or not allowed."""
    return [each for each in check_prescription(prescription) if each.is_error and each.check not in OVERRIDES]


def apply_override(findings: Iterable[Finding], kinds: Collection[str]) -> tuple[list[Finding], bool]:
    """(the findings, those that were set aside as warnings; whether an error is left)."""
    weighed = [
        each._replace(issue=replace(each.issue, severity="warning")) if each.is_error and each.check in kinds else each
        for each in findings
    ]
    return weighed, any(each.is_error for each in weighed)


def findings_to_outcome(findings: Sequence[Finding]) -> dict[str, Any]:
    """An OperationOutcome with the name of the check in `details.coding`; without findings it says so."""
    issues = [
        {**each.issue.to_json(), "details": {"coding": [{"system": CHECK, "code": each.check}]}} for each in findings
    ]
    fine = {"severity": "information", "code": "informational", "diagnostics": "The checks find nothing."}
    return {"resourceType": "OperationOutcome", "issue": issues or [fine]}


def to_days(duration: object) -> Decimal | None:
    """A Duration in days or weeks as days; None for another unit or none."""
    if not isinstance(duration, dict):
        return None
    factor = _DAYS.get(str(duration.get("code") or duration.get("unit", "")))
    return None if factor is None else to_decimal(duration.get("value")) * factor


def _check_patient(prescription: Prescription) -> Iterator[Issue]:
    if not prescription.patient:
        text = "A prescription is for a Patient of this server. Name one in `subject`."
        yield Issue("error", "required", text, ("MedicationRequest.subject",))


def _check_medicine(prescription: Prescription) -> Iterator[Issue]:
    if not prescription.medicine.codes:
        text = "The drug has no code, so allergies, other prescriptions and its schedule are not compared."
        yield Issue("warning", "incomplete", text, ("MedicationRequest.medication",))


def _check_prescriber(prescription: Prescription) -> Iterator[Issue]:
    name = find_reference(prescription.request.get("requester"))
    if not prescription.prescriber:
        text = (
            f"The requester `{name}` is no Practitioner or PractitionerRole of this server."
            if name
            else "The prescription has no requester. Name a Practitioner or PractitionerRole who prescribes."
        )
        yield Issue("error", "required", text, ("MedicationRequest.requester",))
        return
    npi = find_npi(prescription.prescriber)
    if not npi:
        text = (
            f"`{name}` has no NPI. Add the identifier of system `http://hl7.org/fhir/sid/us-npi` to the Practitioner."
        )
        yield Issue("error", "required", text, ("MedicationRequest.requester",))
    elif not is_npi(npi):
        text = f"The NPI of `{name}` is no valid one: it has ten digits, of which the last is a check digit."
        yield Issue("error", "value", text, ("MedicationRequest.requester",))


def _check_schedule(prescription: Prescription) -> Iterator[Issue]:
    medicine, path = prescription.medicine, ("MedicationRequest.medication",)
    if medicine.unknown:
        text = f"`{medicine.unknown}` is no schedule of controlled substances that is known: write I, II, III, IV or V."
        yield Issue("error", "code-invalid", text, path)
    if medicine.schedule == "I":
        text = "A substance of schedule I cannot be prescribed (21 USC 812)."
        yield Issue("error", "business-rule", text, path)
    if not medicine.schedule or not prescription.prescriber:
        return
    name, dea = find_reference(prescription.request.get("requester")), find_dea(prescription.prescriber)
    if not dea:
        text = (
            f"`{name}` has no DEA registration number, which schedule {medicine.schedule} needs. Add an identifier of "
            "type `DEA` to the Practitioner."
        )
        yield Issue("error", "required", text, ("MedicationRequest.requester",))
    elif not is_dea(dea):
        text = f"The DEA number of `{name}` is no valid one: two letters, six digits and a check digit."
        yield Issue("error", "value", text, ("MedicationRequest.requester",))


def _check_refills(prescription: Prescription) -> Iterator[Issue]:
    most = MOST_REFILLS.get(prescription.medicine.schedule)
    refills = to_decimal((prescription.request.get("dispenseRequest") or {}).get("numberOfRepeatsAllowed"))
    if most is not None and refills > most:
        text = f"Schedule {prescription.medicine.schedule} allows {most or 'no'} refills, not {refills}."
        yield Issue("error", "business-rule", text, ("MedicationRequest.dispenseRequest.numberOfRepeatsAllowed",))


def _check_dose(prescription: Prescription) -> Iterator[Issue]:
    dosages = members(prescription.request, "dosageInstruction")
    if not dosages:
        text = "The prescription has no dosage. Write a `dosageInstruction` with a dose, or with a text."
        yield Issue("error", "required", text, ("MedicationRequest.dosageInstruction",))
    if len(dosages) > MOST_DOSAGES:
        text = f"The prescription has {len(dosages):,} dosages; at most {MOST_DOSAGES} are looked at."
        yield Issue("error", "too-costly", text, ("MedicationRequest.dosageInstruction",))
        return
    for position, dosage in enumerate(dosages):
        path = (f"MedicationRequest.dosageInstruction[{position}]",)
        if any(_has_amount(each) for each in members(dosage, "doseAndRate")):
            continue
        if dosage.get("text"):
            text = "The dose is written in words alone, which nothing here compares."
            yield Issue("warning", "incomplete", text, path)
        else:
            text = "The dosage says no dose. Write `doseAndRate` with a dose or rate, or a `text`."
            yield Issue("error", "required", text, path)


def _has_amount(dose: Resource) -> bool:
    """Whether a dose or rate has a number above 0 in it."""
    values = [value for name, value in dose.items() if name.startswith(("dose", "rate")) and isinstance(value, dict)]
    return any(
        to_decimal(part.get("value")) > 0
        for value in values
        for part in (value, *(each for each in value.values() if isinstance(each, dict)))
    )


def _check_quantity(prescription: Prescription) -> Iterator[Issue]:
    quantity = (prescription.request.get("dispenseRequest") or {}).get("quantity") or {}
    if to_decimal(quantity.get("value")) <= 0:
        text = "The prescription does not say how much is dispensed. Write a `quantity` above 0."
        yield Issue("error", "required", text, ("MedicationRequest.dispenseRequest.quantity",))


def _check_supply(prescription: Prescription) -> Iterator[Issue]:
    duration = (prescription.request.get("dispenseRequest") or {}).get("expectedSupplyDuration")
    days = to_days(duration)
    if days is None or days <= 0:
        text = "The prescription does not say for how many days it is. Write it in days (`d`) or weeks (`wk`)."
        path = ("MedicationRequest.dispenseRequest.expectedSupplyDuration",)
        yield Issue("error", "value" if duration else "required", text, path)


def _check_allergies(prescription: Prescription) -> Iterator[Issue]:
    silent = 0
    for allergy in prescription.allergies:
        if _has_code(allergy, "clinicalStatus", _PAST) or _has_code(allergy, "verificationStatus", _DENIED):
            continue
        concepts = [allergy.get("code"), *(each.get("substance") for each in members(allergy, "reaction"))]
        codes = {coding for concept in concepts for coding in list_codings(concept)}
        silent += not codes
        shared = sorted(codes & prescription.medicine.substances)
        if shared:
            name = _name(allergy, prescription.hidden, "an AllergyIntolerance that you may not see")
            mild = code_of(allergy, "type") == "intolerance" or code_of(allergy, "criticality") == "low"
            text = f"The patient must not have `{shared[0]}`: {name}."
            path = ("MedicationRequest.medication",)
            yield Issue("warning" if mild else "error", "business-rule", text, path)
    if silent:
        text = f"Allergies of the patient that have no code, and so are not compared: {silent}."
        yield Issue("information", "incomplete", text, ("MedicationRequest.subject",))


def _check_duplicates(prescription: Prescription) -> Iterator[Issue]:
    own = make_reference(prescription.request)
    for other, medicine in prescription.others:
        reference, status = make_reference(other), code_of(other)
        same = sorted(medicine.codes & prescription.medicine.codes)
        shared = same or sorted(medicine.substances & prescription.medicine.substances)
        if reference == own or not shared or other.get("doNotPerform") is True:
            continue
        firm = status == "active" and code_of(other, "intent") not in _NO_ORDERS
        severity = "error" if same and firm else "warning"
        name = _name(other, prescription.hidden, "a MedicationRequest that you may not see")
        text = f"The patient has `{shared[0]}` already by {name}, which is `{status}`."
        if reference == prescription.prior:
            severity, text = "information", f"{text} It is the one that this prescription renews."
        yield Issue(severity, "duplicate", text, ("MedicationRequest.medication",))


def _has_code(resource: Resource, element: str, codes: Collection[str]) -> bool:
    return any(coding.get("code") in codes for coding in find_codings(resource.get(element)))


def _name(resource: Resource, hidden: Collection[str], otherwise: str) -> str:
    reference = make_reference(resource)
    return otherwise if reference in hidden else f"`{reference}`"


CHECKS: Mapping[str, Check] = {
    "patient": _check_patient,
    "medicine": _check_medicine,
    "prescriber": _check_prescriber,
    "schedule": _check_schedule,
    "dose": _check_dose,
    "quantity": _check_quantity,
    "days-supply": _check_supply,
    "refills": _check_refills,
    "allergy": _check_allergies,
    "duplicate": _check_duplicates,
}
"""Name → check, in the order in which they are told."""
