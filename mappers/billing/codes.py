"""Code systems, identifier systems and extensions of billing (https://terminology.hl7.org, https://x12.org/codes)."""

from __future__ import annotations

from fhir_server.fhir.urls import BASE

CPT = "http://www.ama-assn.org/go/cpt"
HCPCS = "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
ICD_10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
NPI = "http://hl7.org/fhir/sid/us-npi"
EIN = ("urn:oid:2.16.840.1.113883.4.4", "http://hl7.org/fhir/sid/us-ein")
SSN = "http://hl7.org/fhir/sid/us-ssn"
NDC = "http://hl7.org/fhir/sid/ndc"
POS = "https://www.cms.gov/Medicare/Coding/place-of-service-codes"
TAXONOMY = "http://nucc.org/provider-taxonomy"
GROUP = "https://x12.org/codes/claim-adjustment-group-codes"
CARC = "https://x12.org/codes/claim-adjustment-reason-codes"
RARC = "https://x12.org/codes/remittance-advice-remark-codes"
ADJUDICATION = "http://terminology.hl7.org/CodeSystem/adjudication"
CLAIM_TYPE = "http://terminology.hl7.org/CodeSystem/claim-type"
PRIORITY = "http://terminology.hl7.org/CodeSystem/processpriority"
RELATED = "http://terminology.hl7.org/CodeSystem/ex-relatedclaimrelationship"
CARE_TEAM_ROLE = "http://terminology.hl7.org/CodeSystem/claimcareteamrole"
PAYMENT_TYPE = "http://terminology.hl7.org/CodeSystem/payment-type"
ACCIDENT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"

OURS = BASE
TASK = f"{OURS}/CodeSystem/task"
CLAIM_STATE = f"{OURS}/CodeSystem/claim-state"
CLAIM_OUTPUT = f"{OURS}/CodeSystem/claim-output"
LIBRARY_KIND = f"{OURS}/CodeSystem/library-kind"
REMITTANCE_STATUS = f"{OURS}/CodeSystem/remittance-status"
DETAIL_TYPE = f"{OURS}/CodeSystem/payment-detail"
PROVIDER_REASON = "https://x12.org/codes/provider-adjustment-reason-codes"

PAYER_ID = f"{OURS}/identifier/payer"
PATIENT_CONTROL_NUMBER = f"{OURS}/identifier/patient-control-number"
PAYER_CONTROL_NUMBER = f"{OURS}/identifier/payer-control-number"
CLIA = f"{OURS}/identifier/clia"
CLAIM_SOURCE = f"{OURS}/identifier/claim-source"
CHARGE_OF_PROCEDURE = f"{OURS}/identifier/charge-of-procedure"
TASK_KEY = f"{OURS}/identifier/task"
INVOICE_KEY = f"{OURS}/identifier/invoice"
REMITTANCE_KEY = f"{OURS}/identifier/remittance"
TRACE_KEY = f"{OURS}/identifier/remittance-trace"
RESPONSE_KEY = f"{OURS}/identifier/claim-response"
REVERSED_KEY = f"{OURS}/identifier/reversed-claim-response"
DETAIL_KEY = f"{OURS}/identifier/payment-detail"

EXTENSION = f"{OURS}/StructureDefinition"
MODIFIER = f"{EXTENSION}/charge-modifier"
PLACE_OF_SERVICE = f"{EXTENSION}/charge-place-of-service"
CHARGE_ITEM = f"{EXTENSION}/claim-item-charge"
ASSIGNMENT = f"{EXTENSION}/claim-assignment"
BENEFITS = f"{EXTENSION}/claim-benefits-assignment"
RELEASE = f"{EXTENSION}/claim-release-of-information"
FREQUENCY = f"{EXTENSION}/claim-frequency"
ORIGINAL_NUMBER = f"{EXTENSION}/claim-payer-control-number"
FORM = f"{EXTENSION}/claim-form"
RULE_SET = f"{EXTENSION}/claim-rule-set"
POSTING_DATE = f"{EXTENSION}/posting-date"
PAYMENT_METHOD_EXTENSION = f"{EXTENSION}/payment-method"
PROVIDER_REFERENCE = f"{EXTENSION}/provider-adjustment-reference"
DIGEST = f"{EXTENSION}/remittance-digest"
PAYMENT_PATIENT = f"{EXTENSION}/payment-patient"
POSTED_BY = f"{EXTENSION}/posted-by"
CLASSES = f"{EXTENSION}/adjustment-classes"
CLASS = f"{EXTENSION}/adjustment-class"
POSTED = f"{EXTENSION}/posted-adjustment"
FORWARDED = f"{EXTENSION}/claim-forwarded"
PAYER_SEQUENCE = f"{EXTENSION}/payer-sequence"
CLAIM_REFERENCE = f"{EXTENSION}/invoice-claim"

COVERAGE_KINDS: dict[str, str] = {
    # Source of Payment Typology (https://www.nahdo.org/sopt) to SBR09 of loop 2000B.
    "1": "MB", "121": "MB", "2": "MC", "111": "16", "311": "CH", "32": "VA", "6": "BL",
    "511": "HM", "512": "12", "513": "13", "5": "CI", "95": "WC", "96": "AM",
}  # fmt: skip

ROLES: dict[str, str] = {
    # ChargeItem.performer.function and Encounter.participant.type to Claim.careTeam.role.
    "primary": "primary", "PPRF": "primary", "ATND": "primary", "rendering": "primary",
    "referring": "referring", "REF": "referring", "REFB": "referring",
    "supervisor": "supervisor", "supervising": "supervisor", "SPRF": "supervisor",
}  # fmt: skip
