"""Patients' payments, refunds, reversals and adjustments by hand, and what they do to the ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.outcome import Issue
from mappers.billing.balances import sum_balances
from mappers.billing.patient_money import (
    Occasion,
    find_rest,
    make_adjustment,
    make_payment,
    make_refund,
    reverse_payment,
)
from tests.mappers.billing.histories import D, Practice, day

Resource = dict[str, Any]


def when(key: str, text: str = "03-09") -> Occasion:
    return Occasion(key, f"2026-{text}", f"2026-{text}", "Patient/a")


def made(result: Resource | Issue) -> Resource:
    assert not isinstance(result, Issue), result.diagnostics
    return result


@pytest.mark.parametrize(
    ("amount", "request_"), [("-30", "Claim/a1"), ("0", "Claim/a1"), ("30", "Patient/a"), ("30", "")]
)
def test_b28_a_payment_is_above_nothing_and_on_something(amount: str, request_: str) -> None:
    refused = make_payment(D(amount), request_, when("k1"))
    assert isinstance(refused, Issue) and refused.code == "business-rule"
    assert "Money goes back by `$refund`." in refused.diagnostics


def test_b28_a_refund_is_at_most_what_is_left() -> None:
    payment = made(make_payment(D(20), "Claim/a1", when("k1")))
    refused = make_refund(payment, [], D(25), when("k2"))
    assert isinstance(refused, Issue) and "20.00 of the payment are left" in refused.diagnostics
    refund = made(make_refund(payment, [], D(15), when("k2")))
    assert refund["detail"][0]["amount"]["value"] == D("-15.00")
    assert refund["detail"][0]["predecessor"] == payment["detail"][0]["identifier"]
    assert find_rest(payment, [refund]) == 5
    assert isinstance(make_refund(payment, [refund], D("5.01"), when("k3")), Issue)


def test_a_reversal_takes_back_what_is_left_once() -> None:
    payment = made(make_payment(D(20), "Claim/a1", when("k1")))
    refund = made(make_refund(payment, [], D(5), when("k2")))
    back = made(reverse_payment(payment, [refund], when("k3")))
    assert back["detail"][0]["amount"]["value"] == D("-15.00")
    again = reverse_payment(payment, [refund, back], when("k4"))
    assert isinstance(again, Issue) and "Nothing of the payment is left" in again.diagnostics


def test_a_payers_remittance_is_not_reversed_by_hand() -> None:
    refused = reverse_payment({"paymentIssuer": {"reference": "Organization/payer1"}}, [], when("k"))
    assert isinstance(refused, Issue) and "claim status 22" in refused.diagnostics


@pytest.mark.parametrize(("amount", "reason"), [("0", "courtesy"), ("100.01", "courtesy"), ("10", "tired")])
def test_an_adjustment_has_a_reason_and_is_at_most_what_is_open(amount: str, reason: str) -> None:
    assert isinstance(make_adjustment("Claim/a1", D(amount), reason, D(100), when("k")), Issue)


def test_the_ledger_counts_them() -> None:
    practice = Practice()
    practice.bill("03-02", "A1", "100")

    def balance() -> Decimal:
        return sum(sum_balances(practice.books(), day("12-31"), "claim").values(), D(0))

    payment = practice.store(made(make_payment(D(30), "Claim/a1", when("k1"), method="cash")))
    assert balance() == 70
    refund = practice.store(made(make_refund(payment, [], D(10), when("k2"))))
    assert balance() == 80
    practice.store(made(reverse_payment(payment, [refund], when("k3"))))
    assert balance() == 100
    written = practice.store(made(make_adjustment("Claim/a1", D(100), "bad-debt", D(100), when("k4"))))
    assert balance() == 0 and written["paymentAmount"]["value"] == 0
    practice.store(made(reverse_payment(written, [], when("k5"))))
    assert balance() == 100


def test_what_is_paid_before_there_is_a_claim_is_the_patients_credit() -> None:
    practice = Practice()
    practice.store(made(make_payment(D(30), "Appointment/x", when("k1"))))
    assert sum_balances(practice.books(), day("12-31"), "patient") == {"Patient/a": D("-30.00")}


@given(st.lists(st.integers(-500, 3000), max_size=8))
def test_refunds_never_exceed_the_payment(cents: list[int]) -> None:
    payment = made(make_payment(D(20), "Claim/a1", when("k")))
    refunds: list[Resource] = []
    for n, each in enumerate(cents):
        result = make_refund(payment, refunds, D(each) / 100, when(f"r{n}"))
        if not isinstance(result, Issue):
            refunds.append(result)
    assert 0 <= find_rest(payment, refunds) <= 20
