"""Every fault of the store (S) and of HTTP and browsers (H) that was found from outside has tests; this says which."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.shared import shared_path

ROOT = Path(__file__).resolve().parents[2]

TESTS: dict[str, tuple[str, ...]] = {
    "S1": (
        "tests/interactions/test_bases.py::test_no_reindex_by_any_name_changes_an_answer",
        "tests/interactions/test_bases.py::test_nor_does_the_command_or_a_new_name",
        "tests/interactions/test_bases.py::test_a_store_without_a_known_name_is_not_reindexed",
    ),
    "S2": (
        "tests/faults/test_files.py::test_a_removed_file_is_not_made_again",
        "tests/faults/test_files.py::test_a_replaced_file_is_left_alone",
        "tests/commands/test_store_commands.py::test_a_database_that_is_not_there_is_said",
    ),
    "S3": (
        "tests/operations/test_operations.py::test_a_purge_takes_nothing_that_came_meanwhile",
        "fhir_server/store/contract/upkeep.py::test_a_purge_beside_writes_of_the_same_resource",
    ),
    "H1": (
        "tests/faults/test_browser.py::test_a_page_of_another_origin_reads_and_writes_nothing",
        "tests/api/test_guard.py::test_no_page_reads_unless_the_setting_lets_it",
    ),
    "H2": ("tests/api/test_guard.py::test_the_names_of_the_server",),
    "H3": (
        "tests/api/test_guard.py::test_forwarded_headers_of_strangers_are_ignored",
        "tests/api/test_guard.py::test_forwarded_headers_of_a_proxy_count",
    ),
    "H4": (
        "tests/api/test_guard.py::test_the_origins_of_pages",
        "tests/faults/test_browser.py::test_a_page_of_another_origin_reads_and_writes_nothing",
    ),
    "H5": ("tests/validation/test_narratives.py::test_a_narrative_with_what_is_not_allowed_is_refused",),
    "H6": ("tests/api/test_privacy.py::test_files_are_of_one_user",),
}


def list_functions(path: str) -> set[str]:
    """The names of the functions of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", TESTS)
def test_the_tests_of_a_row_are_there(row: str) -> None:
    for named in TESTS[row]:
        path, _, function = named.partition("::")
        assert function in list_functions(path), named


def test_every_row_is_in_the_table() -> None:
    listed = re.findall(r"^\| ([SH][0-9]+) \|", shared_path("faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(TESTS)
