"""`fhir-server serve` refuses what it must not do, with a sentence and exit status 2."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.commands.serve import is_loopback


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "--allow-unauthenticated"),
        (["--host", "::"], "--allow-unauthenticated"),
        (["--store", "memory://", "--workers", "2"], "--workers 1"),
        (["--store", "redis://user:secret@host"], "`redis://host` names no store"),
    ],
)
def test_refusals(options: list[str], says: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *options])
    assert result.exit_code == 2
    assert says in result.output
    assert "secret" not in result.output


def test_a_setting_that_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_TIME_ZONE", "Mars/Olympus")
    result = CliRunner().invoke(cli, ["serve"])
    assert result.exit_code == 2
    assert "Mars/Olympus" in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
