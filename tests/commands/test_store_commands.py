"""Commands on a file that is not there: only `serve` and `load` make one (`docs/stores/sqlite.md`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli

COMMANDS = (
    "backup copy.db",
    "reindex",
    "reindex Patient",
    "work",
    "schedule",
    "messages list",
    "report ar-aging",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, [*command.split(), "--store", "sqlite:///clinik.db"])
    assert result.exit_code == 1
    assert f"There is no database `{tmp_path}/clinik.db`" in "".join(result.output.splitlines())
    assert list(tmp_path.iterdir()) == []
