"""`fhir-server token`, by hand: made, used, listed, revoked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli


@pytest.fixture
def store(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    bundle = tmp_path / "bundle.json"
    bundle.write_text('{"resourceType": "Bundle", "type": "batch"}')
    assert CliRunner().invoke(cli, ["load", str(bundle), "--store", uri]).exit_code == 0
    return uri


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["token", *arguments])


def test_a_token_is_printed_once_listed_and_revoked(store: str) -> None:
    made = run("create", "--name", "lab", "--scope", "system/Observation.cruds", "--expires", "12h", "--store", store)
    assert made.exit_code == 0 and made.stdout.startswith("fhs_")
    listed = run("list", "--store", store)
    assert "lab" in listed.stdout and "never" in listed.stdout
    assert made.stdout.strip() not in listed.stdout
    assert run("revoke", "--name", "lab", "--store", store).exit_code == 0
    assert "lab" not in run("list", "--store", store).stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--scope", "Observation"], "would allow nothing"),
        (["--scope", "system/Observation.xyz"], "is no scope"),
        (["--scope", "patient/*.rs"], "--patient"),
        (["--role", "queen"], "There is no role `queen`"),
        (["--scope", "system/*.rs", "--expires", "soon"], "`soon` is no duration"),
    ],
)
def test_what_cannot_be_is_a_sentence(store: str, options: list[str], sentence: str) -> None:
    told = run("create", "--name", "lab", *options, "--store", store)
    assert told.exit_code == 1 and sentence in told.output


def test_a_name_stands_once(store: str) -> None:
    options = ("create", "--name", "desk", "--role", "front-desk", "--store", store)
    assert run(*options).exit_code == 0
    assert "already" in run(*options).output
    assert "no token `x`" in run("revoke", "--name", "x", "--store", store).output
