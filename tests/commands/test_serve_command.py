"""`fhir-server serve` refuses what it must not do, with a sentence and exit status 2."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.commands.serve import MOST_WORKERS, choose_worker_count, is_loopback


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "--allow-unauthenticated"),
        (["--host", "::"], "--allow-unauthenticated"),
        (["--store", "memory://", "--workers", "2"], "--workers 1"),
        (["--store", "sqlite:////nowhere/fhir.db", "--port", "0", "--workers", "2"], "check that its folder exists"),
        (["--port", "70000"], "less than or equal to 65535"),
        (["--host", "192.0.2.1", "--allow-unauthenticated"], "Nothing can listen on port 8000 of 192.0.2.1"),
        (["--store", "redis://user:secret@host"], "`redis://host` names no store"),
    ],
)
def test_refusals(options: list[str], says: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *options])
    assert result.exit_code == 2
    assert says in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("store", "cores", "wanted", "expected"),
    [
        ("sqlite:///fhir.db", 1, None, 1),
        ("sqlite:///fhir.db", 2, None, 2),
        ("mongodb://host/fhir", 16, None, MOST_WORKERS),
        ("sqlite:///fhir.db", 2, 6, 6),
        ("memory://", 8, None, 1),
    ],
)
def test_workers(monkeypatch: pytest.MonkeyPatch, store: str, cores: int, wanted: int | None, expected: int) -> None:
    monkeypatch.setattr("fhir_server.commands.serve.count_cores", lambda: cores)
    assert choose_worker_count(store, wanted) == expected


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(cli, ["serve", "--store", "memory://", "--port", str(port)])
    assert result.exit_code == 2
    assert f"Port {port} on 127.0.0.1 is taken by another program" in result.output


def test_a_setting_that_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_TIME_ZONE", "Mars/Olympus")
    result = CliRunner().invoke(cli, ["serve"])
    assert result.exit_code == 2
    assert "Mars/Olympus" in result.output


@pytest.mark.parametrize("command", [["serve"], ["reindex"], ["backup", "nowhere.db"], ["load", "x", "--store", "y:"]])
@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("DEFAULT_COUNT", "0", "Input should be greater than or equal to 1."),
        ("SEARCH_SECONDS", "inf", "Input should be a finite number."),
        ("PATH", "/fhir?x", "such as `/fhir`"),
        ("BASE_URL", "clinic", "such as `https://fhir.clinic.example/fhir`"),
        ("BASE_URL", "http://clinic.example/fhir?tenant=1", "without query"),
    ],
)
def test_every_command_says_which_setting_is_wrong(
    monkeypatch: pytest.MonkeyPatch, command: list[str], setting: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"FHIR_{setting}", value)
    result = CliRunner().invoke(cli, command)
    output = " ".join(result.output.split())
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)  # told, not raised
    assert f"`FHIR_{setting}` cannot be `{value}`. " in output
    assert says in output
    assert "pydantic" not in output


def test_a_variable_that_is_no_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_TIMEZONE", "America/New_York")
    result = CliRunner().invoke(cli, ["serve", "--store", "nothing:"])
    assert (
        "`FHIR_TIMEZONE` is no setting of this server and has no effect. Did you mean `FHIR_TIME_ZONE`?"
        in result.output
    )


def test_a_time_limit_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_REQUEST_TIMEOUT", "inf")
    result = CliRunner().invoke(cli, ["serve"])
    assert result.exit_code == 2
    assert "`FHIR_REQUEST_TIMEOUT` cannot be `inf`." in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
