"""The contract suite that every store passes: subclass `StoreContract` in a test file and say how the store is opened.

    class TestMemory(StoreContract):
        async def open_store(self, clock):
            return await memory.open_store("memory://", clock)

Each call of `open_store` gives a new, empty database. `DurableContract` is for a store that outlives its process;
`Differential` compares a store with the in-memory one on random resources and queries. The promises are those of
`../protocol.py` and `../operations.py`. The `test` extra is needed (pytest, hypothesis).
"""

from __future__ import annotations

import pytest

_PARTS = (
    *("case", "writes", "transactions", "integrity", "clauses", "pages", "versions", "upkeep", "races", "values"),
    *("differential", "durable", "many", "texts"),
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

# After the line above: pytest rewrites the asserts of a module when it is first imported.
from fhir_server.store.contract.clauses import ClauseContract  # noqa: E402
from fhir_server.store.contract.differential import Differential  # noqa: E402
from fhir_server.store.contract.durable import DurableContract  # noqa: E402
from fhir_server.store.contract.integrity import IntegrityContract  # noqa: E402
from fhir_server.store.contract.many import ManyContract  # noqa: E402
from fhir_server.store.contract.pages import PageContract  # noqa: E402
from fhir_server.store.contract.races import RaceContract  # noqa: E402
from fhir_server.store.contract.texts import TextContract  # noqa: E402
from fhir_server.store.contract.transactions import TransactionContract  # noqa: E402
from fhir_server.store.contract.upkeep import UpkeepContract  # noqa: E402
from fhir_server.store.contract.values import ValueContract  # noqa: E402
from fhir_server.store.contract.versions import VersionContract  # noqa: E402
from fhir_server.store.contract.writes import WriteContract  # noqa: E402

__all__ = ["Differential", "DurableContract", "StoreContract"]


class StoreContract(
    WriteContract,
    TransactionContract,
    IntegrityContract,
    ClauseContract,
    ManyContract,
    PageContract,
    TextContract,
    VersionContract,
    UpkeepContract,
    ValueContract,
    RaceContract,
):
    """All promises of the store protocol."""
