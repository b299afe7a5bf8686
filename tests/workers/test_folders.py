"""Files in a partner's folder `in` reach the intake of their format, are moved away, and are answered once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.store.protocol import StoreUnavailable
from fhir_server.workers.delivery import run_deliveries
from fhir_server.workers.files import FileAnswer, FileArrival, FileFormat, FileResult
from fhir_server.workers.folders import LISTED, describe_refusals, watch_folders
from fhir_server.workers.message_outbox import OUTBOX
from fhir_server.workers.messages import receive
from fhir_server.workers.worker import Step
from tests.conftest import Client, serving
from tests.workers.plain_messages import PLAIN, message
from tests.workers.teams import Killed, Lines, take_turn

pytestmark = pytest.mark.anyio

FOLDERS = ("in", "done", "failed", "out")


async def take(arrival: FileArrival) -> FileResult:
    """A file of plain messages, which lines `--` part; the first line `answer` asks for an answer with its name."""
    text = b"".join(arrival.pieces).decode()
    accepted, refused, task = 0, [], ""
    for number, part in enumerate(text.split("--\n"), 1):
        await arrival.check()
        if "break" in part:
            raise KeyError(part)
        received = await receive(
            arrival.context, arrival.caller, message(part, f"{number:04}", arrival.partner.name), PLAIN
        )
        task = task or received.id
        accepted += received.state == "acknowledged"
        refused += [received.reason] if received.state == "refused" else []
    return FileResult(accepted, refused, (FileAnswer("0007", b"taken", "text/plain"),), task)


FORMATS = {"hl7v2": FileFormat(lambda head: not head.startswith(b"ISA"), take)}


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def client(known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "partners").mkdir()
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    keys = "\n".join(f'{name} = "{tmp_path}/{name}"' for name in FOLDERS)
    file = f'name = "lab"\nformats = ["hl7v2"]\n[transports.folder]\n{keys}\n'
    (tmp_path / "partners" / "lab.toml").write_text(file)
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        yield client


def make_step(formats: Mapping[str, FileFormat] = FORMATS) -> tuple[Step, Seconds]:
    seconds = Seconds()
    return watch_folders(formats, seconds), seconds


async def look(client: Client, step: Step, seconds: Seconds, lines: Lines | None = None) -> int:
    """Two looks with the quiet time between them; how many files were taken."""
    turn = await take_turn(client.server.context, "folders", "a", lines)
    done = (await step(turn)).done
    seconds.now += 5.0
    return done + (await step(turn)).done


def names(tmp_path: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (tmp_path / folder).iterdir())


async def count(client: Client, query: str) -> int:
    answer = await client.fhir("GET", f"{query}&_summary=count")
    total: int = answer.json()["total"]
    return total


async def test_a_complete_file_is_taken_moved_and_answered(client: Client, tmp_path: Path) -> None:
    step, seconds = make_step()
    (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n--\npatient 2 Roe\n")
    turn = await take_turn(client.server.context, "folders", "a")
    assert (await step(turn)).done == 0 and names(tmp_path, "in") == ["a.txt"]
    seconds.now = 4.9
    assert (await step(turn)).done == 0
    seconds.now = 5.0
    assert (await step(turn)).done == 1
    assert (names(tmp_path, "in"), names(tmp_path, "done"), names(tmp_path, "failed")) == ([], ["a.txt"], [])
    assert await count(client, "Patient?family=Doe,Roe") == 2
    await run_deliveries(OUTBOX)(turn)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["taken"]
    assert names(tmp_path, "out") == ["0007.txt"]


async def test_a_message_that_is_refused_stops_no_other_and_the_reason_stands_beside_the_file(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n--\nrefuse this\n--\npatient 2 Roe\n")
    assert await look(client, *make_step()) == 1
    assert await count(client, "Patient?family=Doe,Roe") == 2
    assert names(tmp_path, "failed") == ["a.txt", "a.txt.reason.txt"]
    reason = (tmp_path / "failed" / "a.txt.reason.txt").read_text()
    assert "accepted: 2" in reason and "`refuse this` is not taken" in reason


@pytest.mark.parametrize(
    ("text", "says"),
    [("ISA*00*", "of no format of the partner `lab` (`hl7v2`)"), ("break", "by a fault of this server (`KeyError`)")],
)
async def test_a_file_that_cannot_be_read_fails_with_a_reason_and_the_next_one_goes_on(
    client: Client, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "in" / "a.txt").write_text(text)
    (tmp_path / "in" / "b.txt").write_text("patient 1 Doe\n")
    assert await look(client, *make_step()) == 2
    assert says in (tmp_path / "failed" / "a.txt.reason.txt").read_text()
    assert names(tmp_path, "done") == ["b.txt"]


async def test_a_file_that_comes_again_writes_nothing_new_but_is_answered_again(client: Client, tmp_path: Path) -> None:
    step, seconds = make_step()
    for moment in (1_000_000_000, 2_000_000_000):
        (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n")
        os.utime(tmp_path / "in" / "a.txt", ns=(moment, moment))
        assert await look(client, step, seconds) == 1
    assert names(tmp_path, "done") == ["a.txt", "a.txt.1"]
    assert await count(client, "Patient?family=Doe") == 1
    assert await count(client, "Task?code=message-intake") == 1
    assert await count(client, "Task?code=message-delivery") == 2


async def test_after_a_death_the_file_is_read_again_and_answered_once(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n")

    def die(*given: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("fhir_server.workers.folders.finish_file", die)
        with pytest.raises(Killed):
            await look(client, *make_step())
    assert await look(client, *make_step()) == 1
    assert await count(client, "Task?code=message-intake") == 1
    assert await count(client, "Task?code=message-delivery") == 1


async def test_while_the_store_can_write_nothing_the_file_stays(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n")
    step, seconds = make_step()

    async def refuse(*given: Any) -> None:
        raise StoreUnavailable("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(client.server.context.unrestricted, "transact", refuse)
        with pytest.raises(StoreUnavailable):
            await look(client, step, seconds)
    assert names(tmp_path, "in") == ["a.txt"]
    assert await look(client, step, seconds) == 1 and names(tmp_path, "done") == ["a.txt"]


async def test_a_file_that_cannot_be_moved_is_read_once_and_told_once(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in" / "a.txt").write_text("refuse this\n")
    (tmp_path / "failed").rmdir()
    step, seconds = make_step()
    lines: Lines = []
    for _ in range(3):
        assert await look(client, step, seconds, lines) == 0
    task = (await client.fhir("GET", "Task?code=message-intake")).json()["entry"][0]["resource"]
    assert task["meta"]["versionId"] == "1"
    assert [fields["reason"] for _, message, fields in lines if message == "folder"] == [
        f"The file cannot be moved: `{tmp_path}/failed/a.txt` is not there."
    ]
    (tmp_path / "failed").mkdir()
    assert await look(client, step, seconds, lines) == 1


async def test_a_folder_that_is_not_there_stops_no_other_partner(client: Client, tmp_path: Path) -> None:
    """The partner `absent` comes before `lab`."""
    lab = client.server.context.partners["lab"]
    folder = lab.transports.folder
    assert folder is not None
    absent = folder.model_copy(update={"incoming": f"{tmp_path}/none"})
    transports = lab.transports.model_copy(update={"folder": absent})
    partners = {"absent": lab.model_copy(update={"name": "absent", "transports": transports}), "lab": lab}
    object.__setattr__(client.server.context, "partners", partners)
    (tmp_path / "in" / "a.txt").write_text("patient 1 Doe\n")
    lines: Lines = []
    assert await look(client, *make_step(), lines) == 1
    told = [fields for _, message, fields in lines if message == "folder"]
    assert [(each["item"], each["reason"]) for each in told] == [
        ("absent", "The folder `in` cannot be read: No such file or directory.")
    ]


def test_no_more_sentences_than_a_person_reads() -> None:
    text = describe_refusals(FileResult(3, [f"Fault {number}." for number in range(LISTED + 5)]))
    lines = text.splitlines()
    assert lines[0] == f"Messages that were accepted: 3. Faults: {LISTED + 5}." and len(lines) == LISTED + 2
    assert lines[-1] == "and 5 more."
