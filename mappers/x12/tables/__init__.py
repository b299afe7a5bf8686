"""The transaction sets read and written here, by ST01 and implementation guide (GS08 or ST03)."""

from __future__ import annotations

from mappers.x12.table import Table, index_tables
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.tables.claim import TABLE_837P
from mappers.x12.tables.eligibility import TABLE_270, TABLE_271
from mappers.x12.tables.remittance import TABLE_835
from mappers.x12.tables.status import TABLE_276, TABLE_277, TABLE_277CA

TABLES = index_tables((TABLE_837P, TABLE_835, TABLE_270, TABLE_271, TABLE_276, TABLE_277, TABLE_277CA, TABLE_999))

# Errata whose loops are those of the version beside it
SAME_AS = {"005010X222A2": "005010X222A1", "005010X222": "005010X222A1", "005010X221": "005010X221A1"}
SAME_AS |= {"005010X279": "005010X279A1", "005010X231": "005010X231A1", "005010": "005010X231A1"}


def find_table(code: str, version: str) -> Table | None:
    """The table of a transaction set; None where this program has none for it."""
    return TABLES.get((code, SAME_AS.get(version, version)))
