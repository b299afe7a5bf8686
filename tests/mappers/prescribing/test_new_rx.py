"""NewRx-shaped documents: every field that R4's own mapping of SCRIPT names is there, with the value of its element."""

from __future__ import annotations

from typing import Any

import pytest

from mappers.prescribing.medicines import Medicine
from mappers.prescribing.new_rx import Order, find_missing, order_to_new_rx
from tests.mappers.prescribing.prescriptions import DEA, NPI, Tree, practitioner, prescription

NDC = {"system": "http://hl7.org/fhir/sid/ndc", "code": "0093-3109-01", "display": "Amoxicillin 500 mg capsule"}
RXNORM = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "308191"}
MR = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}
ADDRESS = {"line": ["1 Elm St", "Apt 2"], "city": "Chicago", "state": "IL", "postalCode": "60601", "country": "US"}


def patient(**more: Any) -> Tree:
    return {
        "resourceType": "Patient",
        "id": "ada",
        "identifier": [{"type": MR, "value": "M7"}],
        "name": [{"use": "nickname", "given": ["A"]}, {"use": "official", "family": "Oak", "given": ["Ada", "May"]}],
        "gender": "female",
        "birthDate": "1980-02-03",
        "address": [ADDRESS],
        "telecom": [{"system": "phone", "value": "312-555-0100"}],
        **more,
    }


def order(request: Tree | None = None, medicine: Medicine | None = None, **who: Any) -> Order:
    doctor = {**practitioner(dea=DEA), "name": [{"family": "Pine", "given": ["Paul"]}]}
    pharmacy = {
        "resourceType": "Organization",
        "name": "Corner Pharmacy",
        "identifier": [
            {"system": "http://terminology.hl7.org/NamingSystem/NCPDPProviderIdentificationNumber", "value": "1234567"}
        ],
        "telecom": [{"system": "fax", "value": "312-555-0199"}],
    }
    chosen = {"patient": patient(), "prescriber": [doctor], "pharmacy": pharmacy, **who}
    return Order(request or full(), full()["medicationCodeableConcept"], medicine or Medicine(), **chosen)


def full(**more: Any) -> Tree:
    request = prescription(
        status="active",
        identifier=[{"system": "urn:rx", "value": "RX-1"}],
        authoredOn="2026-03-02T09:00:00-06:00",
        medicationCodeableConcept={"coding": [NDC, RXNORM]},
        reasonCode=[
            {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J02.9"}], "text": "Sore throat"}
        ],
        note=[{"text": "no hurry"}],
        **more,
    )
    request["dispenseRequest"] |= {"numberOfRepeatsAllowed": 2, "quantity": {"value": 30, "code": "C48480"}}
    return request


def newrx(order: Order) -> Tree:
    body: Tree = order_to_new_rx(order)["Message"]["Body"]["NewRx"]
    return body


def test_the_fields_of_r4s_mapping() -> None:
    """https://hl7.org/fhir/R4/medicationrequest-mappings.html#script10.6

    `Refills` and `Directions` of SCRIPT 10.6 are `NumberOfRefills` and `Sig` since 2017071; `Diagnosis/Primary/Value`
    is `Code`.
    """
    document = order_to_new_rx(order())
    assert document["Message"]["Header"] == {"PrescriberOrderNumber": "RX-1"}
    drug = newrx(order())["MedicationPrescribed"]
    assert drug == {
        "DrugDescription": "Amoxicillin 500 mg capsule",
        "DrugCoded": {
            "ProductCode": {"Code": "0093310901", "Qualifier": "ND"},
            "DrugDBCode": {"Code": "308191"},
        },
        "Quantity": {"Value": "30", "CodeListQualifier": "38", "QuantityUnitOfMeasure": {"Code": "C48480"}},
        "DaysSupply": "30",
        "WrittenDate": {"Date": "2026-03-02"},
        "Substitutions": "0",
        "NumberOfRefills": "2",
        "Diagnosis": {
            "ClinicalInformationQualifier": "1",
            "Primary": {"Code": "J029", "Qualifier": "ABF", "Description": "Sore throat"},
        },
        "Note": "no hurry",
        "Sig": {"SigText": "1 tablet a day"},
    }


def test_who_takes_part() -> None:
    parties = newrx(order())
    assert parties["Patient"]["HumanPatient"] == {
        "Identification": {"MedicalRecordIdentificationNumberEHR": "M7"},
        "Name": {"LastName": "Oak", "FirstName": "Ada", "MiddleName": "May"},
        "Gender": "F",
        "DateOfBirth": {"Date": "1980-02-03"},
        "Address": {
            "AddressLine1": "1 Elm St",
            "AddressLine2": "Apt 2",
            "City": "Chicago",
            "StateProvince": "IL",
            "PostalCode": "60601",
            "CountryCode": "US",
        },
        "CommunicationNumbers": {"PrimaryTelephone": {"Number": "312-555-0100"}},
    }
    assert parties["Prescriber"]["NonVeterinarian"] == {
        "Identification": {"NPI": NPI, "DEANumber": DEA},
        "Name": {"LastName": "Pine", "FirstName": "Paul"},
    }
    assert parties["Pharmacy"] == {
        "Identification": {"NCPDPID": "1234567"},
        "BusinessName": "Corner Pharmacy",
        "CommunicationNumbers": {"Fax": {"Number": "312-555-0199"}},
    }
    assert "Pharmacy" not in newrx(order(pharmacy=None))


@pytest.mark.parametrize(("schedule", "code"), [("II", "C48675"), ("III", "C48676"), ("IV", "C48677"), ("V", "C48679")])
def test_the_schedule_is_a_code_of_the_nci_thesaurus(schedule: str, code: str) -> None:
    coded = newrx(order(medicine=Medicine(schedule=schedule)))["MedicationPrescribed"]["DrugCoded"]
    assert coded["DEASchedule"] == {"Code": code}


@pytest.mark.parametrize(
    ("substitution", "code"),
    [
        ({"allowedBoolean": True}, "0"),
        ({"allowedBoolean": False}, "1"),
        (
            {
                "allowedCodeableConcept": {
                    "coding": [
                        {"system": "http://terminology.hl7.org/CodeSystem/v3-substanceAdminSubstitution", "code": "N"}
                    ]
                }
            },
            "1",
        ),
    ],
)
def test_substitution(substitution: Tree, code: str) -> None:
    """`0`: allowed; `1`: the prescriber allows none."""
    assert newrx(order(full(substitution=substitution)))["MedicationPrescribed"]["Substitutions"] == code


def test_weeks_are_days() -> None:
    request = full()
    request["dispenseRequest"]["expectedSupplyDuration"] = {"value": 2, "code": "wk"}
    assert newrx(order(request))["MedicationPrescribed"]["DaysSupply"] == "14"


def test_what_a_pharmacy_would_miss() -> None:
    assert find_missing(order()) == []
    bare = order({**full(), "dosageInstruction": [{"doseAndRate": []}]}, patient={}, prescriber=[practitioner()])
    assert [each.expression[0] for each in find_missing(bare)] == [
        "MedicationRequest.subject",
        "MedicationRequest.subject",
        "MedicationRequest.subject",
        "MedicationRequest.requester",
        "MedicationRequest.dosageInstruction",
    ]
