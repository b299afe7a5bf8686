"""The ledger: ten ledgers computed by hand, and its laws over random histories."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mappers.billing.balances import share_balances, sum_balances
from mappers.billing.book_rows import read_rows
from mappers.billing.closing import close_books, continue_books
from mappers.billing.fields import find_code
from mappers.billing.ledger import ADJUSTMENT, CHARGE, PATIENT, PAYMENT, REFUND, UNBILLED, Books, list_entries
from mappers.billing.remittance import ProviderAdjustment
from mappers.billing.reports import (
    age_receivables,
    list_open_provider_adjustments,
    measure_productivity,
    rank_denials,
    summarize_finances,
)
from tests.mappers.billing.histories import D, Practice, claim_paid, day, lines_paid

# Each history, then (day, balance, of which the patient's), worked out on paper.
Told = list[tuple[str, str, str]]


def one_claim_paid_in_full(p: Practice) -> Told:
    """100 charged, 60 paid, 30 written off, 10 to the patient, who pays."""
    p.bill("03-02", "A1", "100")
    p.remit("03-20", lines_paid("A1", ("60", "CO-45 30, PR-2 10")))
    p.follow("03-20", "A1")
    p.pay("04-01", "10", "Invoice/invoice1")
    return [
        ("03-01", "0", "0"),
        ("03-02", "100", "0"),
        ("03-19", "100", "0"),
        ("03-20", "10", "10"),
        ("04-01", "0", "0"),
    ]


def a_denial_stays_with_the_payer_until_it_is_written_off(p: Practice) -> Told:
    """Nothing written off by the denial; 90 off by hand."""
    p.bill("03-02", "A1", "90")
    p.remit("03-20", claim_paid("A1", "0", "CO-16 90"))
    p.follow("03-20", "A1")
    p.pay("05-01", "90", "Claim/a1", kind="adjustment")
    return [("03-20", "90", "0"), ("04-30", "90", "0"), ("05-01", "0", "0")]


def deductible_only(p: Practice) -> Told:
    """All of it to the patient, paid in two parts."""
    p.bill("03-02", "A1", "90")
    p.remit("03-20", lines_paid("A1", ("0", "PR-1 90")))
    p.follow("03-20", "A1")
    p.pay("04-01", "50", "Invoice/invoice1")
    p.pay("05-01", "40", "Invoice/invoice1")
    return [("03-19", "90", "0"), ("03-20", "90", "90"), ("04-01", "40", "40"), ("05-01", "0", "0")]


def copay_at_the_desk(p: Practice) -> Told:
    """30 paid at the desk, PR 50 in all: an Invoice of 20."""
    p.bill("03-02", "A1", "100")
    p.pay("03-02", "30", "Claim/a1")
    p.remit("03-20", lines_paid("A1", ("50", "PR-3 30, PR-2 20")))
    p.follow("03-20", "A1")
    p.pay("04-01", "20", "Invoice/invoice1")
    return [("03-02", "70", "0"), ("03-20", "20", "20"), ("04-01", "0", "0")]


def reversal_and_correction(p: Practice) -> Told:
    """100: first 60 + 40 off; reversed; then 40 + 60 off."""
    p.bill("03-02", "A1", "100")
    p.remit("03-20", lines_paid("A1", ("60", "CO-45 40")))
    p.remit("04-10", lines_paid("A1", ("-60", "CO-45 -40"), status="22"))
    p.remit("04-20", lines_paid("A1", ("40", "CO-45 60")))
    return [("03-20", "0", "0"), ("04-10", "100", "0"), ("04-20", "0", "0")]


def secondary_pays_the_share(p: Practice) -> Told:
    """Primary 60 + 30 off, 10 left; it is the second payer's until that one pays."""
    p.bill("03-02", "A1", "100", payers=2)
    p.remit("03-20", lines_paid("A1", ("60", "CO-45 30, PR-2 10")))
    p.follow("03-20", "A1")
    number = next(each for each in p.of("Claim") if each["id"] == "a1-next")["identifier"][0]["value"]
    p.remit("04-15", claim_paid(number, "10", "OA-23 90", status="2"), payer=2)
    p.follow("04-15", "A1-next")
    return [("03-20", "10", "0"), ("04-15", "0", "0")]


def crossover_then_the_patient(p: Practice) -> Told:
    """Forwarded by the first payer; the second pays 20 of 30 and leaves 10 to the patient."""
    p.bill("03-02", "A1", "100", payers=2)
    p.remit("03-20", lines_paid("A1", ("70", "PR-2 30"), status="19"))
    p.follow("03-20", "A1")
    p.remit("04-15", lines_paid("A1", ("20", "OA-23 70, PR-2 10"), status="2"), payer=2)
    p.follow("04-15", "A1")
    p.pay("05-02", "10", "Invoice/invoice1")
    return [("03-20", "30", "0"), ("04-15", "10", "10"), ("05-02", "0", "0")]


def two_lines_one_denied(p: Practice) -> Told:
    """Line 1 is paid, line 2 denied: 50 stay with the payer, 20 are the patient's."""
    p.bill("03-02", "A1", "100", "50")
    p.remit("03-20", lines_paid("A1", ("60", "CO-45 20, PR-1 20"), ("0", "CO-197 50")))
    p.follow("03-20", "A1")
    p.pay("04-01", "20", "Invoice/invoice1")
    return [("03-02", "150", "0"), ("03-20", "70", "20"), ("04-01", "50", "0")]


def overpaid_and_refunded(p: Practice) -> Told:
    """The patient paid 40 for 25; 15 go back."""
    p.bill("03-02", "A1", "100")
    p.pay("03-02", "40", "Claim/a1")
    p.remit("03-20", lines_paid("A1", ("75", "PR-3 25")))
    p.follow("03-20", "A1")
    p.pay("04-01", "-15", "Claim/a1")
    return [("03-02", "60", "0"), ("03-20", "-15", "0"), ("04-01", "0", "0")]


def posted_at_claim_level(p: Practice) -> Told:
    """Two charges on two days, a payment without lines, another claim that is still open."""
    p.bill("03-02", "A1", "120", "80")
    p.bill("03-05", "B1", "70")
    p.remit("03-20", claim_paid("A1", "150", "CO-45 50"))
    return [("03-02", "200", "0"), ("03-05", "270", "0"), ("03-20", "70", "0")]


def a_lump_that_does_not_fit_stays_unapplied(p: Practice) -> Told:
    """The second payer's claim is not ours: its 33 are outside the receivables."""
    p.bill("03-02", "A1", "100")
    p.remit("03-20", lines_paid("A1", ("100", "")), claim_paid("ZZZZZZZZ", "33"))
    return [("03-20", "0", "0")]


HISTORIES: list[Callable[[Practice], Told]] = [
    one_claim_paid_in_full, a_denial_stays_with_the_payer_until_it_is_written_off, deductible_only, copay_at_the_desk,
    reversal_and_correction, secondary_pays_the_share, crossover_then_the_patient, two_lines_one_denied,
    overpaid_and_refunded, posted_at_claim_level, a_lump_that_does_not_fit_stays_unapplied,
]  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES, ids=lambda each: each.__name__)
def test_a_ledger_computed_by_hand(history: Callable[[Practice], Told]) -> None:
    practice = Practice()
    told = history(practice)
    books = practice.books()
    for when, balance, patient in told:
        assert sum(sum_balances(books, day(when), "claim").values()) == D(balance), when
        assert sum(share.patient for share in share_balances(books, day(when)).values()) == D(patient), when


def test_the_payer_of_a_claim_is_the_next_one_once_its_claim_is_drafted() -> None:
    practice = Practice()
    secondary_pays_the_share(practice)
    books = practice.books()
    assert sum_balances(books, day("03-19"), "payer") == {"Organization/payer1": D("100.00")}
    assert sum_balances(books, day("03-20"), "payer") == {"Organization/payer2": D("10.00")}


def test_balances_by_line_account_and_patient() -> None:
    practice = Practice()
    two_lines_one_denied(practice)
    practice.bill("03-07", "B1", "70")
    books = practice.books()
    assert sum_balances(books, day("03-20"), "line") == {
        "ChargeItem/a11": D("20.00"),
        "ChargeItem/a12": D("50.00"),
        "ChargeItem/b11": D("70.00"),
    }
    assert sum_balances(books, day("03-20"), "account") == {"Account/a": D("70.00"), "Account/b": D("70.00")}
    assert sum_balances(books, day("03-20"), "patient") == {"Patient/a": D("70.00"), "Patient/b": D("70.00")}
    assert sum_balances(books, day("03-20"), "payer") == {"Organization/payer1": D("120.00"), PATIENT: D("20.00")}


def test_a_payer_that_is_not_active_or_another_systems_does_not_count() -> None:
    practice = Practice()
    one_claim_paid_in_full(practice)
    for each in practice.of("PaymentReconciliation"):
        practice.resources[f"PaymentReconciliation/{each['id']}"] = {**each, "status": "draft"}
    assert sum(sum_balances(practice.books(), day("12-31"), "claim").values()) == D("100.00")
    for each in practice.of("PaymentReconciliation"):
        practice.resources[f"PaymentReconciliation/{each['id']}"] = {**each, "status": "active", "extension": []}
    assert sum(sum_balances(practice.books(), day("12-31"), "claim").values()) == D("100.00")


def test_b7_a_take_back_and_its_settlement_net_to_nothing() -> None:
    practice = Practice()
    practice.bill("03-02", "A1", "100")
    practice.remit("03-10", lines_paid("A1", ("60", "CO-45 40")))
    practice.remit(
        "03-17", lines_paid("A1", ("-60", "CO-45 -40"), status="22"), plb=(ProviderAdjustment("FB", "ICNA1", D(-60)),)
    )
    practice.remit("03-24", lines_paid("A1", ("100", "")), plb=(ProviderAdjustment("FB", "ICNA1", D(60)),))
    books = practice.books()
    assert list_open_provider_adjustments(books, day("03-17")) == {("Organization/payer1", "ICNA1"): D("60.00")}
    assert list_open_provider_adjustments(books, day("03-24")) == {}
    assert sum(sum_balances(books, day("03-24"), "claim").values()) == 0


def test_unapplied_money_stands_beside_the_receivables() -> None:
    practice = Practice()
    a_lump_that_does_not_fit_stays_unapplied(practice)
    (held,) = practice.books().unapplied
    assert (held.amount, held.day) == (D("33.00"), day("03-20"))
    before, then = (
        summarize_finances(practice.books(), day("03-01"), day(each)).unapplied for each in ("03-19", "03-20")
    )
    assert (before, then) == (D("0.00"), D("33.00"))
    assert [find_code(task["code"]) for task in practice.of("Task")] == ["unapplied-payment"]


def test_a_self_pay_invoice_is_the_patients_from_its_day() -> None:
    practice = Practice()
    claim = practice.bill("03-02", "A1", "100")
    claim["status"] = "cancelled"
    invoice = {
        "resourceType": "Invoice",
        "status": "issued",
        "extension": [
            {"url": "https://fhir-server.example/StructureDefinition/posting-date", "valueDate": "2026-03-04"},
            {
                "url": "https://fhir-server.example/StructureDefinition/invoice-claim",
                "valueReference": {"reference": "Claim/a1"},
            },
        ],
        "lineItem": [
            {
                "chargeItemReference": {"reference": "ChargeItem/a11"},
                "priceComponent": [{"type": "base", "amount": {"value": D(100)}}],
            }
        ],
    }
    practice.store(invoice)
    practice.pay("03-09", "60", "Invoice/invoice1")
    books = practice.books()
    assert [share_balances(books, day(each))["Invoice/invoice1"][:2] for each in ("03-03", "03-04", "03-09")] == [
        (D(100), D(0)),
        (D(100), D(100)),
        (D(40), D(40)),
    ]


# Random histories

AMOUNTS = st.integers(0, 30_000).map(lambda cents: D(cents) / 100)
DAYS = st.integers(1, 28)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["bill", "enter", "claim", "desk", "remit", "whole", "reverse", "pay", "refund", "adjust", "follow"]
        ),
        st.integers(0, 3),
        DAYS,
        AMOUNTS,
        AMOUNTS,
        AMOUNTS,
    ),
    max_size=14,
)


Tree = dict[str, Any]
Steps = list[tuple[str, int, int, Decimal, Decimal, Decimal]]


class Model:
    """What the steps come to, computed beside the ledger: (day, kind, amount)."""

    def __init__(self) -> None:
        self.practice = Practice()
        self.rows: list[tuple[str, str, Decimal]] = []
        self.open: dict[str, list[tuple[Decimal, Decimal, Decimal, bool]]] = {}
        self.entered: dict[str, list[Tree]] = {}
        self.last = 1

    def run(self, step: tuple[str, int, int, Decimal, Decimal, Decimal]) -> None:
        kind, which, when, one, two, three = step
        self.last = max(self.last, when)
        today = f"03-{self.last:02d}"
        numbers = sorted(self.open)
        number = numbers[which % len(numbers)] if numbers else ""
        if kind == "bill":
            number = f"A{len(numbers)}XXXX"
            self.practice.bill(today, number, str(one), str(two), payers=1 + which % 2, served="02-15")
            self.open[number] = []
            self.rows += [(today, CHARGE, one), (today, CHARGE, two)]
        elif kind == "enter":
            late = f"L{len(self.entered) + len(numbers)}XXXX"
            # another provider than that of the claim
            self.entered[late] = self.practice.enter(today, late, str(one), str(two), served="02-15", provider="elm")
            self.rows += [(today, CHARGE, one), (today, CHARGE, two)]
        elif kind == "claim" and self.entered:
            late = min(self.entered)
            self.practice.claim(today, late, self.entered.pop(late), payers=1 + which % 2, visit=f"Encounter/v{late}")
            self.open[late] = []
        elif kind == "desk":
            # for the visit of charges that may have a claim already, or get one later, or never
            visit = f"Encounter/vL{which}XXXX"
            self.practice.pay(today, str(one), visit, patient="Patient/l")
            self.rows.append((today, PAYMENT, -one))
        elif number and kind in ("remit", "whole"):
            self.remit(today, number, (one, two, three), kind == "whole")
        elif number and kind == "reverse" and self.open[number]:
            paid, off, share, whole = self.open[number].pop()
            self.send(today, number, (-paid, -off, -share), whole, "22")
        elif number and kind == "pay":
            self.practice.pay(today, str(one), f"Claim/{number.lower()}")
            self.rows.append((today, PAYMENT, -one))
        elif number and kind == "refund" and one:
            self.practice.pay(today, str(-one), f"Claim/{number.lower()}")
            self.rows.append((today, REFUND, one))
        elif number and kind == "adjust":
            self.practice.pay(today, str(one), f"Claim/{number.lower()}", kind="adjustment")
            self.rows.append((today, ADJUSTMENT, -one))
        elif number and kind == "follow":
            self.practice.follow(today, number)

    def remit(self, today: str, number: str, amounts: tuple[Decimal, Decimal, Decimal], whole: bool) -> None:
        self.open[number].append((*amounts, whole))
        self.send(today, number, amounts, whole, "1")

    def send(
        self, today: str, number: str, amounts: tuple[Decimal, Decimal, Decimal], whole: bool, status: str
    ) -> None:
        paid, off, share = amounts
        text = f"CO-45 {off}, PR-1 {share}"
        if whole:
            self.practice.remit(today, claim_paid(number, str(paid), text, status))
        else:
            self.practice.remit(today, lines_paid(number, (str(paid), text), status=status))
        self.rows += [(today, PAYMENT, -paid), (today, ADJUSTMENT, -off)]

    def balance(self, when: str) -> Decimal:
        return sum((amount for today, _, amount in self.rows if today <= when), D(0))


def play(steps: Steps) -> Model:
    model = Model()
    for step in steps:
        model.run(step)
    return model


CHECKED = ("02-28", "03-05", "03-14", "03-20", "03-28", "06-30")


@settings(max_examples=150)
@given(STEPS)
def test_the_balance_is_charges_less_payments_and_adjustments_on_every_day(
    steps: Steps,
) -> None:
    model = play(steps)
    books = model.practice.books()
    for when in CHECKED:
        for by in ("account", "claim", "line", "patient", "payer"):
            assert sum(sum_balances(books, day(when), by).values()) == model.balance(when)
        kinds = {
            kind: sum((e.amount for e in list_entries(books, day(when)) if e.kind == kind), D(0))
            for kind in (CHARGE, PAYMENT, ADJUSTMENT, REFUND)
        }
        assert kinds[CHARGE] == sum(
            (amount for today, kind, amount in model.rows if kind == CHARGE and today <= when), D(0)
        )
        assert kinds[ADJUSTMENT] == sum(
            (amount for today, kind, amount in model.rows if kind == ADJUSTMENT and today <= when), D(0)
        )


@settings(max_examples=100)
@given(STEPS)
def test_the_buckets_are_the_receivables(steps: Steps) -> None:
    model = play(steps)
    books = model.practice.books()
    for when in CHECKED:
        for by in ("service", "responsibility"):
            for group in ("payer", "patient", "provider", "location"):
                assert sum(row.sum_buckets() for row in age_receivables(books, day(when), by, group)) == model.balance(
                    when
                )


_ZERO = Decimal(0)
PAID_AHEAD: Steps = [
    ("bill", 0, 1, _ZERO, _ZERO, _ZERO),
    ("bill", 0, 1, _ZERO, _ZERO, _ZERO),
    ("enter", 0, 1, _ZERO, _ZERO, _ZERO),
    ("desk", 2, 1, Decimal("0.01"), _ZERO, _ZERO),
]
"""A cent is paid at the desk for a visit whose charge has no claim yet."""


@settings(max_examples=60)
@given(STEPS, STEPS)
@example(PAID_AHEAD, [("claim", 0, 1, _ZERO, _ZERO, _ZERO)])
def test_what_happens_later_changes_no_earlier_balance(
    first: Steps,
    later: Steps,
) -> None:
    model = play(first)
    when = day(f"03-{model.last:02d}")
    kinds = ("line", "patient", "payer")
    before = {by: sum_balances(model.practice.books(), when, by) for by in kinds}
    claims = sum_balances(model.practice.books(), when, "claim")
    model.last += 1
    for step in later:
        model.run(step)
    books = model.practice.books()
    assert {by: sum_balances(books, when, by) for by in kinds} == before
    # a charge without a claim stands under its claim as soon as one is made
    after = sum_balances(books, when, "claim")
    assert {name: after[name] for name in claims if name.startswith("Claim/")} == {
        name: amount for name, amount in claims.items() if name.startswith("Claim/")
    }


@settings(max_examples=60)
@given(STEPS)
def test_what_is_open_is_what_was_open_and_what_happened_between(steps: Steps) -> None:
    books = play(steps).practice.books()
    days = [day("02-28"), day("03-07"), day("03-15"), day("03-28")]
    for start, end in itertools.pairwise(days):
        told = summarize_finances(books, start + timedelta(days=1), end)
        first, last = (sum(sum_balances(books, each, "claim").values()) for each in (start, end))
        assert last == told.receivables - told.credits
        assert last == first + told.charges - told.payments - told.adjustments + told.refunds


@settings(max_examples=60)
@given(STEPS)
def test_the_patients_part_is_never_more_than_what_is_open(
    steps: Steps,
) -> None:
    for share in share_balances(play(steps).practice.books(), day("06-30")).values():
        assert 0 <= share.patient <= max(share.total, D(0))


@settings(max_examples=100)
@given(STEPS, STEPS)
def test_books_that_start_from_a_closing_say_the_same(first: Steps, later: Steps) -> None:
    model = play(first)
    practice = model.practice
    closed = day(f"03-{model.last:02d}")
    opening = close_books(practice.books(), closed)
    stored = msgspec.json.decode(msgspec.json.encode(opening), type=Books)
    old = set(practice.resources)
    model.last += 1
    for step in later:
        model.run(step)
    # what is new, and of what is older the kinds that it may name
    named = ("Claim", "ChargeItem", "Invoice", "ClaimResponse", "Coverage")
    since = {name: each for name, each in practice.resources.items() if name not in old or name.startswith(named)}
    whole = practice.books()
    continued = continue_books(stored, read_rows(since.values()), closed)
    for when in (closed, day("03-28"), day("06-30")):
        for by in ("claim", "account", "patient", "payer"):
            expected = {key: amount for key, amount in sum_balances(whole, when, by).items() if amount}
            assert {key: amount for key, amount in sum_balances(continued, when, by).items() if amount} == expected
        for by in ("service", "responsibility"):
            assert age_receivables(continued, when, by) == age_receivables(whole, when, by)
    after = closed + timedelta(days=1)
    told, again = (summarize_finances(books, after, day("06-30"), days=365) for books in (whole, continued))
    for figure in (
        "charges",
        "payments",
        "receivables",
        "credits",
        "unapplied",
        "days_in_receivables",
        "adjudicated",
        "denied",
        "over_90",
    ):
        assert getattr(told, figure) == getattr(again, figure), figure
    assert measure_productivity(continued, after, day("06-30")) == measure_productivity(whole, after, day("06-30"))
    assert rank_denials(continued, after, day("06-30")) == rank_denials(whole, after, day("06-30"))


def test_what_is_paid_on_the_claim_after_the_invoice_lowers_the_patients_part_too() -> None:
    practice = Practice()
    practice.bill("03-02", "A1", "100")
    practice.remit("03-20", lines_paid("A1", ("60", "PR-2 40")))
    practice.follow("03-20", "A1")
    practice.pay("03-25", "30", "Claim/a1")
    practice.pay("03-27", "30", "Claim/a1")
    books = practice.books()
    shares = [share_balances(books, day(each))["Claim/a1"] for each in ("03-20", "03-25", "03-27")]
    assert [(share.total, share.patient) for share in shares] == [(D(40), D(40)), (D(10), D(10)), (D(-20), D(0))]


def test_of_two_visits_that_were_paid_one_gets_its_claim_after_the_closing() -> None:
    practice = Practice()
    practice.pay("03-02", "10", "Encounter/v1", patient="Patient/a")
    practice.pay("03-02", "7", "Encounter/v2", patient="Patient/a")
    opening = close_books(practice.books(), day("03-31"))
    old = set(practice.resources)
    practice.claim("04-02", "A1", practice.enter("04-02", "A1", "60"), visit="Encounter/v1")
    since = {name: each for name, each in practice.resources.items() if name not in old}
    books = continue_books(opening, read_rows(since.values()), day("03-31"))
    assert sum_balances(books, day("04-02"), "claim") == {"Claim/a1": D(50), "Patient/a": D(-7)}
    assert sum_balances(books, day("04-02"), "patient") == {"Patient/a": D(43)}


def test_charges_are_unbilled_until_their_claim_and_stay_so_for_that_day() -> None:
    practice = Practice()
    charges = practice.enter("03-02", "A1", "100", served="02-01")
    before = practice.books()
    practice.claim("03-20", "A1", charges)
    after = practice.books()
    for books in (before, after):
        assert sum_balances(books, day("03-10"), "payer") == {UNBILLED: D(100)}
        (row,) = age_receivables(books, day("03-10"), "responsibility")
        assert (row.group, row.amounts["0-30"]) == (UNBILLED, D(100))
    assert sum_balances(after, day("03-20"), "payer") == {"Organization/payer1": D(100)}
