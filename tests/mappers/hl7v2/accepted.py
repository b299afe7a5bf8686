"""The differences from the samples that are meant, `accepted.tsv`: message and resource type, path, value, and reason.

Path and value are regular expressions; `*` stands for every message or resource type. The first rows are decisions of
docs/mappers/hl7v2.md, the others choices or faults of the samples.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.mappers.hl7v2.comparison import Leaf

TABLE = Path(__file__).parent / "accepted.tsv"


class Accepted(NamedTuple):
    """One row."""

    message: str
    type: str
    path: re.Pattern[str]
    value: re.Pattern[str]
    reason: str


@cache
def read_accepted() -> tuple[Accepted, ...]:
    """The rows in their order."""
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    return tuple(
        Accepted(message, type_, re.compile(path), re.compile(value, re.IGNORECASE), reason)
        for message, type_, path, value, reason in rows
    )


def find_reason(message: str, leaf: Leaf) -> str:
    """Why a difference is accepted, "" where it is not."""
    for row in read_accepted():
        applies = row.message in ("*", message) and row.type in ("*", leaf.type)
        if applies and row.path.fullmatch(leaf.path) and row.value.fullmatch(leaf.value):
            return row.reason
    return ""
