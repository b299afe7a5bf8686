"""What was found and done: conditions, allergies, observations, prescriptions, vaccinations, orders and reports."""

from __future__ import annotations

from decimal import Decimal

from scripts.sample_clinic.build import Resource, concept, moment, quantity, reference, resource
from scripts.sample_clinic.people import patient
from scripts.sample_clinic.visits import ENCOUNTERS, encounter, practitioner

# Condition id: (patient, ICD-10-CM code, text, onset, clinical status)
CONDITIONS = {
    "amina-lipids": ("amina-okafor", "E78.5", "Hyperlipidemia, unspecified", "2026-04-14", "active"),
    "mateo-diabetes": ("mateo-rios", "E11.9", "Type 2 diabetes mellitus without complications", "2009", "active"),
    "mateo-hypertension": ("mateo-rios", "I10", "Essential (primary) hypertension", "2012-06", "active"),
    "linh-hypothyroidism": ("linh-tran", "E03.9", "Hypothyroidism, unspecified", "2026-07-14", "active"),
    "lucia-knee-arthritis": ("lucia-rios", "M17.11", "Unilateral primary osteoarthritis, right knee", "2024", "active"),
    "george-failure": ("george-whitfield", "I50.9", "Heart failure, unspecified", "2023-01", "active"),
    "chidi-asthma": ("chidi-okafor", "J45.909", "Unspecified asthma, uncomplicated", "2020", "active"),
    "hannah-pharyngitis": ("hannah-weiss", "J02.0", "Streptococcal pharyngitis", "2026-10-04", "resolved"),
    "omar-hypertension": ("omar-haddad", "I10", "Essential (primary) hypertension", "2026-10-20", "active"),
    "sophie-anxiety": ("sophie-tremblay", "F41.1", "Generalized anxiety disorder", "2026-11-17", "active"),
}
# Allergy id: (patient, text, category, criticality, manifestation)
ALLERGIES = {
    "amina-penicillin": ("amina-okafor", "Penicillin", "medication", "high", "Hives"),
    "chidi-peanut": ("chidi-okafor", "Peanut", "food", "high", "Swelling of the lips"),
    "omar-latex": ("omar-haddad", "Latex", "environment", "low", "Skin rash"),
    "sophie-cat": ("sophie-tremblay", "Cat dander", "environment", "low", "Sneezing"),
}
# Kind: (LOINC code, text, unit, UCUM code, category, reference range)
KINDS: dict[str, tuple[str, str, str, str, str, tuple[str | None, str | None]]] = {
    "weight": ("29463-7", "Body weight", "kg", "kg", "vital-signs", (None, None)),
    "height": ("8302-2", "Body height", "cm", "cm", "vital-signs", (None, None)),
    "pulse": ("8867-4", "Heart rate", "beats/minute", "/min", "vital-signs", (None, None)),
    "temperature": ("8310-5", "Body temperature", "°C", "Cel", "vital-signs", (None, None)),
    "oxygen": ("59408-5", "Oxygen saturation", "%", "%", "vital-signs", ("95", "100")),
    "a1c": ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", "%", "laboratory", ("4.0", "5.6")),
    "glucose": ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", "mg/dL", "laboratory", ("70", "99")),
    "cholesterol": ("2093-3", "Cholesterol, total", "mg/dL", "mg/dL", "laboratory", (None, "200")),
    "hdl": ("2085-9", "Cholesterol in HDL", "mg/dL", "mg/dL", "laboratory", ("40", None)),
    "triglycerides": ("2571-8", "Triglycerides", "mg/dL", "mg/dL", "laboratory", (None, "150")),
    "tsh": ("3016-3", "Thyrotropin", "mIU/L", "m[IU]/L", "laboratory", ("0.40", "4.50")),
}
# Encounter: measurements as (kind, value); values are written as they stand here.
MEASURED = {
    "amina-annual": [("weight", "71.5"), ("height", "168"), ("pulse", "72")],
    "amina-november": [("weight", "70.20")],
    "mateo-may": [("weight", "88.4"), ("pulse", "78"), ("a1c", "8.1"), ("glucose", "164")],
    "mateo-november": [("weight", "85.0"), ("pulse", "74"), ("a1c", "7.20"), ("glucose", "131")],
    "zuri-checkup": [("weight", "14.3"), ("height", "95.5"), ("temperature", "36.8")],
    "linh-thyroid": [("weight", "58.9"), ("pulse", "56"), ("tsh", "9.80")],
    "george-september": [("weight", "79.6"), ("pulse", "96"), ("oxygen", "91")],
    "chidi-asthma": [("weight", "37.1"), ("height", "143"), ("oxygen", "96")],
    "hannah-throat": [("temperature", "38.6"), ("pulse", "92")],
    "omar-pressure": [("weight", "93.0"), ("pulse", "81")],
}
LIPIDS = [("cholesterol", "231"), ("hdl", "52"), ("triglycerides", "168")]
# Encounter: (systolic, diastolic) mm[Hg]
PRESSURES = {
    "amina-annual": ("118", "76"),
    "mateo-may": ("142", "88"),
    "mateo-november": ("134", "82"),
    "george-september": ("108", "64"),
    "omar-pressure": ("156", "98"),
    "lucia-knee": ("128", "79"),
}
# Prescription id: (encounter, RxNorm code, text, instruction, times a day, reason, status)
PRESCRIPTIONS = {
    "mateo-metformin": ("mateo-may", "860975", "Metformin 500 mg extended release", 2, "mateo-diabetes", "active"),
    "mateo-lisinopril": ("mateo-may", "314076", "Lisinopril 10 mg tablet", 1, "mateo-hypertension", "active"),
    "omar-lisinopril": ("omar-pressure", "314076", "Lisinopril 10 mg tablet", 1, "omar-hypertension", "active"),
    "amina-simvastatin": ("amina-november", "312961", "Simvastatin 20 mg tablet", 1, "amina-lipids", "active"),
    "chidi-albuterol": ("chidi-asthma", "745679", "Albuterol 0.09 mg inhaler", 4, "chidi-asthma", "active"),
    "chidi-fluticasone": ("chidi-asthma", "895994", "Fluticasone 0.044 mg inhaler", 2, "chidi-asthma", "on-hold"),
    "hannah-penicillin": (
        "hannah-throat",
        "834102",
        "Penicillin V 500 mg tablet",
        2,
        "hannah-pharyngitis",
        "completed",
    ),
}
# Vaccination: (patient, CVX code, text, date, lot)
VACCINATIONS = [
    ("amina-okafor", "140", "Influenza, seasonal, injectable, preservative free", "2026-11-03", "FL-2026-07"),
    ("mateo-rios", "140", "Influenza, seasonal, injectable, preservative free", "2026-11-10", "FL-2026-07"),
    ("mateo-rios", "33", "Pneumococcal polysaccharide vaccine, 23 valent", "2026-05-12", "PN-2026-02"),
    ("zuri-okafor", "03", "MMR", "2026-06-02", "MM-2026-11"),
    ("zuri-okafor", "21", "Varicella", "2026-06-02", "VA-2026-04"),
    ("chidi-okafor", "115", "Tdap", "2026-09-15", "TD-2026-09"),
]
# Order and report: (encounter, LOINC code, text, kinds of the results)
REPORTS = {
    "amina-lipid-panel": ("amina-annual", "57698-3", "Lipid panel", [kind for kind, _ in LIPIDS]),
    "mateo-a1c-november": ("mateo-november", "4548-4", "Hemoglobin A1c", ["a1c"]),
    "linh-tsh": ("linh-thyroid", "3016-3", "Thyrotropin", ["tsh"]),
}
WAITING = {"sophie-tsh": ("sophie-anxiety", "3016-3", "Thyrotropin")}


def resources() -> list[Resource]:
    """Everything clinical; observations before the reports that collect them."""
    measured = [_observation(id, *pair) for id, pairs in MEASURED.items() for pair in pairs]
    lipids = [_observation("amina-annual", *pair) for pair in LIPIDS]
    orders = {id: (visit, code, text, "completed") for id, (visit, code, text, _) in REPORTS.items()}
    orders |= {id: (*order, "active") for id, order in WAITING.items()}
    return [
        *(_condition(id) for id in CONDITIONS),
        *(_allergy(id) for id in ALLERGIES),
        *measured,
        *lipids,
        *(_pressure(id) for id in PRESSURES),
        *(_prescription(id) for id in PRESCRIPTIONS),
        *(_vaccination(*row) for row in VACCINATIONS),
        *(_order(id, *order) for id, order in orders.items()),
        _referral(),
        *(_report(id) for id in REPORTS),
    ]


def _refer_to_visit(visit: str) -> Resource:
    """The members that tie a resource to an encounter: subject and encounter."""
    return {"subject": patient(ENCOUNTERS[visit][0]), "encounter": encounter(visit)}


def _get_moment(visit: str) -> str:
    return moment(ENCOUNTERS[visit][2], ENCOUNTERS[visit][3])


def _doctor(visit: str) -> Resource:
    return practitioner(ENCOUNTERS[visit][1])


def _condition(id: str) -> Resource:
    who, code, text, onset, status = CONDITIONS[id]
    return resource(
        "Condition",
        id,
        clinicalStatus=concept("condition-clinical", status),
        verificationStatus=concept("condition-ver-status", "confirmed"),
        category=[concept("condition-category", "problem-list-item")],
        code=concept("icd10", code, text),
        subject=patient(who),
        onsetDateTime=onset,
        abatementDateTime="2026-10-16" if status == "resolved" else None,
    )


def _allergy(id: str) -> Resource:
    who, text, category, criticality, manifestation = ALLERGIES[id]
    return resource(
        "AllergyIntolerance",
        id,
        clinicalStatus=concept("allergyintolerance-clinical", "active"),
        verificationStatus=concept("allergyintolerance-verification", "confirmed"),
        type="allergy",
        category=[category],
        criticality=criticality,
        code={"text": text},
        patient=patient(who),
        reaction=[{"manifestation": [{"text": manifestation}]}],
    )


def _observation(visit: str, kind: str, value: str) -> Resource:
    code, text, unit, ucum, category, (low, high) = KINDS[kind]
    ends = {"low": low, "high": high}
    limits = {end: quantity(limit, unit, ucum) for end, limit in ends.items() if limit is not None}
    return resource(
        "Observation",
        f"{visit}-{kind}",
        status="final",
        category=[concept("observation-category", category)],
        code=concept("loinc", code, text),
        **_refer_to_visit(visit),
        effectiveDateTime=_get_moment(visit),
        performer=[_doctor(visit)],
        valueQuantity=quantity(value, unit, ucum),
        interpretation=_interpretation(Decimal(value), low, high) if limits else None,
        referenceRange=[limits] if limits else None,
    )


def _interpretation(value: Decimal, low: str | None, high: str | None) -> list[Resource]:
    code = "L" if low and value < Decimal(low) else "H" if high and value > Decimal(high) else "N"
    return [concept("v3-ObservationInterpretation", code)]


def _pressure(visit: str) -> Resource:
    parts = [("8480-6", "Systolic blood pressure"), ("8462-4", "Diastolic blood pressure")]
    return resource(
        "Observation",
        f"{visit}-pressure",
        status="final",
        category=[concept("observation-category", "vital-signs")],
        code=concept("loinc", "85354-9", "Blood pressure panel"),
        **_refer_to_visit(visit),
        effectiveDateTime=_get_moment(visit),
        performer=[_doctor(visit)],
        component=[
            {"code": concept("loinc", code, text), "valueQuantity": quantity(value, "mmHg", "mm[Hg]")}
            for (code, text), value in zip(parts, PRESSURES[visit], strict=True)
        ],
    )


def _prescription(id: str) -> Resource:
    visit, code, text, times, reason, status = PRESCRIPTIONS[id]
    return resource(
        "MedicationRequest",
        id,
        status=status,
        intent="order",
        medicationCodeableConcept=concept("rxnorm", code, text),
        **_refer_to_visit(visit),
        authoredOn=ENCOUNTERS[visit][2],
        requester=_doctor(visit),
        reasonReference=[reference(f"Condition/{reason}")],
        dosageInstruction=[
            {
                "text": f"{times} a day",
                "timing": {"repeat": {"frequency": times, "period": 1, "periodUnit": "d"}},
                "asNeededBoolean": id == "chidi-albuterol",
            }
        ],
        dispenseRequest={"numberOfRepeatsAllowed": 0 if status == "completed" else 3},
    )


def _vaccination(who: str, code: str, text: str, date: str, lot: str) -> Resource:
    return resource(
        "Immunization",
        f"{who}-cvx-{code}",
        status="completed",
        vaccineCode=concept("cvx", code, text),
        patient=patient(who),
        occurrenceDateTime=date,
        primarySource=True,
        lotNumber=lot,
        performer=[{"actor": reference("Organization/riverbend")}],
    )


def _order(id: str, visit: str, code: str, text: str, status: str) -> Resource:
    return resource(
        "ServiceRequest",
        id,
        status=status,
        intent="order",
        code=concept("loinc", code, text),
        **_refer_to_visit(visit),
        authoredOn=_get_moment(visit),
        requester=_doctor(visit),
    )


def _referral() -> Resource:
    return resource(
        "ServiceRequest",
        "lucia-physical-therapy",
        status="active",
        intent="order",
        code={"text": "Physical therapy, six sessions"},
        **_refer_to_visit("lucia-knee"),
        authoredOn=_get_moment("lucia-knee"),
        requester=_doctor("lucia-knee"),
        performer=[practitioner("jl")],
        reasonReference=[reference("Condition/lucia-knee-arthritis")],
    )


def _report(id: str) -> Resource:
    visit, code, text, kinds = REPORTS[id]
    return resource(
        "DiagnosticReport",
        id,
        basedOn=[reference(f"ServiceRequest/{id}")],
        status="final",
        category=[concept("v2-0074", "LAB", "Laboratory")],
        code=concept("loinc", code, text),
        **_refer_to_visit(visit),
        effectiveDateTime=_get_moment(visit),
        issued=moment(ENCOUNTERS[visit][2], "17:00"),
        performer=[reference("Organization/riverbend")],
        result=[reference(f"Observation/{visit}-{kind}") for kind in kinds],
    )
