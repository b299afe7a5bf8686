"""The tests of transactions and conditional interactions once more, on MongoDB, and what explains a search: https://hl7.org/fhir/R4/http.html#transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interactions.test_conditional import (
    test_64_identical_conditional_creates_make_one,
    test_64_updates_with_one_if_match_have_one_winner,
    test_conditional_create,
    test_conditional_delete_of_one,
    test_conditional_delete_of_several,
    test_conditional_patch,
    test_conditional_update,
)
from tests.interactions.test_contained import test_a_chain_to_more_than_is_indexed_is_refused
from tests.interactions.test_transaction import (
    test_all_or_nothing_names_the_failing_entry,
    test_concurrent_transactions_on_the_same_resources,
    test_conditional_entries_and_references,
    test_criteria_see_what_is_patched_in_the_bundle,
    test_delete_with_its_referrer_in_one_transaction,
    test_every_verb_in_one_transaction,
    test_references_between_entries_are_rewritten,
    test_stale_version_in_a_transaction,
)
from tests.search.test_terminology import stocked, test_a_search_explains_itself

__all__ = [
    "stocked",
    "test_64_identical_conditional_creates_make_one",
    "test_64_updates_with_one_if_match_have_one_winner",
    "test_a_chain_to_more_than_is_indexed_is_refused",
    "test_a_search_explains_itself",
    "test_all_or_nothing_names_the_failing_entry",
    "test_concurrent_transactions_on_the_same_resources",
    "test_conditional_create",
    "test_conditional_delete_of_one",
    "test_conditional_delete_of_several",
    "test_conditional_entries_and_references",
    "test_conditional_patch",
    "test_conditional_update",
    "test_criteria_see_what_is_patched_in_the_bundle",
    "test_delete_with_its_referrer_in_one_transaction",
    "test_every_verb_in_one_transaction",
    "test_references_between_entries_are_rewritten",
    "test_stale_version_in_a_transaction",
]

pytestmark = pytest.mark.anyio


@pytest.fixture
def store_uri(new_mongo_uri: Callable[[], str]) -> str:
    """A fresh database, in place of the stores that the tests run on at home."""
    return new_mongo_uri()
