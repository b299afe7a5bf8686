"""Every fault that was found from outside has tests: of cost (A), of the store (S), of HTTP and browsers (H)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.shared import shared_path

ROOT = Path(__file__).resolve().parents[2]

PART_A = "tests/faults/test_part_a.py::test_part_a_keeps_nobody_else_waiting"
"""Throws A1 to A8 at two workers, with other clients beside them."""

TESTS: dict[str, tuple[str, ...]] = {
    "A1": (
        PART_A,
        "tests/cost/test_limits.py::test_gzip_members_are_bounded_and_cost_what_their_number_says",
        "tests/cost/test_limits.py::test_compressed_bodies_are_inflated_whole_or_refused",
    ),
    "A2": (
        PART_A,
        "tests/cost/test_limits.py::test_a_resource_with_too_many_index_rows_is_refused",
        "tests/cost/test_limits.py::test_more_values_of_one_parameter_than_can_be_indexed",
        "tests/cost/test_limits.py::test_a_long_string_is_found_and_takes_no_square_of_its_length",
        "tests/cost/test_products.py::test_the_codes_and_values_of_an_element_have_a_number_of_combinations",
        "tests/cost/test_products.py::test_references_without_target_are_named_up_to_a_number",
        "tests/fhir/test_letters.py::test_many_marks_on_a_letter_take_what_their_number_says",
        "tests/cost/test_caches.py::test_units_that_repeat_or_multiply_are_no_units",
        "tests/cost/test_time_limit.py::test_a_write_that_waited_too_long_was_not_stored_and_never_will_be",
    ),
    "A3": (
        PART_A,
        "tests/cost/test_conditional_creates.py::test_two_thousand_conditional_creates_cost_what_their_number_says",
        "tests/cost/test_limits.py::test_conditional_creates_and_references_share_their_searches",
        "tests/cost/test_appointments.py::test_four_hundred_appointments_cost_what_their_number_says",
    ),
    "A4": (PART_A, "tests/cost/test_limits.py::test_what_the_paths_of_a_fhirpath_patch_visit_is_bounded"),
    "A5": (
        PART_A,
        "tests/cost/test_limits.py::test_patches_have_a_number_of_operations",
        "tests/cost/test_limits.py::test_what_a_json_patch_copies_is_bounded",
        "tests/fhir/test_json_patch.py::test_a_patch_that_doubles_the_resource_again_and_again_is_too_costly",
    ),
    "A6": (
        PART_A,
        "tests/cost/test_limits.py::test_reads_of_a_bundle_beyond_the_budget",
        "tests/cost/test_limits.py::test_pages_of_large_resources_are_shorter_and_miss_none",
        "tests/faults/test_connections.py::test_memory_stays_below_the_documented_worst_case",
        "tests/cost/test_caches.py::test_long_texts_leave_nothing",
    ),
    "A7": (PART_A, "tests/cost/test_limits.py::test_expressions_of_search_parameters_have_a_number_of_branches"),
    "A8": (
        PART_A,
        "tests/cost/test_limits.py::test_includes_follow_so_many_levels",
        "tests/cost/test_limits.py::test_searches_are_bounded",
        "tests/cost/test_terminology_cost.py::test_a_concept_with_many_ways_up_is_reached_once",
        "tests/cost/test_terminology_cost.py::test_what_a_value_set_looks_at_has_a_number",
        "tests/cost/test_terminology_cost.py::test_many_includes_cost_what_their_number_says",
        "tests/cost/test_terminology_cost.py::test_what_the_criteria_of_a_search_name_has_a_number",
        "tests/cost/test_terminology_cost.py::test_patterns_that_would_take_very_long_are_refused",
        "tests/cost/test_terminology_cost.py::test_patterns_on_many_values_have_a_number_of_steps",
        "tests/cost/test_tokens_cost.py::test_a_token_of_many_scopes_keeps_nobody_waiting",
        "tests/cost/test_tokens_cost.py::test_what_a_token_may_see_is_looked_up_beside_the_loop",
        "tests/cost/test_terminology_cost.py::test_value_sets_are_evaluated_beside_the_loop",
        "tests/cost/test_large_rules.py::test_what_a_decision_reads_has_a_size",
        "tests/cost/test_large_rules.py::test_ledgers_and_statements_of_many_entries_are_written_beside_the_loop",
        "tests/cost/test_doors.py::test_nor_does_an_operation_take_more_participants",
        "tests/cost/test_large_rules.py::test_what_a_decision_reads_is_parsed_beside_the_loop",
        "tests/cost/test_large_rules.py::test_what_a_rule_is_asked_about_is_read_beside_the_loop",
        "tests/cost/test_large_answers.py::test_large_resources_of_an_answer_are_read_beside_the_loop",
        "tests/cost/test_large_answers.py::test_large_containers_are_looked_into_beside_the_loop",
        "tests/cost/test_large_answers.py::test_small_resources_are_read_where_they_are_and_others_get_turns",
    ),
    "A9": (
        "tests/faults/test_connections.py::test_a_header_line_beyond_the_limit_is_431",
        "tests/faults/test_connections.py::test_an_endless_head_is_431",
        "tests/faults/test_connections.py::test_silent_connections_make_room_for_new_ones",
        "tests/transports/test_mllp.py::test_connections_that_say_nothing_make_room_for_new_ones",
        "tests/transports/test_mllp.py::test_a_message_in_very_small_pieces_costs_what_its_length_says",
    ),
    "A10": ("tests/faults/test_connections.py::test_readers_that_do_not_read_leave_no_traceback",),
    "A11": (
        "tests/faults/test_connections.py::test_a_stop_ends_although_a_stranger_holds_the_lock",
        "tests/faults/test_connections.py::test_a_second_signal_ends_at_once",
    ),
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
    listed = re.findall(r"^\| ([ASH][0-9]+) \|", shared_path("faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(TESTS)
