"""The page on X12 names every module, table, extension and category that there is."""

from __future__ import annotations

import re
from pathlib import Path

from mappers.x12 import codes
from mappers.x12.tables import SAME_AS, TABLES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "mappers" / "x12.md").read_text(encoding="utf-8")


def test_every_module_has_its_row_and_every_row_its_module() -> None:
    section = PAGE.partition("## Modules")[2].partition("##")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    there = {path.stem for path in (ROOT / "mappers" / "x12").glob("*.py")} - {"__init__"}
    assert (set(named), len(named)) == (there, len(there))


def test_every_transaction_set_is_named_with_its_guide() -> None:
    assert [key for key in TABLES if key[0] not in PAGE or key[1] not in PAGE] == []
    assert set(SAME_AS.values()) <= {version for _, version in TABLES}


def test_every_extension_of_a_claim_is_named() -> None:
    urls = [codes.ASSIGNMENT, codes.BENEFITS, codes.RELEASE, codes.SIGNATURE, codes.DELAY, codes.ORIGINAL_NUMBER]
    urls += [codes.SECONDARY_TYPE, codes.EMERGENCY, codes.AUTHORIZATION, codes.NONCOVERED]
    assert [url for url in urls if f"| `{url.removeprefix(codes.EXTENSION + '/')}` " not in PAGE] == []


def test_every_category_of_supporting_information_is_named() -> None:
    assert [category for category in codes.DATES if f"`{category}`" not in PAGE] == []
