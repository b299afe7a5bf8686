"""The long run's differential: many Synthea bundles beside the official examples, in every store."""

from __future__ import annotations

import pytest

from fhir_server.app import Knowledge
from tests.corpora.corpus import files
from tests.differential.both import STORES, both
from tests.differential.test_differential import SEED, compare, walks

pytestmark = [pytest.mark.anyio, pytest.mark.long]

ASKED: dict[str, tuple[int, int, int]] = {"sqlite": (34, 1000, 40), "mongodb": (8, 100, 4)}
"""Store → (bundles, random searches, page walks). SecantusDB would take a quarter of an hour for all the bundles."""


@pytest.mark.parametrize("store", sorted(STORES))
async def test_many_bundles(store: str, known: Knowledge, request: pytest.FixtureRequest) -> None:
    """In one test, so that workers that share out the tests load the data once a store."""
    bundles, searches, walked = ASKED[store]
    async with both(known, STORES[store](request), bundles=bundles) as servers:
        synthea = [tree for tree in servers.trees.values() if "synthetichealth" in str(tree.get("identifier"))]
        patients = sum(tree["resourceType"] == "Patient" for tree in synthea)
        # one patient a bundle, of whom `both` deletes one in fifty resources
        assert patients >= 0.9 * bundles
        assert len(servers.trees) > 8000 or bundles < len(files("synthea"))
        await compare(servers, searches, SEED + 2)
        await walks(servers, walked, SEED + 2)
