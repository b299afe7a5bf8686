"""Posting costs what its claims say: a slice among many others by a ratio of times, many sets by the bytes parsed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers import postings, x12_interpreter
from mappers.billing.adjudications import Adjustment
from mappers.billing.matching import index_claims
from mappers.billing.posting import PostingSettings, PostingState, post_claims
from mappers.billing.remittance import ClaimPayment, PaymentLine, Remittance
from tests.conftest import serving
from tests.cost.measuring import check_ratio_of_calls
from tests.operations.payments.remittances import post_all
from tests.workers.x12_files import file, group, pick, post, remittance, write_plan

SLICE = 50
D = Decimal


def make_remittance(claims: int) -> Remittance:
    cas = (Adjustment("CO", "45", D(20)), Adjustment("PR", "2", D(20)))
    lines = tuple(PaymentLine("99213", D(100), D(60), adjustments=cas) for _ in range(3))
    payments = tuple(ClaimPayment(f"N{n}", "1", D(300), D(180), lines=lines) for n in range(claims))
    return Remittance("T1", "90001", D(180) * claims, date(2026, 3, 2), claims=payments)


def make_posting(claims: int) -> Callable[[], None]:
    """Posts the first slice of a remittance."""
    remittance, state = make_remittance(claims), PostingState(index_claims([], [], {}))
    settings = PostingSettings("2026-03-02", "2026-03-02")

    def post() -> None:
        assert len(post_claims(remittance, range(SLICE), state, settings)) == SLICE

    return post


@pytest.mark.anyio
async def test_a_slice_of_many_claims_costs_what_one_of_few_does() -> None:
    await check_ratio_of_calls(make_posting(100), make_posting(6000), 5, tries=8)


async def count_bytes(known: Knowledge, folder: Path, monkeypatch: pytest.MonkeyPatch, sets: int) -> tuple[int, int]:
    """The bytes that are parsed for sets of one interchange when they are taken in, and when they are posted."""
    parsed = {"taken in": 0, "posted": 0}

    def count(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(raw: bytes, *more: Any) -> Any:
            parsed[step] += len(raw)
            return function(raw, *more)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(x12_interpreter, "_read_message", count("taken in", x12_interpreter._read_message))
        patch.setattr(postings, "_find_remittance", count("posted", postings._find_remittance))
        async with serving(known, store="memory://", profiles=write_plan(folder)) as client:
            texts = [remittance(f"{n:04}", trace=f"T{n}") for n in range(1, sets + 1)]
            answer = await post(client, file(group(*texts)))
            assert pick(answer, "AK9") == [f"AK9*A*{sets}*{sets}*{sets}"]
            assert await post_all(client) == sets
    return parsed["taken in"], parsed["posted"]


@pytest.mark.anyio
async def test_an_interchange_of_many_sets_costs_what_their_number_says(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set is a message of its own from the intake on: nothing reads the others again."""
    few = await count_bytes(known, tmp_path, monkeypatch, 10)
    many = await count_bytes(known, tmp_path, monkeypatch, 20)
    assert few[0] > 0 and many[0] <= 2.1 * few[0], (few, many)
    assert few[1] > 0 and many[1] <= 2.1 * few[1], (few, many)
