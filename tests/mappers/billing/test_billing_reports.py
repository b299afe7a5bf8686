"""Reports: one quarter of a small practice, every figure worked out by hand as in docs/reports.md, and their laws."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from mappers.billing.ledger import Books, make_books
from mappers.billing.reports import (
    BUCKETS,
    Sent,
    Summary,
    age_receivables,
    find_bucket,
    measure_productivity,
    rank_denials,
    summarize_finances,
)
from tests.mappers.billing.histories import D, Practice, claim_paid, day, lines_paid

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reports.md"
SENT = Sent({"Claim/a1": day("01-08"), "Claim/b1": day("01-12"), "Claim/c1": day("02-06")})
JANUARY, APRIL = day("01-01"), day("03-31")


def quarter() -> Books:
    """The quarter of the page: three claims of two providers."""
    practice = Practice()
    practice.bill("01-06", "A1", "100", "50", served="01-05")
    practice.bill("01-10", "B1", "200", served="01-08", provider="elm")
    practice.bill("02-04", "C1", "90", served="02-01")
    practice.remit(
        "02-05",
        lines_paid("A1", ("60", "CO-45 20, PR-1 20"), ("0", "CO-197 50")),
        lines_paid("B1", ("120", "CO-45 80")),
    )
    practice.follow("02-05", "A1")
    practice.pay("02-20", "20", "Invoice/invoice1")
    practice.remit("03-03", claim_paid("C1", "0", "CO-16 90"))
    return practice.books()


FIGURES: dict[str, str] = {
    "charges": "440.00",
    "payments": "200.00",
    "adjustments": "100.00",
    "contractual": "100.00",
    "refunds": "0.00",
    "receivables": "140.00",
    "credits": "0.00",
    "unapplied": "0.00",
    "days_in_receivables": "28.6",
    "over_90": "0.0000",
    "gross_collection": "0.4545",
    "net_collection": "0.5882",
    "adjudicated": "3",
    "denied": "2",
    "denial_rate": "0.6667",
    "denial_rate_of_charges": "0.5455",
    "clean_claim_rate": "0.3333",
    "charge_lag": "1.8",
    "submission_lag": "4.0",
    "payment_lag": "25.7",
}


@pytest.fixture(scope="module")
def books() -> Books:
    return quarter()


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_of_the_quarter(books: Books, figure: str) -> None:
    assert str(getattr(summarize_finances(books, JANUARY, APRIL, SENT), figure)) == FIGURES[figure]


def test_the_page_has_every_figure_with_its_result() -> None:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[4].strip() for row in rows if len(row) == 6}
    assert told == FIGURES
    assert set(FIGURES) == set(Summary.__slots__)


def test_a_rejected_claim_is_not_clean(books: Books) -> None:
    rejected = Sent(SENT.days, frozenset(["Claim/b1"]))
    assert summarize_finances(books, JANUARY, APRIL, rejected).clean_claim_rate == 0


def test_what_is_over_90_days_a_month_later(books: Books) -> None:
    assert summarize_finances(books, JANUARY, day("04-30"), SENT).over_90 == D("0.3571")


def test_nothing_is_divided_by_nothing() -> None:
    empty = summarize_finances(make_books({}), JANUARY, APRIL)
    assert empty.charges == 0 and empty.gross_collection is None and empty.charge_lag is None


def aged(books: Books, when: str, by: str, group: str = "payer") -> dict[str, dict[str, Decimal]]:
    rows = age_receivables(books, day(when), by, group)
    return {row.group: {bucket: amount for bucket, amount in row.amounts.items() if amount} for row in rows}


def test_receivables_by_age_of_visit_and_of_responsibility(books: Books) -> None:
    one = "Organization/payer1"
    assert aged(books, "02-10", "service") == {
        one: {"0-30": D("90.00"), "31-60": D("50.00")},
        "patient": {"31-60": D("20.00")},
    }
    assert aged(books, "02-10", "responsibility") == {
        one: {"0-30": D("90.00"), "31-60": D("50.00")},
        "patient": {"0-30": D("20.00")},
    }
    assert aged(books, "03-31", "service") == {one: {"31-60": D("90.00"), "61-90": D("50.00")}}
    assert aged(books, "03-31", "responsibility") == {one: {"31-60": D("90.00"), "61-90": D("50.00")}}
    assert aged(books, "01-31", "service", "provider") == {
        "Practitioner/elm": {"0-30": D("200.00")},
        "Practitioner/pine": {"0-30": D("150.00")},
    }
    assert aged(books, "03-31", "service", "location") == {"Location/north": {"31-60": D("90.00"), "61-90": D("50.00")}}
    assert set(aged(books, "02-10", "service", "patient")) == {"Patient/a", "Patient/c"}


@pytest.mark.parametrize(
    ("days", "bucket"),
    [
        (-3, "0-30"),
        (0, "0-30"),
        (30, "0-30"),
        (31, "31-60"),
        (60, "31-60"),
        (90, "61-90"),
        (120, "91-120"),
        (121, "121+"),
    ],
)
def test_the_ends_of_the_buckets(days: int, bucket: str) -> None:
    assert find_bucket(days) == bucket
    assert bucket in dict(BUCKETS)


def test_denials_from_the_largest_with_their_share(books: Books) -> None:
    def rows(by: str) -> list[tuple[str, int, Decimal, Decimal]]:
        return [tuple(row) for row in rank_denials(books, JANUARY, APRIL, by)]  # type: ignore[misc]

    assert rows("reason") == [("CO-16", 1, D("90.00"), D("0.6429")), ("CO-197", 1, D("50.00"), D("1.0000"))]
    assert rows("month") == [("2026-02", 1, D("50.00"), D("0.3571")), ("2026-03", 1, D("90.00"), D("1.0000"))]
    assert rows("payer") == [("Organization/payer1", 2, D("140.00"), D("1.0000"))]
    assert rows("provider") == [("Practitioner/pine", 2, D("140.00"), D("1.0000"))]
    assert rank_denials(books, day("03-01"), APRIL)[0].amount == D("90.00")


def test_productivity_by_rendering_provider(books: Books) -> None:
    elm, pine = measure_productivity(books, JANUARY, APRIL)
    assert tuple(elm) == ("Practitioner/elm", 1, 1, D("200.00"), D("120.00"), D("80.00"))
    assert tuple(pine) == ("Practitioner/pine", 2, 3, D("240.00"), D("80.00"), D("20.00"))


def test_the_summary_of_a_quarter_is_the_sum_of_its_months(books: Books) -> None:
    ends = [("01-01", "01-31"), ("02-01", "02-28"), ("03-01", "03-31")]
    months = [summarize_finances(books, day(start), day(end), SENT) for start, end in ends]
    whole = summarize_finances(books, JANUARY, APRIL, SENT)
    for figure in ("charges", "payments", "adjustments", "contractual", "refunds", "adjudicated", "denied"):
        assert sum(getattr(month, figure) for month in months) == getattr(whole, figure)
    open_before = Decimal(0)
    for month in months:
        open_before += month.charges - month.payments - month.adjustments + month.refunds
        assert month.receivables - month.credits == open_before
