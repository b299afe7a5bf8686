"""The mapper of incoming messages keeps to 3,500 lines of code: blank lines, comments, docstrings and tables aside.

A table is a dict, list, set or tuple of a module that takes three lines or more. Prescriptions and outgoing messages
are not counted: they are another direction and another family.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

MAPPER = Path(__file__).resolve().parents[3] / "mappers" / "hl7v2"
BUDGET = 3500
ELSEWHERE = frozenset({"doses.py", "medications.py", "timings.py"})
"""What reads prescriptions alone."""

SILENT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def count_code(text: str) -> int:
    """The lines of code of a module."""
    tree = ast.parse(text)
    spared: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            spared.update(range(node.lineno, (node.end_lineno or 0) + 1))
    for each in tree.body:
        is_table = isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(
            each.value, ast.Dict | ast.List | ast.Set | ast.Tuple
        )
        length = (each.end_lineno or 0) - each.lineno + 1
        if is_table and length >= 3:
            spared.update(range(each.lineno, each.lineno + length))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - spared)


def test_lines_are_counted() -> None:
    lines = (
        '"""A page."""',
        "",
        "ROWS = {",
        "    1: 2,",
        "}",
        "",
        "def add(a: int) -> int:",
        '    """Adds."""',
        "    # why",
    )
    assert count_code("\n".join([*lines, "    return a", ""])) == 2


def test_the_mapper_of_incoming_messages_is_within_its_budget() -> None:
    files = [each for each in MAPPER.rglob("*.py") if "outbound" not in each.parts and each.name not in ELSEWHERE]
    assert len(files) > 30
    assert sum(count_code(each.read_text(encoding="utf-8")) for each in files) <= BUDGET
