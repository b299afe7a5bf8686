"""The operations of claims that go out: one file each, one row each in this table (docs/billing.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.billing.cms1500 import PDF, cms1500
from fhir_server.operations.billing.scrub import scrub
from fhir_server.operations.billing.split import split
from fhir_server.operations.operation import Operation
from fhir_server.requests.request import FHIR_JSON

BILLING: tuple[Operation, ...] = (
    Operation(
        "scrub",
        ("POST",),
        operation_url("claim-scrub"),
        "What is wrong with a claim and how to mend it; a stored claim becomes ready or held.",
        scrub,
        at={"Claim": ("type", "instance")},
        needs={"Claim": "ru"},
    ),
    Operation(
        "split",
        ("POST",),
        operation_url("claim-split"),
        "What the practice's rules make of a claim, tried or committed.",
        split,
        at={"Claim": ("instance",)},
        needs={"Claim": "cu"},
    ),
    Operation(
        "cms1500",
        ("GET", "POST"),
        operation_url("claim-cms1500"),
        "A claim as the texts of the paper form CMS-1500, as a PDF or box by box.",
        cms1500,
        at={"Claim": ("type", "instance")},
        gives=(FHIR_JSON, PDF),
        needs={"Claim": "r"},
    ),
)
