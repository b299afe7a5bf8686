"""The operations from charges to draft claims: one file each, one row each in this table (docs/billing.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.charges.assemble import assemble
from fhir_server.operations.operation import Operation

CHARGES: tuple[Operation, ...] = (
    Operation(
        "assemble",
        ("POST",),
        operation_url("claim-assemble"),
        "Billable charges of an encounter, a patient or a period become draft Claims, each charge once.",
        assemble,
        at={"Claim": ("type",)},
        needs={"Claim": "c", "ChargeItem": "s"},
    ),
)
