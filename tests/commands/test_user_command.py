"""`fhir-server user`, by hand: added, listed, disabled, with another password."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    bundle = tmp_path / "bundle.json"
    bundle.write_text('{"resourceType": "Bundle", "type": "batch"}')
    assert CliRunner().invoke(cli, ["load", str(bundle), "--store", uri]).exit_code == 0
    return uri


def run(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(cli, ["user", *arguments], input=answers)


def test_a_person_is_added_listed_and_disabled(store: str) -> None:
    options = ("--role", "clinician", "--fhir-user", "Practitioner/quill", "--store", store)
    made = run("add", "quill", *options, answers=f"{PASSWORD}\n{PASSWORD}\n")
    assert made.exit_code == 0 and PASSWORD not in made.output
    assert "already" in run("add", "quill", *options, "--password", PASSWORD).output
    assert run("disable", "quill", "--store", store).exit_code == 0
    assert "disabled" in run("list", "--store", store).stdout
    assert run("enable", "quill", "--store", store).exit_code == 0
    assert "disabled" not in run("list", "--store", store).stdout
    assert run("password", "quill", "--password", "another long one", "--store", store).exit_code == 0
    told = run("totp", "quill", "--store", store).stdout
    assert "otpauth://totp/fhir-server:quill?secret=" in told
    secret = told.partition("secret=")[2].partition("&")[0]
    assert "second factor" in (listed := run("list", "--store", store).stdout) and secret not in listed
    assert "otpauth" not in run("totp", "quill", "--off", "--store", store).stdout
    other = run("add", "reed", *options, "--totp", "--password", PASSWORD)
    assert "otpauth://totp/fhir-server:reed?secret=" in other.stdout and secret not in other.stdout
    assert "no user `x`" in run("disable", "x", "--store", store).output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--role", "queen"], "There is no role `queen`"),
        (["--role", "clinician", "--password", "short"], "12 to 200 characters"),
        (["--role", "patient"], "say which"),
        (["--role", "clinician", "--fhir-user", "quill"], "is no person"),
    ],
)
def test_what_cannot_be_is_a_sentence(store: str, options: list[str], sentence: str) -> None:
    given = options if "--password" in options else [*options, "--password", PASSWORD]
    told = run("add", "quill", *given, "--store", store)
    assert told.exit_code == 1 and sentence in told.output
