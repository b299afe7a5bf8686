"""Files of HL7 v2 messages in a partner's folder: stored one by one, with the reasons of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import TooLarge
from fhir_server.requests.request import Caller
from fhir_server.workers import hl7v2_files
from fhir_server.workers.files import FileArrival
from fhir_server.workers.formats import FILE_FORMATS, INTERPRETERS
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import BASE, msh, north, pid, resources, with_partners

pytestmark = pytest.mark.anyio


async def check() -> None:
    return None


def arrive(client: Client, *pieces: bytes) -> FileArrival:
    context = client.server.context
    return FileArrival(context, Caller(BASE), context.partners["north"], pieces, check)


async def test_a_file_is_taken_message_by_message(known: Knowledge, tmp_path: Path) -> None:
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db") as client:
        with_partners(client, north())
        file = "\r\n" + msh("ADT^A08", "1") + pid("1") + msh("ADT^A60", "2") + msh("ADT^A08", "3", f3="ANY") + pid("3")
        half = len(file) // 2
        for _ in range(2):  # a process may die before the file is moved
            result = await FILE_FORMATS["hl7v2"].take(arrive(client, file[:half].encode(), file[half:].encode()))
            assert result.accepted == 2 and len(result.refused) == 1
            assert result.refused[0].startswith("Message 2 (Task/") and "A60" in result.refused[0]
        assert len(await resources(client, "Patient")) == 2
        assert len(await resources(client, "Task")) == 3


@pytest.mark.parametrize(
    ("head", "begun"),
    [
        (b"MSH|", True),
        (b"\xef\xbb\xbf\r\nFHS|", True),
        (b"BHS", True),
        (b"\x0bMSH|", True),
        (b"ISA*", False),
        (b"", False),
    ],
)
def test_the_first_bytes_tell_the_format(head: bytes, begun: bool) -> None:
    assert hl7v2_files.begins(head) is begun


async def test_a_file_that_is_too_large_is_refused_before_one_message_is_stored(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hl7v2_files, "LARGEST_FILE", 100)
    async with serving(known, store="memory://") as client:
        with_partners(client, north())
        with pytest.raises(TooLarge, match="more than 100 bytes"):
            await hl7v2_files.take(arrive(client, (msh("ADT^A08") + pid()).encode()))
        assert await resources(client, "Task") == []


def test_the_format_has_its_interpreter() -> None:
    assert INTERPRETERS["hl7v2"].read_answer(b"MSH|^~\\&|A|B|C|D|||ACK|1|P|2.5\rMSA|AA|1\r") == ""
    refusal = b"MSH|^~\\&|A|B|C|D|||ACK|1|P|2.5\rMSA|AE|1\rERR|||101^x|E||||PID-3 is empty.\r"
    assert "answered AE: PID-3 is empty." in INTERPRETERS["hl7v2"].read_answer(refusal)
    assert "no acknowledgement" in INTERPRETERS["hl7v2"].read_answer(b"junk")
