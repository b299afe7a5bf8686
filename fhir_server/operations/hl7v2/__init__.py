"""The operations of HL7 v2: one file each, one row each in this table."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.hl7v2 import hl7v2
from fhir_server.operations.operation import ANY, Operation
from fhir_server.requests.request import FHIR_JSON
from fhir_server.workers.hl7v2_intake import ER7

HL7V2: tuple[Operation, ...] = (
    Operation(
        "hl7v2",
        ("POST",),
        operation_url("hl7v2"),
        "Takes HL7 v2 messages and answers with their acknowledgements.",
        hl7v2.hl7v2,
        at={ANY: ("system",)},
        takes=(ER7,),
        gives=(ER7, FHIR_JSON),
        needs={"Task": "c", "Binary": "c"},
        most_bytes=None,
    ),
)
"""Rows of the operations of HL7 v2."""
