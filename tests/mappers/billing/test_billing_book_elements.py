"""What is read of a resource for the books gives the same books as all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given, settings

from mappers.billing import codes
from mappers.billing.book_elements import BOOKED, read_for_books
from mappers.billing.ledger import Books, make_books
from mappers.billing.reports import measure_productivity
from tests.mappers.billing.histories import day
from tests.mappers.billing.test_billing_ledger import STEPS, Steps, play

encode = msgspec.json.Encoder(decimal_format="number").encode


def read_whole(resources: dict[str, Any]) -> dict[str, Any]:
    return {name: msgspec.json.decode(encode(each)) for name, each in resources.items()}


def read_elements(resources: dict[str, Any]) -> dict[str, Any]:
    return {
        name: read_for_books(each["resourceType"], encode(each)) if each["resourceType"] in BOOKED else each
        for name, each in resources.items()
    }


def without_charges(books: Books) -> Books:
    """The charges of the books are the resources as they were read."""
    return replace(books, charges={})


@settings(max_examples=60)
@given(STEPS)
def test_the_elements_give_the_books_of_the_whole_resources(steps: Steps) -> None:
    resources = play(steps).practice.resources
    whole, elements = make_books(read_whole(resources)), make_books(read_elements(resources))
    assert without_charges(elements) == without_charges(whole)
    start, end = day("01-01"), day("12-31")
    assert measure_productivity(elements, start, end) == measure_productivity(whole, start, end)


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
    assert read_for_books("ClaimResponse", encode(response)) == {
        "resourceType": "ClaimResponse",
        "id": "1",
        "addItem": [{"adjudication": [benefit, denial]}],
    }
