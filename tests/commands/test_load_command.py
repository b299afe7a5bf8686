"""`fhir-server load`: its table, its report and its exit status (`docs/load.md`)."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from fhir_server.commands.load import load
from mappers.billing import claim_states, codes
from tests.fake_fhir import FakeFhir, served

cli = typer.Typer()
cli.command()(load)


def test_a_good_load_ends_with_a_table_and_status_0(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"resourceType":"Patient","id":"1"}\n{"resourceType":"Basic","id":"2"}')
    (tmp_path / "notes.txt").write_text("mine")
    with served(FakeFhir()) as url:
        result = CliRunner().invoke(cli, [str(tmp_path), "--server", url, "--concurrency", "2"])
    assert result.exit_code == 0, result.output
    rows = [line.replace("│", " ").split() for line in result.output.splitlines()]
    assert ["Basic", "1", "0", "0"] in rows
    assert ["all", "2", "0", "0"] in rows
    assert "1 files that are not JSON or NDJSON by name were left aside." in result.output


def test_failures_give_status_1_and_a_report(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text(
        '{"resourceType":"Patient","id":"1","active":3}\n{"resourceType":"Basic","id":"2"}'
    )
    (tmp_path / "b.json").write_text("{")
    report = tmp_path / "failures.report"
    with served(FakeFhir()) as url:
        result = CliRunner().invoke(cli, [str(tmp_path), "--server", url, "--report", str(report)])
    assert result.exit_code == 1
    lines = {Path(one["file"]).name: one for one in map(json.loads, report.read_text().splitlines())}
    assert (lines["a.ndjson"]["entry"], lines["a.ndjson"]["status"]) == ("line 1", 400)
    assert "`active` is not a boolean" in lines["a.ndjson"]["text"]
    assert "It is not JSON" in lines["b.json"]["text"]
    assert lines["b.json"]["status"] is None


def test_an_absent_server_gives_status_2(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"resourceType":"Patient"}')
    result = CliRunner().invoke(cli, [str(tmp_path), "--server", "http://127.0.0.1:9/fhir"])
    assert result.exit_code == 2
    assert "Nothing more can be loaded" in result.output


def test_the_place_to_load_into_is_asked_for(tmp_path: Path) -> None:
    for options in ([], ["--server", "http://x/fhir", "--store", "memory://"]):
        result = CliRunner().invoke(cli, [str(tmp_path), *options])
        assert result.exit_code == 2
        assert "either `--server URL`" in result.output


def test_loading_straight_into_a_store_does_not_go_round_a_business_rule(tmp_path: Path) -> None:
    """The Task of a claim is made with the Claim alone (docs/billing.md)."""
    code = {"coding": [{"system": codes.TASK, "code": claim_states.CODE}]}
    task = {"resourceType": "Task", "id": "t", "status": "requested", "intent": "order", "code": code}
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, (task, {"resourceType": "Patient", "id": "p"}))))
    report, store = tmp_path / "failures.report", f"sqlite:///{tmp_path}/fhir.db"
    result = CliRunner().invoke(cli, [str(tmp_path), "--store", store, "--report", str(report)])
    assert result.exit_code == 1, result.output
    (refused,) = map(json.loads, report.read_text().splitlines())
    assert refused["status"] == 422
    assert "The Task of a claim is made with the Claim." in refused["text"]
