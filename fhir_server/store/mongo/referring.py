"""By which terms a resource is found that refers to another one (https://hl7.org/fhir/R4/references.html#literal).

A literal reference `Type/id` is a term `=Type/id`, unless a search parameter of `CODES` holds the same text: a resource
has three references on average, and nearly all of them stand in its terms already. What such a parameter holds without
that a reference keeps its target from being deleted (a version-specific one, a Task of the message log) stands in the
field `loose`, as the term that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_server.search.entries import Entries
from fhir_server.store.checks import SOURCES_SHOWN

LOOSE = "loose"

CODES: Mapping[str, tuple[str, ...]] = {
    "AllergyIntolerance": ("patient",),
    "Appointment": ("actor", "slot"),
    "CarePlan": ("subject", "encounter", "condition", "goal"),
    "Claim": ("patient", "encounter", "provider"),
    "Condition": ("subject", "encounter"),
    "Coverage": ("beneficiary", "payor"),
    "DiagnosticReport": ("subject", "encounter", "result"),
    "DocumentReference": ("subject", "encounter", "author"),
    "Encounter": ("subject", "participant", "service-provider"),
    "ExplanationOfBenefit": ("patient", "encounter", "claim", "provider"),
    "Goal": ("subject",),
    "ImagingStudy": ("subject", "encounter"),
    "Immunization": ("patient",),
    "MedicationRequest": ("subject", "encounter", "requester"),
    "Observation": ("subject", "encounter"),
    "Procedure": ("subject", "encounter", "reason-reference"),
    "ServiceRequest": ("subject", "encounter", "requester"),
    "Slot": ("schedule",),
}
"""By type the parameters that hold most of its references; each is one more term to look for when a target is deleted.

May be changed only with a new `deployment.SCHEMA_VERSION`, and what is taken away needs a reindex.
"""


def build_terms(type: str, entries: Entries) -> list[str]:
    """The terms of the references that no parameter of `CODES` holds."""
    held = {value for code in CODES.get(type, ()) for value in entries.terms.get(code, ())}
    return [f"={reference}" for reference in entries.references if reference not in held]


def list_loose(type: str, entries: Entries) -> list[str]:
    """The terms of `CODES` that read as references to resources here and are not among the references."""
    references = set(entries.references)
    return [
        f"{code}={value}"
        for code in CODES.get(type, ())
        for value in entries.terms.get(code, ())
        if value not in references and value.count("/") == 1
    ]


def build_sources_pipeline(type: str, targets: Sequence[str], ignored: Sequence[str]) -> list[dict[str, Any]]:
    """What refers to a target, some of each: `source`, and `targets`, the terms by which it does.

    `ignored`: ids that are not asked about.
    """
    codes = CODES.get(type, ())
    wanted = [f"{code}={target}" for target in targets for code in ("", *codes)]
    found: dict[str, Any] = {"$setIntersection": ["$terms", wanted]}
    checked: list[dict[str, Any]] = []
    if codes:
        found = {"$setDifference": [found, {"$ifNull": [f"${LOOSE}", []]}]}
        checked = [{"$match": {"targets": {"$ne": []}}}]
    return [
        {"$match": {"terms": {"$in": wanted}, "_id": {"$nin": list(ignored)}}},
        {"$project": {"_id": 0, "source": {"$concat": [f"{type}/", "$_id"]}, "targets": found}},
        *checked,
        {"$limit": SOURCES_SHOWN * len(targets)},
    ]
