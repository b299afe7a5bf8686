"""Money that stayed unapplied when its remittance posted, applied to claims later by entries of their own.

The detail that is open is never edited. What applies it is a PaymentReconciliation of amount 0 with the details of the
claims, and one of type `unapplied` that takes the amount away again (https://hl7.org/fhir/R4/paymentreconciliation.html).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_code,
    find_identifier,
    find_reference,
    make_concept,
    make_money,
    make_reference,
    to_amount,
    to_day,
)
from mappers.billing.remittance import ClaimPayment, Remittance

UNAPPLIED = "unapplied-payment"
"""The code of the Task that waits for a person to apply a detail, and what its identifier begins with."""


def find_detail_key(task: Resource) -> str:
    """The key of the detail that a Task is about, which begins with that of its remittance; empty for another Task."""
    kind, _, key = find_identifier(task, codes.TASK_KEY).partition(":")
    return key if kind == UNAPPLIED and find_code(task.get("code"), codes.TASK) == UNAPPLIED else ""


def find_reason(task: Resource) -> str:
    """Why its claim did not post, without what is to be done about it."""
    return re.split(r" (?:-?[\d.]+ stay unapplied|`PaymentReconciliation/\$post`)", str(task.get("description", "")))[0]


def find_detail(payment: Resource, key: str) -> Resource | Issue:
    """The detail with a key, which has to be unapplied and of a remittance that counts."""
    reference = make_reference(payment)
    if payment.get("status") != "active":
        text = f"`{reference}` is `{payment.get('status')}`; money is applied once its remittance is posted."
        return Issue("error", "business-rule", text, ("PaymentReconciliation.status",))
    for each in payment.get("detail", ()):
        if (each.get("identifier") or {}).get("value") == key:
            if find_code(each.get("type"), codes.DETAIL_TYPE) == "unapplied":
                return dict(each)
            break
    text = f"`{reference}` has no unapplied detail `{key}`; what a payer has adjudicated is changed by its reversal."
    return Issue("error", "business-rule", text, ("PaymentReconciliation.detail",))


def make_application(payment: Resource, detail: Resource, claims: Sequence[ClaimPayment]) -> Remittance:
    """The claims as a remittance of the amount of the detail, by whose laws they post, with a key made of its key."""
    issuer, key = payment.get("paymentIssuer") or {}, str(detail["identifier"]["value"])
    made = Remittance(
        trace=key,
        payer_number=find_identifier(payment, codes.TRACE_KEY).partition("|")[0],
        amount=abs(to_amount(detail["amount"])),
        credit=to_amount(detail["amount"]) >= 0,
        payment_day=to_day(str(payment.get("paymentDate", ""))),
        payer_name="" if find_reference(issuer) else str(issuer.get("display", "")),
        claims=tuple(claims),
    )
    return replace(made, digest=made.make_digest())


def close_detail(applied: Resource, payment: Resource, detail: Resource, task: str) -> Resource:
    """What applies a detail, with the entry that takes its amount away from what is unapplied. `task`: that of it."""
    opened = detail["identifier"]
    closing = {
        "identifier": {"system": codes.DETAIL_KEY, "value": f"{opened['value']}:applied"},
        "predecessor": opened,
        "type": make_concept(codes.DETAIL_TYPE, "unapplied"),
        "amount": make_money(-to_amount(detail["amount"])),
    }
    return {
        **applied,
        "request": {"reference": task},
        "paymentIdentifier": payment.get("paymentIdentifier") or applied["paymentIdentifier"],
        "paymentAmount": make_money(ZERO),
        "detail": [*applied.get("detail", ()), closing],
    }
