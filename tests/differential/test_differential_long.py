"""The long run's differential: all the Synthea bundles beside the official examples, in every store."""

from __future__ import annotations

import pytest

from fhir_server.app import Knowledge
from tests.corpora.corpus import files
from tests.differential.both import STORES, both
from tests.differential.test_differential import SEED, compare, walks

pytestmark = [pytest.mark.anyio, pytest.mark.long]

ASKED = {"sqlite": (1500, 60), "mongodb": (150, 4)}
"""Store → (random searches, page walks). SecantusDB takes a third of a second for a search of so many resources."""


@pytest.mark.parametrize("store", sorted(STORES))
async def test_all_the_bundles(store: str, known: Knowledge, request: pytest.FixtureRequest) -> None:
    """In one test, so that workers that share out the tests load the data once a store."""
    async with both(known, STORES[store](request), bundles=None) as servers:
        synthea = [tree for tree in servers.trees.values() if "synthetichealth" in str(tree.get("identifier"))]
        patients = sum(tree["resourceType"] == "Patient" for tree in synthea)
        # one patient a bundle, of whom `both` deletes one in fifty resources
        assert patients >= 0.9 * len(files("synthea")) and len(servers.trees) > 8000
        searches, walked = ASKED[store]
        await compare(servers, searches, SEED + 2)
        await walks(servers, walked, SEED + 2)
