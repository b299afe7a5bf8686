"""The table of what is sent to a partner: wrong rows stop the start with file and line, right ones choose a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.partners import WrongPartner, read_partner
from fhir_server.store.protocol import Stored
from fhir_server.workers.hl7v2_sends import choose_row, read_rows
from tests.conftest import serving

pytestmark = pytest.mark.anyio

PARTNER = """\
name = "north"
formats = ["hl7v2"]

[transports.mllp]
host = "127.0.0.1"
port = 2575

[hl7v2.out]
transport = "mllp"
sending = { application = "PMS", facility = "CLINIC" }
receiving = { application = "EHR", facility = "NORTH" }

[[hl7v2.out.send]]
type = "Appointment"
filter = "status=cancelled"
event = "SIU^S15"

[[hl7v2.out.send]]
type = "Appointment"
filter = "status=booked"
change = "new"
event = "SIU^S12"

[[hl7v2.out.send]]
type = "Appointment"
filter = "status=booked"
change = "later"
event = "SIU^S14"
leave_out = ["AIG"]
"""

WRONG = {
    "an event that is not written": ("SIU^S12", "SIU^S99", 22, "SIU^S99 is not written here; "),
    "a type that the event is not about": ('"SIU^S15"', '"ORU^R01"', 14, "ORU is about DiagnosticReport;"),
    "a type that R4 lacks": ('type = "Appointment"', 'type = "Visit"', 14, "SIU is about Appointment;"),
    "a parameter that is misspelt": ("status=cancelled", "statsu=cancelled", 15, "`statsu`"),
    "a filter of other resources": ("status=cancelled", "patient.name=x", 15, "looks at other resources"),
    "a result parameter": ("status=cancelled", "_count=3", 15, "says how to answer a search"),
}
SHAPES = {
    "no way to send by": ('transport = "mllp"', 'transport = "http"', 1, "`transports.http` has to say where to"),
    "a segment that has to be there": ('"AIG"', '"PID"', 29, "`hl7v2.out.send.2.leave_out`"),
    "an unknown version": ("[[hl7v2.out.send]]", 'version = "3"\n[[hl7v2.out.send]]', 13, "`hl7v2.out.version`"),
    "a key misspelt": ("filter =", "fliter =", 15, "did you mean `filter`?"),
    "no port": ("port = 2575", "port = 0", 6, "`transports.mllp.port`"),
    "a certificate without TLS": ("port = 2575", 'port = 1\nkey = "/no"', 7, "There is no such file."),
    "no sender": ('sending = { application = "PMS", facility = "CLINIC" }', "sending = {}", 10, "Name `application`"),
}


def write(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in PARTNER
    (folder / "partners").mkdir(exist_ok=True)
    path = folder / "partners" / "north.toml"
    path.write_text(PARTNER.replace(old, new, 1) if old else PARTNER, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_row_stops_the_start_with_file_line_and_reason(
    known: Knowledge, tmp_path: Path, name: str
) -> None:
    old, new, line, says = WRONG[name]
    path = write(tmp_path, old, new)
    with pytest.raises(ValueError) as error:
        async with serving(known, store="memory://", profiles=str(tmp_path)):
            pass
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"`{path}`, line {line}: `hl7v2.out.send.") and says in first, first


@pytest.mark.parametrize("name", SHAPES)
def test_a_wrong_key_is_told_with_file_line_and_reason(tmp_path: Path, name: str) -> None:
    old, new, line, says = SHAPES[name]
    path = write(tmp_path, old, new)
    with pytest.raises(WrongPartner) as error:
        read_partner(path)
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"`{path}`, line {line}: ") and says in first, first


def test_the_command_says_the_same_without_a_start(tmp_path: Path) -> None:
    path = write(tmp_path, "status=cancelled", "statsu=cancelled")
    result = CliRunner().invoke(cli, ["partners", "check", str(path.parent)])
    assert result.exit_code == 1
    assert f"`{path}`, line 15: `hl7v2.out.send.0.filter`" in result.output
    write(tmp_path)
    assert CliRunner().invoke(cli, ["partners", "check", str(path.parent)]).exit_code == 0


def version(number: int, status: str) -> Stored:
    appointment: dict[str, Any] = {"resourceType": "Appointment", "id": "1", "status": status}
    return Stored("Appointment", "1", number, number, "PUT", json.dumps(appointment).encode())


@pytest.mark.parametrize(
    ("before", "now", "event"),
    [
        ("", "proposed", ""),
        ("", "booked", "SIU^S12"),
        ("proposed", "booked", "SIU^S12"),
        ("booked", "booked", "SIU^S14"),
        ("booked", "cancelled", "SIU^S15"),
        ("cancelled", "cancelled", "SIU^S15"),
        ("cancelled", "booked", "SIU^S12"),
        ("booked", "noshow", ""),
        ("deleted", "booked", "SIU^S12"),
    ],
)
async def test_the_first_row_that_a_change_is_of_says_the_event(
    known: Knowledge, tmp_path: Path, before: str, now: str, event: str
) -> None:
    write(tmp_path)
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        context = client.server.context
        rows = read_rows(context.partners, context.criteria(""))
        earlier = version(1, before) if before else None
        if before == "deleted":
            earlier = version(1, "booked")._replace(raw=None, method="DELETE")
        chosen = choose_row(rows, version(2, now), earlier, context.index.make_entries)
    assert (chosen.row.event if chosen else "") == event
