"""The dependency direction of `docs/architecture.md`, held by the contracts in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parents[1]


def test_imports_keep_their_direction(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, is_debug_mode=False)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_every_part_of_the_server_is_under_a_contract() -> None:
    """A new package has to be put into its layer before this passes."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    placed = {part.strip() for layer in layers for part in layer.replace("|", ":").split(":")}
    package = ROOT / "fhir_server"
    parts = {f"fhir_server.{path.parent.name}" for path in package.glob("*/__init__.py")}
    parts |= {f"fhir_server.{path.stem}" for path in package.glob("*.py") if path.stem != "__init__"}
    assert parts - placed == set()
