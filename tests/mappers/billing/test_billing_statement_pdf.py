"""The statement as a PDF, read back with pypdf: the address in the window, each line once, sums, pages with numbers."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pytest

from mappers.billing.ledger import Root
from mappers.billing.statement_pdf import ADDRESS_LINES, FIRST_ROWS, NEXT_ROWS, WINDOW, draw_statement
from mappers.billing.statements import Statement, StatementLine
from tests.mappers.billing.histories import day

pytest.importorskip("reportlab", reason="The extra `pdf` is not installed.")
pypdf = pytest.importorskip("pypdf", reason="The extra `test` is not installed.")

D = Decimal
NAMES = {"Patient/a": "Ada Quill", "Practitioner/pine": "Dr. Pine"}
ADDRESS = ["Rosa Quill", "c/o Öz", "1 Elm St", "Floor 2", "Boston, MA 02108", "a sixth line"]


def make_statement(count: int) -> Statement:
    """So many claims of 100, of which the payer paid 60, 20 were written off and 20 are owed for 40 days."""
    lines = [
        StatementLine(
            Root(f"Claim/{n}", "Patient/a", "Account/a", "Practitioner/pine", "", day("03-01")),
            charged=D("100.00"),
            by_payers=D("60.00"),
            adjusted=D("20.00"),
            by_patient=D("0.00"),
            pending=D("0.00"),
            owed=D(20) + D(n) / 100,
            credit=D("0.00"),
        )
        for n in range(count)
    ]
    owed = sum((line.owed for line in lines), D("0.00"))
    ages = {"0-30": D("0.00"), "31-60": owed, "61-90": D("0.00"), "91-120": D("0.00"), "121+": D("0.00")}
    return Statement(day("04-10"), tuple(lines), ages)


def read(pdf: bytes) -> tuple[list[str], list[tuple[str, float, float]]]:
    """The text of each page, and (text, x, y) of each piece of the first."""
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    pieces: list[tuple[str, float, float]] = []

    def visit(text: str, _: Any, matrix: list[float], *rest: Any) -> None:
        if text.strip():
            pieces.append((text.strip(), matrix[4], matrix[5]))

    reader.pages[0].extract_text(visitor_text=visit)
    return [page.extract_text() for page in reader.pages], pieces


def test_the_address_lies_in_the_window_and_nothing_else_does() -> None:
    _, pieces = read(draw_statement(make_statement(3), "a", ADDRESS, NAMES))
    left, bottom, right, top = WINDOW
    inside = [text for text, x, y in pieces if left <= x <= right and bottom <= y <= top]
    assert inside == ADDRESS[:ADDRESS_LINES]


def test_lines_ages_and_total() -> None:
    """Three claims: 20.00, 20.01, 20.02 are owed."""
    (page,), _ = read(draw_statement(make_statement(3), "a", ADDRESS, NAMES))
    assert page.count("Ada Quill / Dr. Pine") == 3
    for text in ("STATEMENT OF 2026-04-10", "ACCOUNT a", "2026-03-01", "100.00", "20.02", "PLEASE PAY", "Page 1 of 1"):
        assert text in page
    rows = page.splitlines()
    assert rows[rows.index("PLEASE PAY") + 1] == "60.03" and rows[rows.index("31-60 days") + 1] == "60.03"
    assert rows[rows.index("0-30 days") + 1] == "0.00"


def test_many_pages_have_each_claim_once_and_their_numbers() -> None:
    count = FIRST_ROWS + 2 * NEXT_ROWS
    pages, _ = read(draw_statement(make_statement(count), "a", ADDRESS, NAMES))
    assert len(pages) == 4
    for number, page in enumerate(pages, 1):
        assert f"Page {number} of 4" in page and "ACCOUNT a" in page and "you owe" in page
    rows = "\n".join(pages).splitlines()
    assert [rows.count(f"{D(20) + D(n) / 100:.2f}") >= 1 for n in range(count)] == [True] * count
    assert sum(page.count("Ada Quill / Dr. Pine") for page in pages) == count
    assert "PLEASE PAY" in pages[-1] and "PLEASE PAY" not in pages[0]
    assert "Rosa Quill" not in pages[1]


def test_letters_that_the_fonts_lack_and_an_account_without_anything() -> None:
    (page,), pieces = read(draw_statement(make_statement(0), "a", ["Ада \u0007 Œ", ""], {}))
    assert "Nothing is open." in page and [text for text, _, _ in pieces if "?" in text] == ["??? ?"]


def test_a_statement_is_drawn_the_same_each_time() -> None:
    assert draw_statement(make_statement(5), "a", ADDRESS, NAMES) == draw_statement(
        make_statement(5), "a", ADDRESS, NAMES
    )
