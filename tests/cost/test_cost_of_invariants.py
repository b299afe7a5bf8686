"""Invariants cost at most four times what the structure alone costs: both over the same resources, in one run."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.validation.structure import StructureValidator
from tests.cost.measuring import check_ratio_of_calls
from tests.validation.corpora import folder


def validate(validator: StructureValidator, resources: list[Any]) -> None:
    """All of them are valid."""
    assert not [issue for resource in resources for issue in validator.find_issues(resource)]


@pytest.mark.anyio
async def test_invariants_cost_at_most_four_times_the_structure(known: Knowledge) -> None:
    resources = [entry["resource"] for _, bundle in islice(folder("data/synthea"), 3) for entry in bundle["entry"]]
    alone = StructureValidator(known.definitions, invariants=False)
    checked = StructureValidator(known.definitions, invariants=True)
    await check_ratio_of_calls(lambda: validate(alone, resources), lambda: validate(checked, resources), 4)
