"""The table of what the tests ran, on counts made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.coverage_table import Counts, count_by_package, format_percent, write_table


def summary(lines: int, run_lines: int, branches: int, run_branches: int) -> dict[str, Any]:
    return {
        "summary": {
            "num_statements": lines,
            "covered_lines": run_lines,
            "num_branches": branches,
            "covered_branches": run_branches,
        }
    }


def test_files_are_counted_in_the_package_below_the_first() -> None:
    files = {
        "fhir_server/app.py": summary(4, 4, 0, 0),
        "fhir_server/store/memory.py": summary(10, 5, 4, 1),
        "fhir_server/store/sqlite/search.py": summary(30, 25, 6, 5),
        "mappers/__init__.py": summary(0, 0, 0, 0),
    }
    assert count_by_package({"files": files}) == {
        "fhir_server": Counts(4, 4, 0, 0),
        "fhir_server/store": Counts(40, 30, 10, 6),
        "mappers": Counts(0, 0, 0, 0),
    }


def test_the_table_ends_with_the_sum() -> None:
    lines = list(write_table({"b": Counts(10, 5, 4, 1), "a": Counts(30, 30, 6, 6)}))
    assert [line.split()[0] for line in lines] == ["package", "a", "b", "all"]
    assert lines[-1].split() == ["all", "40", "87", "%", "10", "70", "%"]


@pytest.mark.parametrize(
    ("run", "whole", "text"), [(0, 0, "100 %"), (999, 1000, "99 %"), (0, 3, "0 %"), (2, 3, "66 %")]
)
def test_a_share_is_rounded_down(run: int, whole: int, text: str) -> None:
    assert format_percent(run, whole) == text
