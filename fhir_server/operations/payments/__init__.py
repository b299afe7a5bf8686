"""The operations of money that comes in: one file each, one row each in this table (docs/payments.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import ANY, Level, Operation
from fhir_server.operations.payments.adjust import adjust
from fhir_server.operations.payments.give_back import refund, reverse
from fhir_server.operations.payments.ledger import CSV, balance, ledger
from fhir_server.operations.payments.pay import pay
from fhir_server.operations.payments.post import post
from fhir_server.operations.payments.report import report
from fhir_server.operations.payments.statement import PDF, TEXT, statement
from fhir_server.requests.request import FHIR_JSON

_ONE: tuple[Level, ...] = ("instance",)
_PAYMENT = {"PaymentReconciliation": _ONE}


def _report(code: str, documentation: str) -> Operation:
    at: dict[str, tuple[Level, ...]] = {ANY: ("system",)}
    needs = {"ChargeItem": "s", "Claim": "s", "ClaimResponse": "s", "PaymentReconciliation": "s"}
    url, gives = operation_url(code), (FHIR_JSON, CSV)
    return Operation(code, ("GET", "POST"), url, documentation, report, at=at, gives=gives, needs=needs, as_job=True)


PAYMENTS: tuple[Operation, ...] = (
    Operation(
        "pay",
        ("POST",),
        operation_url("patient-pay"),
        "A patient pays on an Appointment, Encounter, Claim or Invoice.",
        pay,
        at={"Patient": _ONE},
        needs={"PaymentReconciliation": "c"},
    ),
    Operation(
        "post",
        ("POST",),
        operation_url("payment-post"),
        "A remittance that a person typed is posted, by the same laws as an 835.",
        post,
        at={"PaymentReconciliation": ("type",)},
        needs={"PaymentReconciliation": "c"},
    ),
    Operation(
        "refund",
        ("POST",),
        operation_url("payment-refund"),
        "Money of a patient is given back, at most what is left of the payment.",
        refund,
        at=_PAYMENT,
        needs={"PaymentReconciliation": "c"},
    ),
    Operation(
        "reverse",
        ("POST",),
        operation_url("payment-reverse"),
        "A patient's payment or an adjustment by hand is taken back.",
        reverse,
        at=_PAYMENT,
        needs={"PaymentReconciliation": "c"},
    ),
    Operation(
        "adjust",
        ("POST",),
        operation_url("claim-adjust"),
        "What is open of a claim is written off by hand.",
        adjust,
        at={"Claim": _ONE},
        needs={"PaymentReconciliation": "c", "Claim": "r"},
    ),
    Operation(
        "ledger",
        ("GET", "POST"),
        operation_url("account-ledger"),
        "The entries of an account, a claim or a patient with the balance after each.",
        ledger,
        at={"Account": ("type", "instance")},
        gives=(FHIR_JSON, CSV),
        needs={"ChargeItem": "s", "ClaimResponse": "s", "PaymentReconciliation": "s"},
    ),
    Operation(
        "balance",
        ("GET", "POST"),
        operation_url("patient-balance"),
        "What a patient's charges, payments and adjustments add up to.",
        balance,
        at={"Patient": _ONE},
        needs={"ChargeItem": "s", "ClaimResponse": "s", "PaymentReconciliation": "s"},
    ),
    Operation(
        "statement",
        ("GET", "POST"),
        operation_url("account-statement"),
        "What is open of an account and what its guarantor is to pay, as a letter.",
        statement,
        at={"Account": _ONE},
        gives=(FHIR_JSON, TEXT, PDF),
        needs={"Account": "r", "ChargeItem": "s", "ClaimResponse": "s", "PaymentReconciliation": "s"},
    ),
    _report("ar-aging", "What is open on a day, by its age."),
    _report("financial-summary", "Charges, payments and adjustments of a period, rates, and how long money takes."),
    _report("provider-adjustments", "What payers have kept back or advanced outside of claims, and is open."),
    _report("denials", "Denials of a period, the largest sums first."),
    _report("productivity", "Visits, charges and money of a period by provider."),
)
