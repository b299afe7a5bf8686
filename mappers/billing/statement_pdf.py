"""A statement as a PDF: a letter whose address shows in a window envelope, on as many pages as it takes.

The window is that of a US No. 10 envelope, the sheet folded in three (docs/decisions/0018-paper-by-reportlab.md).
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mappers.billing.statements import Statement, StatementLine, describe_line, list_sums, make_plain

WIDTH, HEIGHT = 612, 792
"""Points of a Letter sheet."""

WINDOW = (72, 584, 340, 650)
"""Left, bottom, right and top of the envelope's window, less a margin: all lines of the address lie in it."""

ADDRESS_LINES = 5
FIRST_ROWS, NEXT_ROWS = 34, 48
"""Rows of text on the first page, below the address, and on each later one."""

_LEFT, _RIGHT, _LEADING, _SIZE = 54, 558, 13.0, 9
_FIRST_TOP, _NEXT_TOP, _FOOT = 530, 710, 40
_COLUMNS = (("charged", 322), ("payers", 381), ("adjusted", 440), ("you paid", 499), ("you owe", _RIGHT))
"""Title and right edge of each column of amounts."""
_NAME, _NAME_WIDTH = 112, 34
"""Where what a line is for begins, and its characters."""


class Row(NamedTuple):
    """A line of print: a day, a text and amounts; of amounts those that are empty are left out. `heavy`: in bold."""

    day: str = ""
    text: str = ""
    amounts: tuple[str, ...] = ()
    heavy: bool = False


def draw_statement(statement: Statement, account: str, address: Iterable[str], names: Mapping[str, str]) -> bytes:
    """The statement as a PDF. Arguments: see `write_statement`. Raises ImportError where ReportLab is not installed."""
    from reportlab.pdfgen.canvas import Canvas  # costs 0.1 s, and is an extra

    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(WIDTH, HEIGHT), invariant=True)
    canvas.setTitle(_to_latin(f"Statement of {statement.day}, account {account}"))
    pages = list_pages(list_rows(statement, names))
    for number, rows in enumerate(pages, 1):
        head = f"STATEMENT OF {statement.day}", f"ACCOUNT {account}"
        _draw_head(canvas, head)
        if number == 1:
            _draw_address(canvas, address)
        _draw_rows(canvas, rows, _FIRST_TOP if number == 1 else _NEXT_TOP)
        _draw(canvas, (_RIGHT, _FOOT), f"Page {number} of {len(pages)}", right=True)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def list_rows(statement: Statement, names: Mapping[str, str]) -> list[Row]:
    """What stands under the titles of the columns: a line for each claim, the sums, what is owed by its age."""
    rows = [row for line in statement.lines for row in _list_line(line, names)] or [Row("", "Nothing is open.")]
    rows.append(Row())
    rows += [Row("", name, ("", "", "", "", amount), name == "PLEASE PAY") for name, amount in list_sums(statement)]
    if statement.due:
        rows += [Row(), Row("", "Of what you owe, by the days since we asked:")]
        rows += [Row("", f"{name} days", ("", "", "", "", f"{amount:.2f}")) for name, amount in statement.ages.items()]
    return rows


def list_pages(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows by page, at least one page."""
    rest = range(FIRST_ROWS, len(rows), NEXT_ROWS)
    return [rows[:FIRST_ROWS], *(rows[start : start + NEXT_ROWS] for start in rest)]


def _list_line(line: StatementLine, names: Mapping[str, str]) -> list[Row]:
    day = "" if line.root.service_day is None else str(line.root.service_day)
    amounts = (line.charged, line.by_payers, line.adjusted, line.by_patient, line.owed)
    pieces = textwrap.wrap(describe_line(line, names), _NAME_WIDTH) or [""]
    rows = [Row(day, pieces[0], tuple(f"{amount:.2f}" for amount in amounts))]
    rows += [Row("", piece) for piece in pieces[1:]]
    if line.pending:
        rows.append(Row("", f"{line.pending:.2f} more are with a payer or not billed yet; please wait."))
    return rows


def _draw_head(canvas: Any, head: tuple[str, str]) -> None:
    _draw(canvas, (_LEFT, HEIGHT - 54), head[0], heavy=True)
    _draw(canvas, (_RIGHT, HEIGHT - 54), head[1], heavy=True, right=True)


def _draw_address(canvas: Any, address: Iterable[str]) -> None:
    left, _, _, top = WINDOW
    lines = [plain for each in address if (plain := make_plain(each))][:ADDRESS_LINES]
    for number, line in enumerate(lines):
        _draw(canvas, (left, top - 12 - _LEADING * number), line[:48])


def _draw_rows(canvas: Any, rows: Iterable[Row], top: float) -> None:
    _draw(canvas, (_LEFT, top), "date", heavy=True)
    _draw(canvas, (_NAME, top), "for", heavy=True)
    for title, edge in _COLUMNS:
        _draw(canvas, (edge, top), title, heavy=True, right=True)
    canvas.line(_LEFT, top - 3, _RIGHT, top - 3)
    for number, row in enumerate(rows, 1):
        y = top - _LEADING * number - 3
        _draw(canvas, (_LEFT, y), row.day)
        _draw(canvas, (_NAME, y), row.text, heavy=row.heavy)
        for (_, edge), amount in zip(_COLUMNS, row.amounts, strict=False):
            _draw(canvas, (edge, y), amount, heavy=row.heavy, right=True)


def _draw(canvas: Any, point: tuple[float, float], text: str, heavy: bool = False, right: bool = False) -> None:
    if text:
        canvas.setFont("Helvetica-Bold" if heavy else "Helvetica", _SIZE)
        (canvas.drawRightString if right else canvas.drawString)(*point, _to_latin(text))


def _to_latin(text: str) -> str:
    """What the fonts of every reader have: other letters are shown as `?`."""
    return text.encode("latin-1", "replace").decode("latin-1")
