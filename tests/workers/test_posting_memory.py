"""Posting an 835 of ten transaction sets takes no more memory with each of them.

`FHIR_POSTED_CLAIMS` sets the number of claims of all ten, 100,000 for the whole test.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from bench.practice import CLAIMS_OF_PATIENT, Practice
from fhir_server.app import Knowledge, Seams
from tests.conftest import serving
from tests.faults.process import ROOT
from tests.operations.payments.money_clinic import store
from tests.operations.payments.remittances import find
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.long]

SETS = 10
CLAIMS = int(os.environ.get("FHIR_POSTED_CLAIMS", "400")) // SETS // CLAIMS_OF_PATIENT * CLAIMS_OF_PATIENT
"""Claims of a set."""
MEGABYTE = 1024 * 1024
ALLOWED = 32 * MEGABYTE
"""What the second five sets may add: pages of the database that are kept, memory in pieces."""


async def test_memory_does_not_grow_with_the_sets(known: Knowledge, tmp_path: Path) -> None:
    uri, text = f"sqlite:///{tmp_path}/fhir.db", tmp_path / "ten.835"
    made = Practice("B000001", date(2026, 3, 2))
    seams = replace(Seams(), clock=Clock("2026-03-02T12:00:00Z"))
    async with serving(known, seams, store=uri) as client:
        await store(client, made.make_parties())
        for each in made.list_bundles(range(SETS * CLAIMS)):
            await store(client, each)
    text.write_bytes(made.write_835([range(n * CLAIMS, (n + 1) * CLAIMS) for n in range(SETS)]))
    command = (sys.executable, "-m", "tests.workers.posting_memory", uri, str(ROOT / "bench" / "site"), str(text))
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    sizes = json.loads(done.stdout)
    print([f"{size // MEGABYTE} MB" for size in sizes], "of sets of", CLAIMS)
    assert len(sizes) == SETS and sizes[-1] - sizes[SETS // 2 - 1] < ALLOWED, sizes
    async with serving(known, seams, store=uri) as client:
        payments = await find(client, "PaymentReconciliation?_elements=status,outcome")
        assert [(each["status"], each["outcome"]) for each in payments] == [("active", "complete")] * SETS
