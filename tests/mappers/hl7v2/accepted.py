"""The differences from the samples that are meant: (message type, resource type, path, expected value, reason).

A row is a regular expression for each of path and value, and `*` stands for every message or resource type.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.mappers.hl7v2.comparison import Leaf


class Accepted(NamedTuple):
    """One row."""

    message: str
    type: str
    path: str
    value: str
    reason: str


ACCEPTED = (
    # Decided in docs/mappers/hl7v2.md.
    Accepted("ADT", "Encounter", "status", "in-progress|planned|finished|unknown", "A04 is arrived; A02 to A13 by the event"),
    Accepted("*", "*", ".*(dateTime|DateTime|Time|issued|start|end)", r"\d{4}-.*T.*", "a time without offset takes that of MSH-7, the samples that of their own zone"),
    Accepted("*", "Provenance", ".*", ".*", "recorded is EVN-2 and occurred is EVN-6, as the guide's EVN map says; the samples take MSH-7"),
    Accepted("*", "Patient", "identifier.type.coding.code", "sb", "PID-19 has the type SS in the US"),
    Accepted("*", "Patient", "identifier.type.coding.code", "m[ac]", "the Medicare and Medicaid numbers of IN2 are the Coverage's"),
    Accepted("*", "Patient", "identifier.type.coding.code", "good health hospital", "a code has no blanks"),
    Accepted("*", "Patient", "identifier.system", ".*us-medicare|urn:oid:1.3.6.1.4.1.44750.1.2.2", "identifiers of IN2 and of an account are not the patient's"),
    Accepted("*", "*", ".*communication.language.coding.code", "..", "the guide's PrimaryLanguage map is empty: the code of the message stays"),
    Accepted("*", "*", ".*telecom.use", "home", "CP is a mobile phone, which FHIR says by the use"),
    Accepted("*", "Patient", "name.given", "addsm", "XPN.15 is kept with the message: it is no second name of the person"),
    Accepted("*", "Observation", "status", "unknown", "S is preliminary and N is final without value (table ObservationResultStatusCodesInterpretation)"),
    Accepted("*", "Observation", "dataAbsentReason.coding.code", "cannot-be-obtained", "the code is of no FHIR code system"),
    Accepted("*", "Appointment", "appointmentType.coding.(code|system)", ".*", "SCH-7 of HL70276 is a reason, SCH-8 the type"),
    Accepted("*", "ServiceRequest", "intent", "filler-order|order", "order, and reflex-order for OBR-11 G, as the guide says"),
    Accepted("*", "ServiceRequest", "status", "entered-in-error", "the order of a deleted appointment stays"),
    Accepted("*", "*", "identifier.system", "urn:oid:2.16.840.1.113883.4.6", "the NPI has a URI of its own in FHIR"),
    Accepted("*", "Procedure", "performedDateTime", ".*", "PR1-7 is valued: the guide says performedPeriod"),
    Accepted("*", "Procedure", "performer.function.coding.code", "[a-z-]+", "the guide fixes codes of SNOMED CT"),
    Accepted("*", "Procedure", "identifier.value", "pr1001", "PR1-25 is the parent, in partOf"),
    Accepted("*", "Coverage", "identifier.(value|type.coding.code)", "pn-145|pln", "the policy number of IN1-36 gives way to the member id of IN2-61"),
    Accepted("*", "Specimen", "identifier.type.coding.code", "plac|fill", "the guide fixes PGN and FGN"),
    Accepted("*", "Appointment", "participant.status", "tentative", "the participant's own status is empty"),
    Accepted("*", "Specimen", ".*", ".*", "an OBR makes a Specimen only where OBR-9, 10, 14 or 15 tell of one, and SPM wins"),
    # Choices or faults of the samples.
    Accepted("*", "Encounter", "length.(system|unit)", "http://unitsofmeasure.org/|d", "the system has no slash, and the unit is days"),
    Accepted("*", "Encounter", "text.status", "generated", "the text comes from PV2-12; without it there is none"),
    Accepted("*", "Encounter", "priority.coding.code", "el", "only the first coding is translated"),
    Accepted("*", "Encounter", "location.status", "planned", "the location of PV2-1 alone is planned"),
    Accepted("*", "*", ".*relationship.coding.code", "child|n", "only the first coding is translated"),
    Accepted("*", "*", ".*coding.system", "https://terminology.hl7.org/CodeSystem-v2-.*", "no such code system"),
    Accepted("*", "*", ".*identifier.system", "urn:oid:(testcx42|assigningsystem|AssigningSystem)", "no object identifier"),
    Accepted("*", "*", ".*name.use", "official|anonymous|temp", "B and A have no translation in the guide; A28 names no visit"),
    Accepted("*", "Practitioner", "identifier.type.coding.code", "md-25", "NDL has no type of identifier"),
    Accepted("*", "Practitioner", "name.suffix", "mr", "XCN.6 is a prefix"),
    Accepted("*", "Organization", "identifier.(value|type.coding.(code|system))", "a|xx|http.*", "XON.10 of ROL-14 and RF1"),
    Accepted("*", "Organization", "name", "org2|csv uploads.*|2nd.*|cdc", "a field that may not repeat keeps its first value"),
    Accepted("*", "Condition", "identifier.type.coding.(code|system)", "clip|http.*v2-0301", "CLIP is the type of the authority, not of the identifier"),
    Accepted("*", "Condition", "code.coding.system", "http://hl7.org/fhir/sid/icd-10", "PDA is in no map of the guide"),
    Accepted("*", "Location", "type.coding.(code|system)", ".*", "PL.6 says what kind of person location it is: levels are physicalType"),
    Accepted("ADT", "Location", "name", ".*", "A28 and A31 name no visit, and PL.10 and DLD are named by their code"),
    Accepted("ADT", "Practitioner", "(identifier|name).*", ".*(1122334|c008|b|mohammed|alaz|condoc|leen|mahi|1924.*)", "A28 and A31 name no visit"),
    Accepted("*", "Patient", "contact.period.(start|end)", "20.*", "GT1 is the guarantor, not a contact"),
    Accepted("*", "Patient", "address.country", "us", "GT1 is the guarantor"),
    Accepted("ORU", "DiagnosticReport", "status", "entered-in-error", "OBR-25 is empty: unknown"),
    Accepted("ORU", "DiagnosticReport", "issued", "2023", "an instant needs a time of day; the text is kept"),
    Accepted("ORU", "ServiceRequest", "identifier.(value|type.coding.code)", "group identifier|pgn|orc alt", "ORC-4 is the requisition; OBR-53 wins over ORC-33"),
)  # fmt: skip


def find_reason(message: str, leaf: Leaf) -> str:
    """Why a difference is accepted, "" where it is not."""
    for row in ACCEPTED:
        if row.message in ("*", message) and row.type in ("*", leaf.type):
            if re.fullmatch(row.path, leaf.path) and re.fullmatch(row.value, leaf.value, re.IGNORECASE):
                return row.reason
    return ""
