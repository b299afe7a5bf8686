"""A slice of a remittance costs what its claims cost, however many others there are: a ratio of times in one run."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal

from mappers.billing.adjudications import Adjustment
from mappers.billing.matching import index_claims
from mappers.billing.posting import PostingSettings, PostingState, post_claims
from mappers.billing.remittance import ClaimPayment, PaymentLine, Remittance

SLICE, TRIES = 50, 5
D = Decimal


def make_remittance(claims: int) -> Remittance:
    cas = (Adjustment("CO", "45", D(20)), Adjustment("PR", "2", D(20)))
    lines = tuple(PaymentLine("99213", D(100), D(60), adjustments=cas) for _ in range(3))
    payments = tuple(ClaimPayment(f"N{n}", "1", D(300), D(180), lines=lines) for n in range(claims))
    return Remittance("T1", "90001", D(180) * claims, date(2026, 3, 2), claims=payments)


def measure_slice(remittance: Remittance) -> float:
    """The least processor time (s) of one slice."""
    state, settings = PostingState(index_claims([], [], {})), PostingSettings("2026-03-02", "2026-03-02")
    best = float("inf")
    for _ in range(TRIES):
        began = time.process_time()
        assert len(post_claims(remittance, range(SLICE), state, settings)) == SLICE
        best = min(best, time.process_time() - began)
    return best


def test_a_slice_of_many_claims_costs_what_one_of_few_does() -> None:
    few, many = measure_slice(make_remittance(100)), measure_slice(make_remittance(6000))
    assert many <= 5 * few, (few, many)
