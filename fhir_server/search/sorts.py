"""The sorts that walk an index over a whole type, in both directions (https://hl7.org/fhir/R4/search.html#sort).

A store answers them without looking at every resource, whether or not the search has criteria. Any other parameter
that has an order can be sorted by too: then all matches are looked at, as far as `protocol.Budget` allows.
"""

from __future__ import annotations

from collections.abc import Mapping

ALWAYS = ("_id", "_lastUpdated")
"""Declared for every resource type."""

SORTS: Mapping[str, tuple[str, ...]] = {
    "Account": ("name", "period", "status"),
    "AllergyIntolerance": ("clinical-status", "code", "date", "last-date", "onset"),
    "Appointment": ("appointment-type", "date", "service-type", "status"),
    "AppointmentResponse": ("part-status",),
    "AuditEvent": ("date", "type"),
    "CarePlan": ("category", "date", "status"),
    "ChargeItem": ("code", "entered-date", "occurrence"),
    "Claim": ("created", "identifier", "priority", "status", "use"),
    "ClaimResponse": ("created", "outcome", "payment-date", "status", "use"),
    "Communication": ("received", "sent", "status"),
    "Condition": ("category", "clinical-status", "code", "onset-date", "recorded-date", "severity"),
    "Consent": ("date", "period", "status"),
    "Coverage": ("identifier", "status", "type"),
    "CoverageEligibilityRequest": ("created", "status"),
    "CoverageEligibilityResponse": ("created", "outcome", "status"),
    "DiagnosticReport": ("category", "code", "date", "issued", "status"),
    "DocumentReference": ("category", "date", "description", "period", "status", "type"),
    "Encounter": ("class", "date", "location-period", "status", "type"),
    "EpisodeOfCare": ("date", "status", "type"),
    "ExplanationOfBenefit": ("created", "identifier", "status"),
    "Goal": ("lifecycle-status", "start-date", "target-date"),
    "ImagingStudy": ("modality", "started", "status"),
    "Immunization": ("date", "lot-number", "status", "vaccine-code"),
    "Invoice": ("date", "status", "type"),
    "Location": ("address-city", "name", "status", "type"),
    "MedicationAdministration": ("code", "effective-time", "status"),
    "MedicationRequest": ("authoredon", "code", "date", "intent", "status"),
    "MedicationStatement": ("code", "effective", "status"),
    "Observation": ("category", "code", "date", "status", "value-date"),
    "Organization": ("address-city", "identifier", "name", "type"),
    "Patient": ("birthdate", "death-date", "family", "gender", "given", "name"),
    "PaymentNotice": ("created", "payment-status", "status"),
    "PaymentReconciliation": ("created", "identifier", "outcome", "status"),
    "Practitioner": ("address-city", "family", "given", "identifier", "name"),
    "PractitionerRole": ("date", "role", "specialty"),
    "Procedure": ("category", "code", "date", "status"),
    "Provenance": ("recorded", "when"),
    "Questionnaire": ("date", "name", "status", "title"),
    "QuestionnaireResponse": ("authored", "status"),
    "RelatedPerson": ("birthdate", "name", "relationship"),
    "Schedule": ("date", "service-type", "specialty"),
    "ServiceRequest": ("authored", "category", "code", "occurrence", "priority", "status"),
    "Slot": ("service-type", "start", "status"),
    "Task": ("authored-on", "code", "modified", "period", "priority", "status"),
}
"""Search parameters by resource type, at most MOST each: strings, tokens and dates."""

MAX_SORTS = 6


def list_declared_sorts(type: str) -> tuple[str, ...]:
    """The parameters whose sort walks an index over all resources of a type."""
    return (*ALWAYS, *SORTS.get(type, ()))
