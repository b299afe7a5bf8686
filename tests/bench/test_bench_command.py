"""`python -m bench`: its results file, its exit status, and that it keeps to this machine (`docs/bench.md`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.__main__ import cli
from tests.fake_fhir import FakeFhir, served


def test_two_servers_are_compared(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with served(FakeFhir()) as first, served(FakeFhir()) as second:
        options = ["--phases", "transaction,read", "--requests", "20", "--json", str(out), "--connections", "2"]
        result = CliRunner().invoke(cli, ["--url", first, "--against", second, *options])
    assert result.exit_code == 0, result.output
    tree = json.loads(out.read_text())
    assert [(one["phase"], one["url"], one["ok"]) for one in tree["phases"]] == [
        (phase, url, 20) for phase in ("transaction", "read") for url in (first, second)
    ]
    assert tree["machine"]["cores"] >= 1
    assert "ratio" in result.output


def test_errors_give_status_1_and_their_text() -> None:
    with served(FakeFhir(broken=500)) as url:
        result = CliRunner().invoke(cli, ["--url", url, "--phases", "transaction", "--requests", "3"])
    assert result.exit_code == 1
    assert "3 times 500, first: transaction: it broke" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://fhir.example.org/fhir"], "is on another machine"),
        (["--url", "http://127.0.0.1:9/fhir", "--phases", "reed"], "There is no phase `reed`"),
        (["--url", "http://127.0.0.1:9/fhir"], "give it with `--folder PATH`"),
        (["--url", "http://127.0.0.1:9/fhir", "--phases", "read"], "The bench stopped"),
        (["--url", "http://127.0.0.1:9/fhir", "--phases", ","], "`--phases` names none"),
        (["--url", "http://127.0.0.1:9/fhir", "--phases", "read", "--json", "/nowhere/x.json"], "/nowhere/x.json"),
    ],
)
def test_what_cannot_be_measured_is_explained(options: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
