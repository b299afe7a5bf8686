"""The operations of prescriptions: one file each, one row each in this table (docs/prescribing.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import ANY, Level, Operation
from fhir_server.operations.prescribing.activate import activate
from fhir_server.operations.prescribing.discontinue import discontinue
from fhir_server.operations.prescribing.new_rx import JSON, new_rx
from fhir_server.operations.prescribing.renew import renew

_ON_ONE: dict[str, tuple[Level, ...]] = {"MedicationRequest": ("instance",)}

PRESCRIBING: tuple[Operation, ...] = (
    Operation(
        "activate",
        ("POST",),
        operation_url("medicationrequest-activate"),
        "A prescription is checked and becomes active.",
        activate,
        at=_ON_ONE,
        needs={"MedicationRequest": "ru"},
    ),
    Operation(
        "renew",
        ("POST",),
        operation_url("medicationrequest-renew"),
        "A draft that continues a prescription, which answers its refill requests.",
        renew,
        at={**_ON_ONE, "Task": ("instance",)},
        needs={"MedicationRequest": "cr", ANY: "r"},
    ),
    Operation(
        "discontinue",
        ("POST",),
        operation_url("medicationrequest-discontinue"),
        "A prescription is stopped, or withdrawn before it was used.",
        discontinue,
        at=_ON_ONE,
        needs={"MedicationRequest": "ru"},
    ),
    Operation(
        "new-rx",
        ("GET",),
        operation_url("medicationrequest-new-rx"),
        "An active prescription as a document shaped like NewRx of NCPDP SCRIPT.",
        new_rx,
        at=_ON_ONE,
        gives=(JSON,),
        needs={"MedicationRequest": "r", "Patient": "r", "Practitioner": "r"},
    ),
)
