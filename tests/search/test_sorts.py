"""The table of declared sorts names parameters that exist and have an order (https://hl7.org/fhir/R4/search.html#sort)."""

from __future__ import annotations

import pytest

from fhir_server.app import Knowledge
from fhir_server.search.parameters import make_sort
from fhir_server.search.sorts import ALWAYS, MAX_SORTS, SORTS, list_declared_sorts


@pytest.mark.parametrize("type", SORTS)
def test_declared_sorts_are_parameters_with_an_order(known: Knowledge, type: str) -> None:
    parameters = known.registry.parameters(type)
    kinds = {make_sort(parameters[code], descending=False).kind for code in SORTS[type]}
    assert kinds <= {"term", "date"}, "other kinds have no index in the order of their values"
    assert 0 < len(SORTS[type]) <= MAX_SORTS
    assert list(SORTS[type]) == sorted(set(SORTS[type]))


def test_every_type_sorts_by_id_and_by_time() -> None:
    assert list_declared_sorts("Basic") == ALWAYS == ("_id", "_lastUpdated")
    assert list_declared_sorts("Patient")[:2] == ALWAYS and "birthdate" in list_declared_sorts("Patient")
