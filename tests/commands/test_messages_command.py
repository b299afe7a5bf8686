"""`fhir-server messages` on a store with a few messages (docs/messages.md)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.commands import messages as command
from fhir_server.requests.request import Caller
from fhir_server.workers.messages import receive
from fhir_server.workers.table import WORKERS
from tests.conftest import serving
from tests.workers.plain_messages import INTERPRETERS, PLAIN, message
from tests.workers.stub_partner import Stub, stub_partner, write_partner
from tests.workers.teams import take_turn
from tests.workers.test_hl7v2_sending import person, put, queue

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


@pytest.fixture
def outgoing(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with two changes that the partner `north` has refused, and one that could not be written."""
    write_partner(tmp_path, "north", 8211, out="tries = 1")
    uri, stub = f"sqlite:///{tmp_path}/sent.db", Stub(lambda number: "AE")
    monkeypatch.setenv("FHIR_PROFILES", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")

    async def fill() -> None:
        async with stub_partner(stub) as port:
            write_partner(tmp_path, "north", port, out="tries = 1")
            async with serving(known, store=uri, profiles=str(tmp_path)) as client:
                for name in ("ada", "bob"):
                    await put(client, person(name))
                await queue(client)
                await WORKERS["deliveries"].step(await take_turn(client.server.context, "deliveries", "a"))

    asyncio.run(fill())
    return uri


def test_dead_letters_are_listed_with_the_partners_own_sentence_and_replayed(outgoing: str) -> None:
    listed = run(outgoing, "list", "--state", "parked").output
    assert listed.count("The receiver answered AE: No bed is free.") == 2, listed
    assert "2 would be replayed." in run(outgoing, "replay", "--state", "parked", "--dry-run").output
    assert run(outgoing, "list", "--state", "parked").output == listed
    one = run(outgoing, "replay", "--state", "parked", "--patient", "Patient/ada")
    assert "1 replayed, 0 failed." in one.output, one.output
    assert "1 replayed, 0 failed." in run(outgoing, "replay", "--partner", "north").output
    shown = run(outgoing, "queue").output
    assert "north" in shown and re.search(r"The queue is \d+ seconds behind", shown), shown
    assert "No message is like that." in run(outgoing, "list", "--state", "parked").output


@pytest.mark.parametrize("arguments", [(), ("one", "--partner", "north"), ("--state", "lost")])
def test_a_replay_names_one_message_or_filters(store: str, arguments: tuple[str, ...]) -> None:
    result = run(store, "replay", *arguments)
    assert result.exit_code == 2 and "Name one message, or filters" in result.output


def test_a_partner_is_paused_and_resumed(outgoing: str) -> None:
    assert "`north` is paused." in run(outgoing, "pause", "north").output
    assert "20" in run(outgoing, "queue").output.split("north")[1].split("│")[1]
    assert "`north` is resumed." in run(outgoing, "resume", "north").output
    assert "`north` was not paused." in run(outgoing, "resume", "north").output
    wrong = run(outgoing, "pause", "nort")
    assert wrong.exit_code == 1 and "partners are `north`" in wrong.output
