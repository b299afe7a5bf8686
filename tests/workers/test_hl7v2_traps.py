"""What went wrong in other interfaces, on the inbound side: each row of the list of traps has a test that names it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.datetimes import DAY
from fhir_server.transports.mllp import Connection
from fhir_server.workers.message_log import close
from fhir_server.workers.message_outbox import step_retention
from tests.conftest import Client, serving
from tests.faults.process import ROOT
from tests.workers.hl7v2_messages import (
    choose_store,
    code,
    msh,
    north,
    pid,
    read_codes,
    resources,
    segment,
    take,
    visit,
    with_partners,
)
from tests.workers.teams import take_turn
from tests.workers.test_hl7v2_merges import NORTH

pytestmark = pytest.mark.anyio

TESTED = {
    "V1": ("tests/workers/test_hl7v2_traps.py",),
    "V5": ("tests/workers/test_hl7v2_traps.py", "tests/mappers/hl7v2/test_hl7v2_acknowledge.py"),
    "V7": ("tests/transports/test_mllp.py", "tests/workers/test_hl7v2_intake.py"),
    "V8": ("tests/workers/test_hl7v2_traps.py", "tests/mappers/hl7v2/test_hl7v2_er7.py"),
    "V10": ("tests/mappers/hl7v2/test_hl7v2_er7.py", "tests/mappers/hl7v2/test_hl7v2_state.py"),
    "V11": ("tests/workers/test_hl7v2_intake.py", "tests/mappers/hl7v2/test_hl7v2_state.py"),
    "V12": ("tests/workers/test_hl7v2_intake.py", "tests/mappers/hl7v2/test_hl7v2_messages.py"),
    "V14": ("tests/workers/test_hl7v2_traps.py", "tests/mappers/hl7v2/test_hl7v2_groups.py"),
    "V16": ("tests/workers/test_hl7v2_traps.py", "tests/mappers/hl7v2/test_hl7v2_state.py"),
    "V17": ("tests/workers/test_hl7v2_traps.py",),
    "V19": ("tests/workers/test_hl7v2_intake.py", "tests/mappers/hl7v2/test_hl7v2_er7.py"),
    "V20": ("tests/workers/test_hl7v2_intake.py", "tests/mappers/hl7v2/test_hl7v2_acknowledge.py"),
    "V22": ("tests/workers/test_hl7v2_intake.py", "tests/mappers/hl7v2/test_hl7v2_datatypes.py"),
}
"""The rows about messages that come in → the files that have a test of it."""

OUTBOUND = {"V2", "V3", "V18"}
"""The rows about deliveries alone."""


def test_every_inbound_row_names_its_tests(shared: Path) -> None:
    rows = re.findall(r"^\| (V\d+) \|", (shared / "mapping" / "traps.md").read_text(encoding="utf-8"), re.M)
    assert set(rows) == TESTED.keys() | OUTBOUND
    for row, files in TESTED.items():
        for file in files:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf'"""[^"]*[Tt]rap {row}\b', text), f"{file} has no test of {row}"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path), invariants="enforce") as client:
        with_partners(client, north())
        yield client


@pytest.mark.external
async def test_what_was_stored_and_not_answered_is_answered_when_it_comes_again(
    known: Knowledge, tmp_path: Path
) -> None:
    """Trap V1: the listener is killed between commit and acknowledgement."""
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "north.toml").write_text(NORTH)
    database = tmp_path / "fhir.db"
    async with serving(known, store=f"sqlite:///{database}"):
        pass
    command = [sys.executable, "-m", "tests.workers.killed_listener", str(database), str(tmp_path)]
    text = (msh("ADT^A01", "DIE1") + pid() + visit("V1")).encode()
    answers = []
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            connection = await Connection.open("127.0.0.1", int(process.stdout.readline()), None)
            try:
                answers.append(await connection.exchange(text))
            except ConnectionError:
                pass
            finally:
                await connection.close()
                process.kill()
    async with serving(known, store=f"sqlite:///{database}", profiles=str(tmp_path)) as client:
        assert answers == [], "the process died before it answered, twice"
        received = await take(client, text)
        assert (code(received), received.repeated) == ("AA", True)
        (task,) = await resources(client, "Task")
        assert task["meta"]["versionId"] == "1"
        assert len(await resources(client, "Patient")) == len(await resources(client, "Encounter")) == 1


async def test_an_acknowledgement_swaps_the_sides_with_components_and_separators(client: Client) -> None:
    """Trap V5."""
    text = (
        "MSH*:;!%*EHR:1.2.3:ISO*NORTH*PMS:9.8:ISO*P*20240305120000**ADT:A08*M1*P*2.5\rPID*1**123:::MRN:MR**QUILL:ADA\r"
    )
    received = await take(client, text)
    lines = received.acknowledgement.decode().split("\r")
    fields = lines[0].split("*")
    assert fields[1:6] == [":;!%", "PMS:9.8:ISO", "P", "EHR:1.2.3:ISO", "NORTH"]
    assert (fields[8], fields[10], fields[11]) == ("ACK:A08:ACK", "P", "2.5")
    assert lines[1] == "MSA*AA*M1" and lines[-1] == ""


async def test_escapes_are_read_once_and_an_unclosed_one_swallows_nothing(client: Client) -> None:
    """Trap V8."""
    obx = [r"\E\R\E\ ", r"A\F\B&C", r"<p>\T\nbsp;</p>", r"100\percent"]
    results = "".join(
        segment("OBX", f1=str(number), f2="ST", f3=f"{number}-1^x^LN", f5=text, f11="F")
        for number, text in enumerate(obx, 1)
    )
    told = pid(f7="19690101000000+0800")
    received = await take(client, msh("ORU^R01") + told + segment("OBR", f1="1", f3="F1", f4="1-1^x^LN") + results)
    assert code(received) == "AA", received.reason
    values = {each["code"]["coding"][0]["code"]: each["valueString"] for each in await resources(client, "Observation")}
    assert values["1-1"] == "\\R\\", "an escaped escape is no escape"
    assert values["2-1"].startswith("A|B")
    assert values["3-1"] == "<p>&nbsp;</p>"
    assert values["4-1"] == r"100\percent"
    assert any("OBX[4]-5" in issue.diagnostics for issue in received.issues)
    (patient,) = await resources(client, "Patient")
    assert patient["birthDate"] == "1969-01-01"


async def test_each_order_has_its_own_results_and_notes(client: Client) -> None:
    """Trap V14."""
    text = msh("ORU^R01") + pid()
    for order, results in (("1", ("1", "2")), ("2", ("3",))):
        text += segment("ORC", f1="RE", f3=f"F{order}") + segment("OBR", f1=order, f3=f"F{order}", f4=f"{order}-1^x^LN")
        for number in results:
            text += segment("OBX", f1=number, f2="NM", f3=f"{number}-9^x^LN", f5=number, f11="F")
        if order == "1":
            text += segment("NTE", f1="1", f3="repeated")
    assert code(await take(client, text)) == "AA"
    observations = {f"Observation/{each['id']}": each for each in await resources(client, "Observation")}
    reports = {
        each["code"]["coding"][0]["code"]: [
            observations[one["reference"]]["valueQuantity"]["value"] for one in each["result"]
        ]
        for each in await resources(client, "DiagnosticReport")
    }
    assert reports == {"1-1": [1, 2], "2-1": [3]}
    noted = [each["valueQuantity"]["value"] for each in observations.values() if "note" in each]
    assert noted == [2]


@pytest.mark.parametrize(
    ("event", "fields"),
    [("A34", {"f1": "7^^^MRN^MR"}), ("A36", {"f1": "7^^^MRN^MR", "f3": "OLD^^^AC"}), ("A18", {"f1": "7^^^MRN^MR"})],
)
async def test_old_merges_are_merges_and_an_unknown_prior_is_no_error(
    client: Client, event: str, fields: dict[str, str]
) -> None:
    """Trap V16."""
    text = msh(f"ADT^{event}", f12="2.3") + pid("9", f18="ACC9^^^AC") + segment("MRG", **fields)
    received = await take(client, text)
    assert code(received) == "AA" and b"not known here" in received.acknowledgement
    (patient,) = await resources(client, "Patient")
    assert {each["value"]: each.get("use") for each in patient["identifier"]} == {"9": None, "7": "old"}


async def test_retention_keeps_what_nobody_has_closed_and_forgets_strangers_by_the_longest(client: Client) -> None:
    """Trap V17: a refused message of forty days stays where thirty are kept, until a person closes it."""
    context = replace(client.server.context, partners={"north": north().model_copy(update={"retention_days": 30})})
    client.server = replace(client.server, context=replace(context, snapshots={}))
    refused = await take(client, msh("ADT^A60", "wrong") + pid())
    stranger = await take(client, msh("ADT^A08", "who", f3="WHO") + pid())
    accepted = await take(client, msh("ADT^A08", "right") + pid())
    assert [each.state for each in (refused, stranger, accepted)] == ["refused", "refused", "acknowledged"]
    later = client.server.context.clock() + 40 * DAY
    turn = await take_turn(client.server.context, "retention", "a", clock=lambda: later)
    await step_retention(turn)
    left = {each["id"] for each in await resources(client, "Task")}
    assert left == {refused.id, stranger.id}
    for each in (refused, stranger):
        await close(client.server.context, turn.caller, each.id, "Nothing to do.")
    await step_retention(turn)
    assert await resources(client, "Task") == []


@pytest.mark.parametrize(
    ("accept", "application", "mode", "codes"),
    [
        ("", "", "as-asked", ["AE"]),
        ("AL", "AL", "as-asked", ["CA", "AE"]),
        ("AL", "ER", "as-asked", ["CA", "AE"]),
        ("AL", "NE", "as-asked", ["CA"]),
        ("ER", "ER", "as-asked", ["AE"]),
        ("NE", "NE", "as-asked", []),
        ("AL", "NE", "original", ["AE"]),
        ("NE", "NE", "original", ["AE"]),
    ],
)
@pytest.mark.parametrize("wrong", ["mapper", "validator"])
async def test_what_cannot_be_stored_is_acknowledged_as_the_message_asks(
    client: Client, accept: str, application: str, mode: str, codes: list[str], wrong: str
) -> None:
    """Trap V20, where the mapper refuses a message and where the server's own checks do."""
    field = {"field": "ZPD-1", "resource": "Patient", "path": "gender", "convert": "text"}
    with_partners(client, north(custom_fields=[field], acknowledgements=mode))
    body = "PID|1||||QUILL^ADA\r" if wrong == "mapper" else pid() + "ZPD|no code of R4\r"
    received = await take(client, msh("ADT^A08", f15=accept, f16=application) + body)
    assert (received.state, read_codes(received.acknowledgement)) == ("refused", codes)


async def test_a_control_number_that_comes_again_with_another_text_is_condition_205(client: Client) -> None:
    partner = north().model_copy(update={"duplicate_control_numbers": "refuse"})
    with_partners(client, partner)
    await take(client, msh("ADT^A08", "M1") + pid())
    received = await take(client, msh("ADT^A08", "M1") + pid(f8="F"))
    assert (code(received), received.state) == ("AE", "refused")
    assert b"|MSH^1^10|205^Duplicate key identifier^HL70357|E|" in received.acknowledgement
