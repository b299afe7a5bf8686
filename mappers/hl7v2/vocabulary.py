"""Code systems of HL70396 and the translations of HL70nnn codes to FHIR's.

https://www.hl7.eu/HL7v2x/v28/std28/ch02C.html#Heading396 and the concept maps of https://build.fhir.org/ig/HL7/v2-to-fhir
(`tables/concepts.tsv`; `tables/decisions.tsv` holds the rows that this project decides and wins).
"""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import quote

from mappers.hl7v2.partner import Partner, Target
from mappers.hl7v2.tables import read_table

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"

SYSTEMS = {
    "LN": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "SNOMED": "http://snomed.info/sct",
    "SNM": "http://snomed.info/sct",
    "I9": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9CDX": "http://hl7.org/fhir/sid/icd-9-cm",
    "ICD9": "http://hl7.org/fhir/sid/icd-9-cm",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "I10P": "http://www.cms.gov/Medicare/Coding/ICD10",
    "C4": "http://www.ama-assn.org/go/cpt",
    "C5": "http://www.ama-assn.org/go/cpt",
    "CPT": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "HPC": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "HCPCS": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "MVX": "http://hl7.org/fhir/sid/mvx",
    "UCUM": "http://unitsofmeasure.org",
    "ISO+": "urn:iso:std:iso:2955",
    "ISO": "urn:iso:std:iso:2955",
    "ISO3166_1": "urn:iso:std:iso:3166",
    "ISO639": "urn:iso:std:iso:639:-2",
    "CDCREC": "urn:oid:2.16.840.1.113883.6.238",
    "ICDO": "http://terminology.hl7.org/CodeSystem/icd-o-3",
    "ICDO3": "http://terminology.hl7.org/CodeSystem/icd-o-3",
    "NUCC": "http://nucc.org/provider-taxonomy",
}
"""Names of HL70396 with the URI that FHIR gives them: https://hl7.org/fhir/R4/terminologies-systems.html."""

OBJECT_IDENTIFIERS = {
    "2.16.840.1.113883.6.1": "http://loinc.org",
    "2.16.840.1.113883.6.96": "http://snomed.info/sct",
    "2.16.840.1.113883.6.88": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "2.16.840.1.113883.6.90": "http://hl7.org/fhir/sid/icd-10-cm",
    "2.16.840.1.113883.6.3": "http://hl7.org/fhir/sid/icd-10",
    "2.16.840.1.113883.6.12": "http://www.ama-assn.org/go/cpt",
    "2.16.840.1.113883.6.8": "http://unitsofmeasure.org",
    "2.16.840.1.113883.4.1": "http://hl7.org/fhir/sid/us-ssn",
    "2.16.840.1.113883.4.6": "http://hl7.org/fhir/sid/us-npi",
}
"""Object identifiers that have a URI of their own in FHIR."""

HL7_TABLE = re.compile(r"HL7(\d{3,4})", re.ASCII)
OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
URI = re.compile(r"(?:https?|urn):\S+")


def find_system(name: str, oid: str, partner: Partner) -> str:
    """The URI of a coding system by its name of HL70396 or its object identifier; "" where neither is told."""
    if name in partner.code_systems:
        return partner.code_systems[name]
    if found := HL7_TABLE.fullmatch(name):
        return f"{TERMINOLOGY}v2-{int(found[1]):04}"
    if known := SYSTEMS.get(name.upper()):
        return known
    if oid and OID.fullmatch(oid):
        return OBJECT_IDENTIFIERS.get(oid) or f"urn:oid:{oid}"
    if URI.fullmatch(name):
        return name
    return f"{partner.root}/code-system/{quote(name)}" if name else ""


@cache
def read_concepts(vocabulary: str) -> dict[str, Target]:
    """The translations of a vocabulary, by the code of v2."""
    concepts: dict[str, Target] = {}
    for name in ("concepts.tsv", "decisions.tsv"):
        for title, code, target, display, system in read_table(name):
            if title == vocabulary:
                concepts[code] = Target(target, system, display)
    return concepts


def translate(code: str, vocabulary: str, field: str, partner: Partner) -> Target | None:
    """What a code becomes by the partner's translations, of the field or the vocabulary, or else by the tables."""
    for key in (field, vocabulary):
        told = partner.translations.get(key, {}).get(code) if key else None
        if told:
            return Target(*told)
    concepts = read_concepts(vocabulary) if vocabulary else {}
    return concepts.get(code) or (concepts.get(code.upper()) if code else None)
