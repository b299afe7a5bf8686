"""`fhir-server messages` on a store with a few messages (docs/messages.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.commands import messages as command
from fhir_server.requests.request import Caller
from fhir_server.workers.messages import receive
from tests.conftest import serving
from tests.workers.plain_messages import INTERPRETERS, PLAIN, message

TEXTS = {"1": "patient 1 Keller\nweight 1 70", "2": "refuse this", "3": "refuse \x1b[2Jthat"}


@pytest.fixture
def store(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with three messages of the partner `lab`."""
    uri = f"sqlite:///{tmp_path}/fhir.db"

    async def fill() -> None:
        async with serving(known, store=uri) as client:
            for number, text in TEXTS.items():
                await receive(client.server.context, Caller("http://test/fhir"), message(text, number), PLAIN)

    asyncio.run(fill())
    monkeypatch.setattr(command, "INTERPRETERS", INTERPRETERS)
    monkeypatch.setenv("COLUMNS", "250")
    return uri


def run(store: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["messages", *arguments, "--store", store])


def id_of(number: str) -> str:
    return message(TEXTS[number], number).id


def test_messages_are_listed_newest_first_and_filtered(store: str) -> None:
    listed = run(store, "list")
    assert listed.exit_code == 0, listed.output
    places = [listed.output.index(id_of(number)) for number in ("3", "2", "1")]
    assert places == sorted(places)
    refused = run(store, "list", "--state", "refused", "--partner", "lab", "--since", "2020-01-01").output
    assert id_of("2") in refused and id_of("1") not in refused
    assert id_of("1") in run(store, "list", "--number", "1").output
    assert "No message is like that." in run(store, "list", "--partner", "clinic").output
    assert "There are more than 1" in run(store, "list", "--count", "1").output


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["list", "--state", "lost"], 2, "`lost` is no state; states are waiting, claimed"),
        (["list", "--since", "yesterday"], 1, "yesterday"),
        (["show", "nobody"], 1, "`Task/nobody` is no message"),
        (["replay", "nobody"], 1, "`Task/nobody` is no message"),
        (["close", "nobody", "--reason", "x"], 1, "`Task/nobody` is no message"),
    ],
)
def test_what_is_wrong_is_said(store: str, arguments: list[str], status: int, says: str) -> None:
    result = run(store, *arguments)
    assert result.exit_code == status and says in result.output, result.output


def test_a_message_is_shown_with_all_that_is_known_of_it(store: str) -> None:
    shown = run(store, "show", id_of("1")).output
    assert "made: Patient/" in shown and "made: Observation/" in shown
    assert "taken 1" in shown and "weight 1 70" in shown
    shown = run(store, "show", id_of("3")).output
    assert "reason: The line" in shown and "\x1b" not in shown and "\\x1b[2Jthat" in shown


def test_a_replay_stores_what_the_message_says_now(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "It would be refused: The line `refuse this` is not taken."
        in run(store, "replay", id_of("2"), "--dry-run").output
    )
    refused = run(store, "replay", id_of("2"))
    assert refused.exit_code == 1 and "is not taken" in refused.output
    tolerant = PLAIN._replace(interpret=INTERPRETERS["plain"].interpret)
    monkeypatch.setattr(command, "INTERPRETERS", {"plain": tolerant})
    assert run(store, "replay", id_of("1"), "--dry-run").output.splitlines() == ["POST Patient", "POST Observation"]
    accepted = run(store, "replay", id_of("1"))
    assert accepted.exit_code == 1 and "was accepted" in accepted.output
    assert "is acknowledged." in run(store, "replay", id_of("1"), "--again").output
    monkeypatch.setattr(command, "INTERPRETERS", {})
    assert "There is no interpreter for the format `plain`" in run(store, "replay", id_of("2")).output


def test_a_message_is_closed_with_a_reason(store: str) -> None:
    assert run(store, "close", id_of("2")).exit_code == 2
    assert run(store, "close", id_of("2"), "--reason", "Sent by mistake.").output.strip().endswith("is closed.")
    assert "reason: Sent by mistake." in run(store, "show", id_of("2")).output
    again = run(store, "close", id_of("1"), "--reason", "x")
    assert again.exit_code == 1 and "cannot become `closed`" in again.output
