"""Whom a message is about, a Patient and a visit, and what surrounds both in every family."""

from __future__ import annotations

from collections.abc import Callable

from mappers.hl7v2.clinical import al1_to_allergy_intolerance, dg1_to_condition, obx_to_finding, pr1_to_procedure
from mappers.hl7v2.context import Context
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.insurance import gt1_to_guarantor, in1_to_coverage
from mappers.hl7v2.patients import Subject, nk1_to_related_person, pid_to_patient, read_concept
from mappers.hl7v2.rows import tell_unmapped
from mappers.hl7v2.visits import pid_to_account, pv1_to_encounter, rol_to_practitioner_role

NOTHING = Group("none")
"""Stands for a visit that is not told."""

DETAILS: dict[str, Callable[[Segment, Subject, Context], object]] = {
    "NK1": nk1_to_related_person,
    "ROL": rol_to_practitioner_role,
    "DG1": dg1_to_condition,
    "AL1": al1_to_allergy_intolerance,
    "OBX": obx_to_finding,
    "GT1": gt1_to_guarantor,
}
"""What maps a segment that stands beside PID."""


def map_subject(group: Group, visit: Group, context: Context) -> Subject:
    """The Patient of a group, the visit of the same or another one, and what surrounds both."""
    patient = pid_to_patient(group, context)
    account = pid_to_account(group.segment("PID"), patient, context)
    encounter = pv1_to_encounter(visit, patient, account, context) if visit.holds("PV1") else None
    subject = Subject(patient, encounter, account)
    tell_unmapped(group.all("NTE"), "a patient has no note.", context)
    for segment in group.segments:
        if segment.name in DETAILS:
            DETAILS[segment.name](segment, subject, context)
    for inner in group.list_children("PROCEDURE"):
        pr1_to_procedure(inner.segment("PR1"), subject, context)
        for role in inner.all("ROL"):
            rol_to_practitioner_role(role, subject, context)
    financial = read_concept(visit.segment("PV1"), 20, context, "FinancialClass")
    for holder in (group, *group.list_children("INSURANCE")):
        coverage = in1_to_coverage(holder, patient, context) if holder.holds("IN1") else None
        if coverage and financial:
            coverage.resource.setdefault("type", financial)
    return subject
