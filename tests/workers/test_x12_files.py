"""Files of X12 in a partner's folder: stored set by set, answered once into `out` where its file asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers import x12_files
from fhir_server.workers.delivery import run_deliveries
from fhir_server.workers.formats import FILE_FORMATS
from fhir_server.workers.message_outbox import OUTBOX
from mappers.x12.structure import check_interchange
from tests.conftest import Client, serving
from tests.mappers.x12.test_x12_tokenizer import isa
from tests.workers.teams import take_turn
from tests.workers.test_folders import FOLDERS, count, look, make_step, names
from tests.workers.x12_files import file, group, remittance, wrap, write_plan

pytestmark = pytest.mark.anyio


def write_site(tmp_path: Path, answers: str = '["TA1", "999"]') -> str:
    for name in FOLDERS:
        (tmp_path / name).mkdir(exist_ok=True)
    folders = "\n".join(f'{name} = "{tmp_path}/{name}"' for name in FOLDERS)
    return write_plan(tmp_path, f"[transports.folder]\n{folders}\n", f"answers = {answers}")


@pytest.fixture
async def client(known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db", profiles=write_site(tmp_path)) as client:
        yield client


async def read_out(client: Client, folder: Path) -> list[str]:
    """What the worker `deliveries` has written."""
    await run_deliveries(OUTBOX)(await take_turn(client.server.context, "deliveries", "a"))
    return [(folder / "out" / name).read_text() for name in names(folder, "out")]


async def test_a_file_is_taken_and_answered_once(client: Client, tmp_path: Path) -> None:
    """The sender of ISA06 may be another one than the partner, whose folder it is."""
    header = isa().replace("*0*T*", "*1*T*").replace("SENDER ", "PAYER17")
    (tmp_path / "in" / "a.835").write_text("\r\n" + file(group(remittance()), header=header).replace("~", "~\r\n"))
    assert await look(client, *make_step(FILE_FORMATS)) == 1
    assert names(tmp_path, "done") == ["a.835"]
    (answer,) = await read_out(client, tmp_path)
    assert check_interchange(answer) == ()
    assert [each for each in answer.split("~") if each[:3] in ("TA1", "IK5", "AK9")] == [
        "TA1*000000001*260115*1200*A*000", "IK5*A", "AK9*A*1*1*1",
    ]  # fmt: skip
    assert await count(client, "PaymentReconciliation?status=draft") == 1


async def test_a_file_with_a_bad_set_goes_to_failed_with_the_reason_and_the_rest_is_taken(
    client: Client, tmp_path: Path
) -> None:
    bad = wrap("837", "0002", "BHT*0019*00*1*20260101*1200*CH~", "005010X222A1")
    (tmp_path / "in" / "b.835").write_text(file(group(remittance(), bad)))
    assert await look(client, *make_step(FILE_FORMATS)) == 1
    reason = (tmp_path / "failed" / "b.835.reason.txt").read_text()
    assert "accepted: 1. Faults: 1." in reason and "Transaction sets 837 are not taken in here" in reason
    (answer,) = await read_out(client, tmp_path)
    assert [each for each in answer.split("~") if each.startswith("IK5")] == ["IK5*A", "IK5*R*1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (file(group(remittance())).replace("IEA*1", "IEA*2"), "IEA01 declares `2` groups but 1 are there"),
        (file(group(remittance())) + "tail", "4 bytes that belong to no interchange"),
        (file(group(remittance())).replace("RECEIVER", "NEIGHBOR"), "is not us to `plan`"),
        ("ISA*00*short~", "There is no interchange"),
        (file(group(remittance()).replace("GE*1", "GE*2")), "GE01 declares `2`"),
    ],
)
async def test_a_broken_file_is_told(client: Client, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "in" / "c.835").write_text(text)
    assert await look(client, *make_step(FILE_FORMATS)) == 1
    assert says in (tmp_path / "failed" / "c.835.reason.txt").read_text()


async def test_no_answer_goes_out_where_none_is_asked_for(known: Knowledge, tmp_path: Path) -> None:
    async with serving(known, store="memory://", profiles=write_site(tmp_path, "[]")) as client:
        (tmp_path / "in" / "a.835").write_text(file(group(remittance())))
        assert await look(client, *make_step(FILE_FORMATS)) == 1
        assert await read_out(client, tmp_path) == []


async def test_an_acknowledgement_is_taken_and_not_answered(client: Client, tmp_path: Path) -> None:
    said = wrap("999", "0001", "AK1*HC*7*005010X222A1~AK9*A*1*1*1~", "005010X231A1")
    (tmp_path / "in" / "a.999").write_text(file(group(said, code="FA", version="005010X231A1")))
    assert await look(client, *make_step(FILE_FORMATS)) == 1
    assert names(tmp_path, "done") == ["a.999"] and await read_out(client, tmp_path) == []


@pytest.mark.parametrize(
    ("head", "begun"), [(b"ISA*00*", True), (b"\xef\xbb\xbf\r\nISA|", True), (b"MSH|", False), (b"", False)]
)
def test_the_first_bytes_tell_the_format(head: bytes, begun: bool) -> None:
    assert x12_files.begins(head) is begun


async def test_a_file_that_is_too_large_is_refused_before_one_set_is_stored(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(x12_files, "LARGEST_FILE", 400)
    (tmp_path / "in" / "a.835").write_text(file(group(remittance())))
    assert await look(client, *make_step(FILE_FORMATS)) == 1
    assert "more than 400 bytes" in (tmp_path / "failed" / "a.835.reason.txt").read_text()
    assert await count(client, "Task?code=message-intake") == 0
