"""`fhir-server client`, by hand: registered, listed, revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli


@pytest.fixture
def store(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    bundle = tmp_path / "bundle.json"
    bundle.write_text('{"resourceType": "Bundle", "type": "batch"}')
    assert CliRunner().invoke(cli, ["load", str(bundle), "--store", uri]).exit_code == 0
    return uri


@pytest.fixture
def keys(tmp_path: Path) -> str:
    key = ECKey.generate_key("P-384", {"kid": "lab-1"})
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    return str(file)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["client", *arguments])


def test_a_client_is_registered_listed_and_revoked(store: str, keys: str) -> None:
    options = ("--keys", keys, "--scope", "system/Observation.rs", "--store", store)
    assert run("add", "lab", *options).exit_code == 0
    assert "already" in run("add", "lab", *options).output
    listed = run("list", "--store", store).stdout
    assert "lab" in listed and "lab-1" in listed
    assert run("revoke", "lab", "--store", store).exit_code == 0
    assert "no client `lab`" in run("revoke", "lab", "--store", store).output


@pytest.mark.parametrize(
    ("name", "scope", "sentence"),
    [
        ("lab", "patient/*.rs", "has no patient"),
        ("lab", "openid", "could get nothing"),
        ("a b", "system/*.rs", "cannot be a client's name"),
        ("lab", "system/Patient.zz", "is no scope"),
    ],
)
def test_what_cannot_be_is_a_sentence(store: str, keys: str, name: str, scope: str, sentence: str) -> None:
    told = run("add", name, "--keys", keys, "--scope", scope, "--store", store)
    assert told.exit_code == 1 and sentence in told.output


def test_keys_that_are_none_are_told(store: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    for text, sentence in (("{", "is not JSON"), ("{}", "A key set is")):
        file.write_text(text)
        told = run("add", "lab", "--keys", str(file), "--scope", "system/*.rs", "--store", store)
        assert told.exit_code == 1 and sentence in told.output
