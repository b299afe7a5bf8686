"""The texts of a CMS-1500 as a PDF to be printed on the preprinted form (docs/decisions/0018-paper-by-reportlab.md)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

from mappers.billing.form_layout import MARGINS, find_box

_WIDTH, _HEIGHT = 612, 792
"""Points of a letter sheet."""
_PITCH, _LEADING, _SIZE = 7.2, 12.0, 12
"""Points of a column and of a line; a letter of Courier is as wide as six tenths of its size."""


def place_box(name: str, text: str, margins: tuple[float, float] = MARGINS) -> tuple[float, float]:
    """Where a text of a box begins: points from the left and from the bottom of the sheet, at its base line."""
    box = find_box(name)
    column = box.column + (box.width - len(text) if box.right else 0)
    left, top = margins
    return left + _PITCH * (column - 1), _HEIGHT - top - _LEADING * box.line


def draw_form(pages: Iterable[Mapping[str, str]], margins: tuple[float, float] = MARGINS) -> bytes:
    """A PDF with a sheet for each page; it has texts alone. Raises ImportError where ReportLab is not installed."""
    from reportlab.pdfgen.canvas import Canvas  # costs 0.1 s, and is an extra

    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(_WIDTH, _HEIGHT), invariant=True)
    canvas.setTitle("CMS-1500")
    for page in pages:
        canvas.setFont("Courier", _SIZE)
        for name, text in page.items():
            canvas.drawString(*place_box(name, text, margins), text)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()
