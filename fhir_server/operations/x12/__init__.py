"""The operations of X12: one file each, one row each in this table."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import ANY, Operation
from fhir_server.operations.x12 import transmit, x12
from fhir_server.requests.request import FHIR_JSON
from fhir_server.workers.x12_intake import EDI_X12

X12: tuple[Operation, ...] = (
    Operation(
        "x12",
        ("POST",),
        operation_url("x12"),
        "Takes X12 interchanges and answers with TA1 and 999, or with the Tasks of their transaction sets.",
        x12.x12,
        at={ANY: ("system",)},
        takes=(EDI_X12,),
        gives=(FHIR_JSON, EDI_X12),
        needs={"Task": "c", "Binary": "c"},
        most_bytes=None,
    ),
    Operation(
        "transmit",
        ("POST",),
        operation_url("transmit"),
        "Gives claims or an eligibility request to the partner who takes their payer, as X12, once.",
        transmit.transmit,
        at=transmit.LEVELS,
        needs={"*": "u"},
    ),
)
"""Rows of the operations of X12."""
