"""The operations of prescriptions: one file each, one row each in this table (docs/prescribing.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import Operation
from fhir_server.operations.prescribing.activate import activate

PRESCRIBING: tuple[Operation, ...] = (
    Operation(
        "activate",
        ("POST",),
        operation_url("medicationrequest-activate"),
        "A prescription is checked and becomes active.",
        activate,
        at={"MedicationRequest": ("instance",)},
        needs={"MedicationRequest": "ru"},
    ),
)
