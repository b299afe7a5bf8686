"""The record of who saw and changed what, and what `fhir-server audit verify` finds when it was changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge, Seams
from fhir_server.security.static_tokens import StaticToken, create_token
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000


@asynccontextmanager
async def recording(known: Knowledge, folder: Path) -> AsyncIterator[Client]:
    """A server whose record is in `folder/audit`, and a client with a token of everything."""
    seams = Seams(clock=lambda: START, definitions=None)
    store, audit = f"sqlite:///{folder}/fhir.db", str(folder / "audit")
    async with serving(known, seams, store=store, authentication="on", audit_folder=audit) as client:
        token = StaticToken("lab", "system/*.cruds", "", "", START, START * 2)
        secret = await create_token(client.server.context.unrestricted, token, {})
        client.headers["authorization"] = f"Bearer {secret}"
        yield client


def read_events(folder: Path) -> list[dict[str, Any]]:
    (file,) = (folder / "audit").iterdir()
    return [orjson.loads(line.partition(b"\t")[0]) for line in file.read_bytes().splitlines()]


async def verify(folder: Path) -> tuple[int, str]:
    arguments = ["audit", "verify", "--folder", str(folder / "audit"), "--store", f"sqlite:///{folder}/fhir.db"]
    # the command has an event loop of its own
    result = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
    return result.exit_code, result.output


def describe(event: dict[str, Any]) -> tuple[str, str, str, str]:
    """Interaction, action, outcome and what it was about."""
    what = event["entity"][0].get("what", {}).get("reference") or event["entity"][0].get("name", "")
    return event["subtype"][0]["code"], event["action"], event["outcome"], what


async def test_every_interaction_is_recorded(known: Knowledge, tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill"}]}
    entries = [{"request": {"method": "GET", "url": url}} for url in ("Patient/ada", "Patient/none")]
    write = {"request": {"method": "PUT", "url": "Patient/bo"}, "resource": {**patient, "id": "bo"}}
    async with recording(known, tmp_path) as client:
        await client.put("Patient/ada", json=patient)
        await client.get("Patient?family=quill&gender=female")
        await client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": entries})
        await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [write]})
        await client.get("Patient/ada", headers={"authorization": "Bearer wrong"})
        await client.delete("Patient/ada")
    events = read_events(tmp_path)
    assert [describe(event) for event in events] == [
        ("update", "U", "0", "Patient/ada"),
        ("search-type", "E", "0", "Patient"),
        ("read", "R", "0", "Patient/ada"),
        ("read", "R", "4", "Patient/none"),
        ("transaction", "E", "0", ""),
        ("update", "U", "0", "Patient/bo"),
        ("transaction", "E", "0", ""),
        ("login", "E", "4", ""),
        ("delete", "D", "0", "Patient/ada"),
    ]
    assert events[0]["agent"][0]["who"]["identifier"]["value"] == "token:lab"
    details = [each["valueString"] for each in events[1]["entity"][0]["detail"]]
    assert details == ["family", "gender"]
    assert "quill" not in str(events).lower()


async def test_events_are_valid_resources(known: Knowledge, tmp_path: Path) -> None:
    async with recording(known, tmp_path) as client:
        await client.get("Patient?family=quill")
        await client.get("Patient/none")
        await client.post("$x12", json={})
        for event in (await flush(client, tmp_path))[:3]:
            answer = await client.post("AuditEvent", json=event)
            assert answer.status_code == 201, answer.text


async def flush(client: Client, folder: Path) -> list[dict[str, Any]]:
    assert client.server.context.audit is not None
    await client.server.context.audit.settle()
    return read_events(folder)


async def test_a_write_is_recorded_before_its_answer(known: Knowledge, tmp_path: Path) -> None:
    async with recording(known, tmp_path) as client:
        await client.post("Patient", json={"resourceType": "Patient"})
        assert [describe(event)[0] for event in read_events(tmp_path)] == ["create"]
        await client.get("Patient")
        assert len(read_events(tmp_path)) == 1


async def test_where_nothing_can_be_recorded_a_write_is_503(known: Knowledge, tmp_path: Path, monkeypatch: Any) -> None:
    async with recording(known, tmp_path) as client:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            answer = await client.post("Patient", json={"resourceType": "Patient"})
            assert answer.status_code == 503
            assert "No space left" in answer.text and "may have been done" in answer.text
        await client.post("Patient", json={"resourceType": "Patient"})
        assert [describe(event)[0] for event in read_events(tmp_path)] == ["create", "create"]
    assert (await verify(tmp_path))[0] == 0


def refuse(file: int) -> None:
    raise OSError(28, "No space left on device")


async def test_files_are_private(known: Knowledge, tmp_path: Path) -> None:
    async with recording(known, tmp_path):
        (file,) = (tmp_path / "audit").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def change_word(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"action":"U"', b'"action":"R"'), *lines[2:]]


def cut_hash(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].partition(b"\t")[0] + b"\n", *lines[3:]]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "changed": change_word,
    "moved": lambda lines: [lines[1], lines[0], *lines[2:]],
    "removed": lambda lines: lines[:1] + lines[2:],
    "repeated": lambda lines: [lines[0], *lines],
    "the end is cut off": lambda lines: lines[:-1],
    "cut off within a line": lambda lines: [*lines[:-1], lines[-1][:40]],
    "emptied": lambda lines: [],
    "without a hash": cut_hash,
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_file_that_was_changed_is_found(known: Knowledge, tmp_path: Path, change: str) -> None:
    async with recording(known, tmp_path) as client:
        for number in range(4):
            await client.put(f"Patient/p{number}", json={"resourceType": "Patient", "id": f"p{number}"})
    assert await verify(tmp_path) == (0, "1 files, 0 with a fault.\n")
    (file,) = (tmp_path / "audit").iterdir()
    file.write_bytes(b"".join(CHANGES[change](file.read_bytes().splitlines(keepends=True))))
    status, text = await verify(tmp_path)
    assert status == 1 and file.name in text


async def test_a_missing_file_and_a_strange_one_are_found(known: Knowledge, tmp_path: Path) -> None:
    async with recording(known, tmp_path) as client:
        await client.get("Patient")
    (file,) = (tmp_path / "audit").iterdir()
    file.rename(file.with_name("other.jsonl"))
    status, text = await verify(tmp_path)
    assert status == 1
    assert f"`{file.name}` cannot be read" in text and "`other.jsonl` is not known" in text


async def test_without_authentication_nothing_is_recorded(known: Knowledge, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with serving(known, Seams(definitions=None), store="memory://", audit_folder=str(folder)) as client:
        await client.get("Patient")
    assert not folder.exists()
