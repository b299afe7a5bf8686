"""`fhir-server key`, by hand: listed and replaced."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from fhir_server.__main__ import cli


def test_keys_are_listed_and_replaced(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    bundle = tmp_path / "bundle.json"
    bundle.write_text('{"resourceType": "Bundle", "type": "batch"}')
    assert CliRunner().invoke(cli, ["load", str(bundle), "--store", uri]).exit_code == 0

    def run(command: str) -> list[str]:
        result = CliRunner().invoke(cli, ["key", command, "--store", uri])
        assert result.exit_code == 0, result.output
        return result.stdout.split()

    (first,) = run("list")
    assert first not in " ".join(run("rotate"))
    second, kept = run("list")
    assert kept == first and second != first
