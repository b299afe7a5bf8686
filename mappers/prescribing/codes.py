"""Code systems, identifier systems and extensions of prescriptions (https://terminology.hl7.org)."""

from __future__ import annotations

from fhir_server.fhir.urls import code_system_url, extension_url

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
NPI = ("http://hl7.org/fhir/sid/us-npi", "urn:oid:2.16.840.1.113883.4.6")
DEA = ("urn:oid:2.16.840.1.113883.4.814", "http://terminology.hl7.org/NamingSystem/USDEANumber")
"""Systems of DEA registration numbers; an identifier of the type `DEA` is one in any system."""

SUBSTITUTION = "http://terminology.hl7.org/CodeSystem/v3-substanceAdminSubstitution"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
NDC = "http://hl7.org/fhir/sid/ndc"
ICD_10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
NCPDP_ID = "http://terminology.hl7.org/NamingSystem/NCPDPProviderIdentificationNumber"
"""The system of the number that NCPDP gives a pharmacy."""

SCHEDULE = extension_url("controlled-substance-schedule")
"""On MedicationRequest or Medication: a CodeableConcept of the schedule of a controlled substance."""

CHECK = code_system_url("prescribing-check")
TASK = code_system_url("task")
REFILL_REQUEST = "refill-request"
RENEWAL = "renewal"
"""The code of a Task by which somebody asks for more of a drug, and of its output that names the new prescription."""

DEA_SCHEDULES = {"I": "C48672", "II": "C48675", "III": "C48676", "IV": "C48677", "V": "C48679"}
"""Schedule → its code in the NCI Thesaurus."""

SCHEDULES = {
    **{roman: roman for roman in ("I", "II", "III", "IV", "V")},
    **{f"C{roman}": roman for roman in ("I", "II", "III", "IV", "V")},
    **{code: roman for roman, code in DEA_SCHEDULES.items()},
}
"""Schedule by code: HL7 table 0477, the letters on labels, and the NCI Thesaurus, which NCPDP and the FDA use."""

UNSCHEDULED = frozenset({"VI"})
"""Codes of table 0477 that are no schedule of the Controlled Substances Act."""
