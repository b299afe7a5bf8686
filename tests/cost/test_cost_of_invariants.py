"""Invariants cost at most four times what the structure alone costs: both over the same resources, in one run."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from fhir_server.app import Knowledge
from fhir_server.validation.structure import StructureValidator
from tests.validation.corpora import folder

TRIES = 3


def seconds(validator: StructureValidator, resources: list[Any]) -> float:
    """The CPU time of this process (s) for all of the resources, which are valid."""
    began = time.process_time()
    refused = [issue for resource in resources for issue in validator.find_issues(resource)]
    spent = time.process_time() - began
    assert not refused
    return spent


def test_invariants_cost_at_most_four_times_the_structure(known: Knowledge) -> None:
    resources = [entry["resource"] for _, bundle in islice(folder("data/synthea"), 3) for entry in bundle["entry"]]
    alone = StructureValidator(known.definitions, invariants=False)
    checked = StructureValidator(known.definitions, invariants=True)
    turns = [(seconds(alone, resources), seconds(checked, resources)) for _ in range(TRIES)]
    structure, both = (min(turn[number] for turn in turns) for number in (0, 1))
    assert both <= 4 * structure, turns
