"""A MedicationRequest as a document shaped like NewRx of NCPDP SCRIPT, as plain JSON (docs/prescribing.md).

The names of the fields are public facts; the column `script10.6` of https://hl7.org/fhir/R4/medicationrequest-mappings.html
says from which element most of them come. It is no SCRIPT message: the schema is for members of NCPDP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.fhir.outcome import Issue
from mappers.billing.fields import Resource, find_code, find_codings, to_decimal
from mappers.prescribing.checks import to_days
from mappers.prescribing.codes import DEA_SCHEDULES, ICD_10_CM, IDENTIFIER_TYPE, NCPDP_ID, NDC, RXNORM, SUBSTITUTION
from mappers.prescribing.medicines import Medicine
from mappers.prescribing.prescribers import find_dea, find_npi
from mappers.scheduling.elements import code_of, list_codings, members, texts

_GENDERS = {"male": "M", "female": "F"}
_PHONES = {"phone": "PrimaryTelephone", "fax": "Fax"}


@dataclass(frozen=True, slots=True)
class Order:
    """What a pharmacy is told of: the MedicationRequest, its drug, and who takes part.

    `concept`: the drug as a CodeableConcept. `prescriber`: the Practitioner, then the PractitionerRole. `pharmacy`: the
    Organization of `dispenseRequest.performer`; None where the pharmacy is still to be chosen.
    """

    request: Resource
    concept: Resource
    medicine: Medicine
    patient: Resource
    prescriber: Sequence[Resource]
    pharmacy: Resource | None = None


def find_missing(order: Order) -> list[Issue]:
    """What a pharmacy has to know and is not told."""
    document = order_to_new_rx(order)["Message"]["Body"]["NewRx"]
    return [
        Issue("error", "required", f"A pharmacy needs the {name}.", (f"MedicationRequest.{element}",))
        for element, name, path in _NEEDED
        if not _find(document, path)
    ]


_NEEDED = (
    ("subject", "patient's last name", "Patient/HumanPatient/Name/LastName"),
    ("subject", "patient's first name", "Patient/HumanPatient/Name/FirstName"),
    ("subject", "patient's date of birth", "Patient/HumanPatient/DateOfBirth/Date"),
    ("requester", "prescriber's last name", "Prescriber/NonVeterinarian/Name/LastName"),
    ("medication", "name of the drug", "MedicationPrescribed/DrugDescription"),
    ("dosageInstruction", "dosage as a text", "MedicationPrescribed/Sig/SigText"),
)


def _find(document: Resource, path: str) -> Any:
    found: Any = document
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def order_to_new_rx(order: Order) -> dict[str, Any]:
    """The document; what is not known is left out."""
    request = order.request
    number = next((str(each["value"]) for each in members(request, "identifier") if each.get("value")), request["id"])
    body = {
        "Patient": {"HumanPatient": _describe_patient(order.patient)},
        **({"Pharmacy": _describe_pharmacy(order.pharmacy)} if order.pharmacy else {}),
        "Prescriber": {"NonVeterinarian": _describe_prescriber(order.prescriber)},
        "MedicationPrescribed": _describe_medication(order),
    }
    return {"Message": {"Header": {"PrescriberOrderNumber": number}, "Body": {"NewRx": body}}}


def _describe_patient(patient: Resource) -> Resource:
    number = _find_identifier(patient, "MR")
    return _compact(
        {
            "Identification": _compact({"MedicalRecordIdentificationNumberEHR": number}),
            "Name": _describe_name(patient),
            "Gender": _GENDERS.get(code_of(patient, "gender"), "U"),
            "DateOfBirth": _compact({"Date": patient.get("birthDate")}),
            **_describe_contact([patient]),
        }
    )


def _describe_prescriber(people: Sequence[Resource]) -> Resource:
    person = people[0] if people else {}
    numbers = _compact({"NPI": find_npi(people), "DEANumber": find_dea(people)})
    return _compact({"Identification": numbers, "Name": _describe_name(person), **_describe_contact(people)})


def _describe_pharmacy(pharmacy: Resource) -> Resource:
    own = (str(each.get("value", "")) for each in members(pharmacy, "identifier") if each.get("system") == NCPDP_ID)
    numbers = _compact({"NCPDPID": next(own, ""), "NPI": find_npi([pharmacy])})
    return _compact({"Identification": numbers, "BusinessName": pharmacy.get("name"), **_describe_contact([pharmacy])})


def _describe_name(person: Resource) -> Resource:
    """The official name, else the first one."""
    names = members(person, "name")
    name = next((each for each in names if each.get("use") == "official"), names[0] if names else {})
    given = texts(name, "given")
    return _compact(
        {
            "LastName": name.get("family"),
            "FirstName": given[0] if given else "",
            "MiddleName": " ".join(given[1:]),
            "Suffix": " ".join(texts(name, "suffix")),
        }
    )


def _describe_contact(parties: Iterable[Resource]) -> Resource:
    """The first address, telephone and fax among the parties."""
    parties = list(parties)
    addresses = [each for party in parties for each in members(party, "address")]
    contacts = [each for party in parties for each in members(party, "telecom")]
    numbers: Resource = {}
    for contact in contacts:
        name = _PHONES.get(code_of(contact, "system"))
        if name and contact.get("value"):
            numbers.setdefault(name, {"Number": contact["value"]})
    address = addresses[0] if addresses else {}
    lines = texts(address, "line")
    return {
        "Address": _compact(
            {
                "AddressLine1": lines[0] if lines else "",
                "AddressLine2": " ".join(lines[1:]),
                "City": address.get("city"),
                "StateProvince": address.get("state"),
                "PostalCode": address.get("postalCode"),
                "CountryCode": address.get("country"),
            }
        ),
        "CommunicationNumbers": numbers,
    }


def _describe_medication(order: Order) -> Resource:
    request, dispense = order.request, order.request.get("dispenseRequest") or {}
    dosages = [str(each["text"]) for each in members(request, "dosageInstruction") if each.get("text")]
    notes = [str(each["text"]) for each in members(request, "note") if each.get("text")]
    days = to_days(dispense.get("expectedSupplyDuration"))
    return _compact(
        {
            "DrugDescription": _name_drug(order.concept),
            "DrugCoded": _describe_codes(order),
            "Quantity": _describe_quantity(dispense.get("quantity") or {}),
            "DaysSupply": None if days is None else str(days.normalize() if days % 1 else int(days)),
            "WrittenDate": _compact({"Date": str(request.get("authoredOn", ""))[:10]}),
            "Substitutions": "1" if _forbids_substitution(request) else "0",
            "NumberOfRefills": str(to_decimal(dispense.get("numberOfRepeatsAllowed"))),
            "Diagnosis": _describe_diagnosis(request),
            "Note": " ".join(notes),
            "Sig": _compact({"SigText": " ".join(dosages)}),
        }
    )


def _name_drug(concept: Resource) -> str:
    displays = [str(each["display"]) for each in find_codings(concept) if each.get("display")]
    return str(concept.get("text") or (displays[0] if displays else ""))


def _describe_codes(order: Order) -> Resource:
    ndc, rxnorm = find_code(order.concept, NDC), find_code(order.concept, RXNORM)
    schedule = DEA_SCHEDULES.get(order.medicine.schedule)
    return _compact(
        {
            "ProductCode": {"Code": ndc.replace("-", ""), "Qualifier": "ND"} if ndc else None,
            # which kind of RxNorm concept it is (SCD, SBD …) is the qualifier, and is not known here
            "DrugDBCode": {"Code": rxnorm} if rxnorm else None,
            "DEASchedule": {"Code": schedule} if schedule else None,
        }
    )


def _describe_quantity(quantity: Resource) -> Resource:
    """`38`: the amount that was ordered."""
    unit = quantity.get("code") or quantity.get("unit")
    value = quantity.get("value")
    return _compact(
        {
            "Value": None if value is None else str(to_decimal(value)),
            "CodeListQualifier": "38",
            "QuantityUnitOfMeasure": {"Code": unit} if unit else None,
        }
    )


def _forbids_substitution(request: Resource) -> bool:
    substitution = request.get("substitution") or {}
    none = f"{SUBSTITUTION}|N" in list_codings(substitution.get("allowedCodeableConcept"))
    return none or substitution.get("allowedBoolean") is False


def _describe_diagnosis(request: Resource) -> Resource | None:
    """The first reason that has an ICD-10-CM code (`ABF`), told by the prescriber (`1`)."""
    for reason in members(request, "reasonCode"):
        for coding in find_codings(reason):
            if coding.get("system") == ICD_10_CM and coding.get("code"):
                primary = {"Code": str(coding["code"]).replace(".", ""), "Qualifier": "ABF"}
                text = reason.get("text") or coding.get("display")
                primary |= {"Description": str(text)} if text else {}
                return {"ClinicalInformationQualifier": "1", "Primary": primary}
    return None


def _find_identifier(resource: Resource, type: str) -> str:
    for identifier in members(resource, "identifier"):
        if f"{IDENTIFIER_TYPE}|{type}" in list_codings(identifier.get("type")):
            return str(identifier.get("value", ""))
    return ""


def _compact(fields: Resource) -> Resource:
    """Without what is empty."""
    return {name: value for name, value in fields.items() if value not in (None, "", {})}
