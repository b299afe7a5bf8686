"""What is read of the text of a resource for the books is what is read of the whole resource."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment
from mappers.billing.book_elements import BookReader
from mappers.billing.book_rows import BookRows, LineAnswer, read_rows
from tests.mappers.billing.test_billing_ledger import STEPS, Steps, play

encode = msgspec.json.Encoder(decimal_format="number").encode
BOOKED = ("PaymentReconciliation", "ClaimResponse", "Invoice", "Claim", "ChargeItem", "Coverage", "Encounter")


def read_whole(resources: dict[str, Any]) -> BookRows:
    return read_rows(msgspec.json.decode(encode(each)) for each in resources.values())


def read_texts(resources: dict[str, Any]) -> BookRows:
    reader = BookReader()
    for each in resources.values():
        if each["resourceType"] in BOOKED:
            reader.read_all(each["resourceType"], [encode(each)])
    return reader.rows


@settings(max_examples=60)
@given(STEPS)
def test_the_texts_give_the_rows_of_the_whole_resources(steps: Steps) -> None:
    resources = play(steps).practice.resources
    assert read_texts(resources) == read_whole(resources)


def test_a_denial_and_a_remark_of_a_line_that_the_claim_does_not_have() -> None:
    """`ClaimResponse.addItem` counts at the claim; what is neither paid nor written off nor denied is left out."""
    submitted = {"category": {"coding": [{"system": codes.ADJUDICATION, "code": "submitted"}]}, "amount": {"value": 9}}
    benefit = {"category": {"coding": [{"system": codes.ADJUDICATION, "code": "benefit"}]}, "amount": {"value": 4.5}}
    denial = {
        "category": {"coding": [{"system": codes.GROUP, "code": "CO"}]},
        "reason": {"coding": [{"system": codes.CARC, "code": "16"}]},
        "amount": {"value": 4.5},
        "extension": [{"url": codes.CLASS, "valueCode": "denial"}],
    }
    response = {
        "resourceType": "ClaimResponse",
        "id": "1",
        "addItem": [{"productOrService": {"text": "x"}, "adjudication": [submitted, benefit, denial]}],
        "text": {"status": "empty"},
    }
    (row,) = read_texts({"ClaimResponse/1": response}).responses.values()
    denied = (Adjustment("CO", "16", Decimal("4.5")),)
    assert row.others == (LineAnswer(Decimal("0.00"), (), ()), LineAnswer(Decimal("4.5"), (), denied))
    assert row.list_denied() == denied and row.lines == ()
