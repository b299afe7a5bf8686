"""What people who post payments reported: each row has its tests, here by name; claims that go out have a table too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.operations.payments.money_clinic import bill, call, practice, read_balance, sentence
from tests.operations.payments.remittances import clp, find, list_tasks, make_835, send, svc, take
from tests.shared import SHARED, shared_path

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).resolve().parents[2]
POSTING, MONEY, LEDGER = (f"mappers/billing/test_billing_{name}.py" for name in ("posting", "patient_money", "ledger"))
READER = "mappers/x12/test_x12_remittance.py"
HERE, REMITTANCES, DOORS, HAND, REPORTS, SETTLED = (
    f"operations/payments/test_{name}.py"
    for name in ("traps_payments", "remittances", "payment_doors", "post_by_hand", "reports", "settled_claims")
)
INTAKE, KILLED = "operations/test_x12_operation.py", "workers/test_killed_postings.py"

TRAPS: dict[str, tuple[tuple[str, str], ...]] = {
    # row of traps.md → file and test
    "B1": (
        (READER, "test_the_same_set_in_another_envelope_has_the_same_key_and_digest"),
        (POSTING, "test_the_same_set_in_another_envelope_is_the_same_and_another_amount_is_not"),
        (REMITTANCES, "test_b1_a_set_posts_once_however_it_comes"),
        (REMITTANCES, "test_b1_many_processes_that_take_a_set_at_once_post_it_once"),
        (INTAKE, "test_posted_by_many_at_once_a_set_is_drafted_once"),
        (KILLED, "test_each_remittance_is_posted_once_whenever_it_is_killed"),
        (HERE, "test_b1_one_reason_that_differs_is_a_task_and_posts_nothing"),
    ),
    "B3": (
        (POSTING, "test_b3_a_denial_is_not_written_off"),
        (POSTING, "test_classes_by_group_and_reason"),
        (POSTING, "test_an_unknown_reason_writes_nothing_off_and_opens_a_task"),
        (REMITTANCES, "test_b3_a_denial_writes_nothing_off_and_opens_a_task"),
        (SETTLED, "test_a_denial_is_open_until_it_is_written_off_and_again_when_that_is_taken_back"),
    ),
    "B4": (
        (READER, "test_a_claim_paid_nothing_is_told_like_any_other"),
        (POSTING, "test_b4_a_payment_of_nothing_to_the_deductible_moves_the_claim_to_the_patient"),
        (REMITTANCES, "test_b4_what_is_paid_with_zero_is_moved_to_the_patient"),
    ),
    "B6": (
        (READER, "test_reversal_and_correction_are_two_entries"),
        (POSTING, "test_b6_reversal_and_correction_stay_two_linked_entries"),
        (POSTING, "test_a_reversal_without_original_stays_unapplied"),
        (POSTING, "test_a_payment_is_reversed_once"),
        (REMITTANCES, "test_b6_reversal_and_correction_stay_two_entries"),
        (SETTLED, "test_paid_in_full_then_taken_back_then_paid_anew"),
    ),
    "B7": (
        (READER, "test_provider_adjustments_over_two_weeks_net_to_zero"),
        (READER, "test_all_six_pairs_of_a_plb_are_read"),
        (POSTING, "test_b7_provider_adjustments_are_a_ledger_of_their_own"),
        (LEDGER, "test_b7_a_take_back_and_its_settlement_net_to_nothing"),
        (REMITTANCES, "test_b7_money_that_is_held_back_nets_to_zero_over_files"),
        (REPORTS, "test_provider_adjustments_are_open_until_they_cancel_out"),
    ),
    "B11": (
        (READER, "test_crossover_is_told_by_status_carrier_or_remark"),
        (POSTING, "test_b11_a_forwarded_claim_is_not_sent_to_the_next_payer_by_us"),
        (REMITTANCES, "test_b11_a_claim_that_was_forwarded_is_waited_for"),
    ),
    "B18": (
        (POSTING, "test_b18_a_prefix_of_a_number_is_a_candidate_and_no_match"),
        (REMITTANCES, "test_b18_the_beginning_of_a_number_is_a_candidate_and_never_a_match"),
    ),
    "B25": (
        (READER, "test_a_claim_without_lines_keeps_its_adjustments_at_the_claim"),
        (POSTING, "test_b25_a_claim_without_lines_is_posted_at_claim_level"),
        (REMITTANCES, "test_b25_a_claim_without_lines_is_posted_at_its_level"),
    ),
    "B26": (
        (POSTING, "test_b26_a_remittance_of_what_was_typed_already_stays_unapplied"),
        (HAND, "test_b26_a_typed_eob_posts_and_the_835_that_comes_then_is_a_task"),
        (HAND, "test_the_same_eob_many_times_at_once_posts_once"),
        (HAND, "test_what_the_reader_makes_is_read_back_from_parameters"),
        (HERE, "test_b26_responsibility_moves_line_by_line"),
    ),
    "B28": (
        (MONEY, "test_b28_a_payment_is_above_nothing_and_on_something"),
        (MONEY, "test_b28_a_refund_is_at_most_what_is_left"),
        (MONEY, "test_refunds_never_exceed_the_payment"),
        (DOORS, "test_a_payment_that_makes_no_sense_says_why"),
        (DOORS, "test_refunds_leave_nothing_below_zero_however_many_come_at_once"),
        (HERE, "test_b28_less_than_nothing_is_no_payment"),
    ),
    "B30": (
        (POSTING, "test_b30_an_invoice_is_less_what_was_paid_at_the_desk"),
        (REMITTANCES, "test_b30_an_invoice_is_less_what_was_paid_at_the_desk"),
        (DOORS, "test_what_is_paid_at_the_desk_counts_for_the_claim_of_the_visit"),
        (HERE, "test_b30_more_than_the_share_at_the_desk_is_a_credit_and_no_invoice"),
    ),
}

CLAIMS = frozenset({"B9", "B10", "B13", "B14", "B15", "B16", "B19", "B20", "B21", "B22", "B24"})
"""Rows of claims that go out and of the reader, which are shown by test_traps_claims; B18 has both sides."""


@cache
def list_tests(file: str) -> frozenset[str]:
    """The names of the tests of a file."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", TRAPS)
def test_every_row_has_tests_at_the_functions_and_over_http(row: str) -> None:
    assert [each for each in TRAPS[row] if each[1] not in list_tests(each[0])] == []
    assert {file.startswith("mappers/") for file, _ in TRAPS[row]} == {True, False}


def test_no_row_is_left_out() -> None:
    text = shared_path("mapping/traps.md").read_text(encoding="utf-8")
    assert SHARED.exists()
    assert {*TRAPS, *CLAIMS} == set(re.findall(r"^\| (B\d+) \|", text, re.MULTILINE))


async def test_b1_one_reason_that_differs_is_a_task_and_posts_nothing(known: Knowledge) -> None:
    """The third file of the row: the same TRN and BPR, CO-253 in the place of CO-45."""
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await take(client, make_835("80", clp("A1", "1", "100", "80", "CAS*CO*45*20")))
        other = make_835("80", clp("A1", "1", "100", "80", "CAS*CO*253*20"), envelope=3)
        assert (await send(client, other, "3")).state == "acknowledged"
        assert "was posted before with other content" in (await list_tasks(client))["remittance"]
        assert len(await find(client, "PaymentReconciliation")) == 1
        assert (await read_balance(client, "a"))["payments"] == 80


async def test_b26_responsibility_moves_line_by_line(known: Knowledge) -> None:
    """Line 1: 100 − 60 − 20 = 20 for the patient. Line 2, of 50, the payer has not answered yet and still has."""
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", "50")
        line = svc("A1L1", "100", "60", "CAS*CO*45*20", "CAS*PR*1*20")
        await take(client, make_835("60", clp("A1", "1", "100", "60") + line))
        balance = await read_balance(client, "a")
        assert (balance["patient-balance"], balance["Organization/payer1"], balance["balance"]) == (20, 50, 70)
        (invoice,) = await find(client, "Invoice")
        assert [each["chargeItemReference"]["reference"] for each in invoice["lineItem"]] == ["ChargeItem/a11"]


async def test_b28_less_than_nothing_is_no_payment(known: Knowledge) -> None:
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        for amount in (-30, 0):
            refused = await call(client, "Patient/a/$pay", amount=amount, request="Claim/a1", key="k")
            assert refused.status_code == 422 and "above 0" in sentence(refused), refused.text
        assert (await read_balance(client, "a"))["balance"] == 100


async def test_b30_more_than_the_share_at_the_desk_is_a_credit_and_no_invoice(known: Knowledge) -> None:
    """30 at the desk, and the payer leaves 20: no Invoice, and the practice owes 10."""
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100")
        await call(client, "Patient/a/$pay", amount=30, request="Claim/a1", key="k")
        await take(client, make_835("50", clp("A1", "1", "100", "50", "CAS*CO*45*30", "CAS*PR*3*20")))
        assert await find(client, "Invoice") == []
        assert (await read_balance(client, "a"))["balance"] == -10
