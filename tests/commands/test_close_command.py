"""`fhir-server close`: what it refuses. What it does is tested in tests/operations/payments/test_closings.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from tests.conftest import serving


@pytest.mark.parametrize(
    ("month", "code", "text"),
    [
        ("spring", 2, "`spring` is no month; write it as `2026-03`."),
        ("2026-13", 2, "`2026-13` is no month"),
        ("9999-11", 1, "The month 9999-11 is not over: its last day is 9999-11-30"),
    ],
)
def test_a_month_that_cannot_be_closed(known: Knowledge, tmp_path: Path, month: str, code: int, text: str) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"

    async def make() -> None:
        async with serving(known, store=uri):
            pass

    asyncio.run(make())
    result = CliRunner().invoke(cli, ["close", "--month", month, "--store", uri])
    assert (result.exit_code, text in result.output) == (code, True), result.output
