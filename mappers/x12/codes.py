"""Code systems, identifier systems, extensions and their X12 codes (https://terminology.hl7.org, https://x12.org/codes)."""

from __future__ import annotations

from fhir_server.fhir.urls import BASE

CPT = "http://www.ama-assn.org/go/cpt"
HCPCS = (
    "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "http://terminology.hl7.org/CodeSystem/HCPCS",
    "https://terminology.hl7.org/CodeSystem/HCPCS",
)
PROCEDURES = (CPT, *HCPCS)
ICD_10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
NPI = "http://hl7.org/fhir/sid/us-npi"
EIN = ("urn:oid:2.16.840.1.113883.4.4", "http://hl7.org/fhir/sid/us-ein")
SSN = "http://hl7.org/fhir/sid/us-ssn"
NDC = "http://hl7.org/fhir/sid/ndc"
POS = "https://www.cms.gov/Medicare/Coding/place-of-service-codes"
TAXONOMY = "http://nucc.org/provider-taxonomy"

X12 = "https://x12.org/codes"
GROUP = f"{X12}/claim-adjustment-group-codes"
CARC = f"{X12}/claim-adjustment-reason-codes"
RARC = f"{X12}/remittance-advice-remark-codes"
SERVICE_TYPE = f"{X12}/service-type-codes"
WHOLE_PLAN = "30"
"""The service type of the plan as a whole."""
CLAIM_STATUS_CATEGORY = f"{X12}/claim-status-category-codes"
CLAIM_STATUS = f"{X12}/claim-status-codes"
REJECT_REASON = f"{X12}/eligibility-reject-reason-codes"
RELATIONSHIP = f"{X12}/individual-relationship-codes"

HL7 = "http://terminology.hl7.org/CodeSystem"
ADJUDICATION = f"{HL7}/adjudication"
CLAIM_TYPE = f"{HL7}/claim-type"
PAYMENT_TYPE = f"{HL7}/payment-type"
PAYMENT_ADJUSTMENT = f"{X12}/provider-adjustment-reason-codes"
BENEFIT_TYPE = f"{HL7}/benefit-type"
BENEFIT_TERM = f"{HL7}/benefit-term"
BENEFIT_UNIT = f"{HL7}/benefit-unit"
BENEFIT_NETWORK = f"{HL7}/benefit-network"
IDENTIFIER_TYPE = f"{HL7}/v2-0203"

OURS = BASE
REMITTANCE_STATUS = f"{OURS}/CodeSystem/remittance-status"
DETAIL_TYPE = f"{OURS}/CodeSystem/payment-detail"
PAYMENT_METHOD = f"{OURS}/CodeSystem/payment-method"
REMARK = f"{OURS}/CodeSystem/adjudication"
BENEFIT_INFORMATION = f"{X12}/eligibility-or-benefit-information-codes"

PAYER_ID = f"{OURS}/identifier/payer"
PATIENT_CONTROL_NUMBER = f"{OURS}/identifier/patient-control-number"
PAYER_CONTROL_NUMBER = f"{OURS}/identifier/payer-control-number"
PAYMENT_NUMBER = f"{OURS}/identifier/payment"
DETAIL_KEY = f"{OURS}/identifier/payment-detail"
CLIA = f"{OURS}/identifier/clia"

EXTENSION = f"{OURS}/StructureDefinition"
ASSIGNMENT = f"{EXTENSION}/claim-assignment"
BENEFITS = f"{EXTENSION}/claim-benefits-assignment"
RELEASE = f"{EXTENSION}/claim-release-of-information"
SIGNATURE = f"{EXTENSION}/claim-patient-signature-source"
DELAY = f"{EXTENSION}/claim-delay-reason"
ORIGINAL_NUMBER = f"{EXTENSION}/claim-payer-control-number"
SECONDARY_TYPE = f"{EXTENSION}/coverage-medicare-secondary-type"
NONCOVERED = f"{EXTENSION}/claim-insurance-noncovered"
EMERGENCY = f"{EXTENSION}/claim-item-emergency"
AUTHORIZATION = f"{EXTENSION}/claim-item-authorization"
PAYMENT_METHOD_EXTENSION = f"{EXTENSION}/payment-method"
UNITS_PAID = f"{EXTENSION}/units-paid"
REMITTANCE_STATUS_EXTENSION = f"{EXTENSION}/remittance-status"

FILING_CODES: dict[str, str] = {
    # Coverage.type (Source of Payment Typology, v3 ActCode) to SBR09
    "1": "MB", "121": "MB", "2": "MC", "111": "16", "311": "CH", "32": "VA", "6": "BL", "511": "HM", "512": "12",
    "513": "13", "5": "CI", "95": "WC", "96": "AM", "EHCPOL": "CI", "HIP": "CI", "HMO": "HM", "PPO": "12", "POS": "13",
    "AUTOPOL": "AM", "WCBPOL": "WC",
}  # fmt: skip

RELATIONSHIPS: dict[str, str] = {
    # Coverage.relationship (subscriber-relationship) to PAT01 and SBR02
    "self": "18", "spouse": "01", "child": "19", "common": "53", "parent": "G8", "other": "G8", "injured": "G8",
}  # fmt: skip

SEQUENCES = "PSTABCDEFGH"
"""SBR01 by the rank of the coverage in its claim."""

ACCIDENTS: dict[str, str] = {"MVA": "AA", "WPA": "EM"}
"""Claim.accident.type to CLM11-1; any other is OA."""

ROLES: dict[str, str] = {
    # Claim.careTeam.role to the entity of NM101
    "primary": "82", "rendering": "82", "referring": "DN", "supervisor": "DQ", "supervising": "DQ", "ordering": "DK",
}  # fmt: skip

DATES: dict[str, str] = {
    # Claim.supportingInfo.category to DTP01 of loop 2300; a period's end is told by the second code
    "onset": "431", "initial-treatment": "454", "last-menstrual-period": "484", "last-seen": "304",
    "acute": "453", "x-ray": "455", "hospitalized": "435 096", "employmentimpacted": "360 361", "last-worked": "297",
    "return-to-work": "296",
}  # fmt: skip

DRUG_UNITS: dict[str, str] = {"mL": "ML", "ml": "ML", "g": "GR", "mg": "ME", "[iU]": "F2", "IU": "F2"}
"""UCUM to CTP05; any other is UN."""

DESCRIBED = frozenset({"J3490", "J3590", "J7999", "J8499", "J8999", "J9999", "E1399", "A9999", "99199", "T1999"})
"""Codes for what has no code of its own, which need SV101-7; a site gives its own list."""
