"""`fhir-server verify` finds every kind of damage that was done on purpose, and no other; `backup` and `restore`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from tests.conftest import serving

SYSTEM = "urn:example:verify"
RESOURCES: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [{"system": SYSTEM, "value": "1"}],
        "name": [{"family": "Schumacher", "given": ["Ada"]}],
        "birthDate": "1980-07-01",
    },
    {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2026-02-03T10:00:00Z",
        "valueQuantity": {"value": 70.5, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"},
    },
    {
        "resourceType": "Provenance",
        "id": "why",
        "target": [{"reference": "Patient/never"}],
        "recorded": "2026-02-03T10:00:00Z",
        "agent": [{"who": {"display": "x"}}],
    },
]


@pytest.fixture(scope="module")
def filled(known: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with these resources, in two versions, and one that was deleted."""
    path = tmp_path_factory.mktemp("verify") / "fhir.db"

    async def fill() -> None:
        async with serving(known, store=f"sqlite:///{path}", full_text=True) as client:
            for resource in RESOURCES:
                for language in ("en", "de"):
                    url = f"/{resource['resourceType']}/{resource['id']}"
                    await client.fhir("PUT", url, json={**resource, "language": language})
            await client.fhir("PUT", "/Patient/gone", json={"resourceType": "Patient", "id": "gone"})
            await client.fhir("DELETE", "/Patient/gone")

    asyncio.run(fill())
    yield path


@pytest.fixture
def database(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "fhir.db"))


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(each) for each in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_a_sound_store_has_no_fault(database: Path) -> None:
    status, said = run("verify", "--store", f"sqlite:///{database}")
    assert status == 0, said
    assert "every index entry is that of its text, and no reference dangles" in said


ROW = "(SELECT rid FROM resource WHERE ref = '{}')"
OF_PATIENT = f"WHERE rid = {ROW.format('Patient/p')}"
DAMAGES = {
    "a term is gone": (f"DELETE FROM term {OF_PATIENT} AND value LIKE '%{SYSTEM}%'", "`term` lacks"),
    "a link is gone": (f"DELETE FROM link WHERE rid = {ROW.format('Observation/o')}", "`link` lacks"),
    "a date is another": (f"UPDATE date SET low = low + 1 {OF_PATIENT}", "`date` lacks 1 rows"),
    "a number is gone": (f"DELETE FROM number WHERE rid = {ROW.format('Observation/o')}", "`number` lacks"),
    "a term too many": (
        f"INSERT INTO term SELECT tp, 'more', rid FROM term {OF_PATIENT} LIMIT 1",
        "`term` has 1 rows that belong to no resource",
    ),
    "terms of what is deleted": (
        f"INSERT INTO term SELECT tp, value, {ROW.format('Patient/gone')} FROM term {OF_PATIENT}",
        "rows that belong to no resource",
    ),
    "columns of another": (
        f"UPDATE entries SET terms = '{{}}' {OF_PATIENT}",
        "The index entries of `Patient/p` are not those of its text.",
    ),
    "no columns": (f"DELETE FROM entries {OF_PATIENT}", "The index entries of `Patient/p`"),
    "a text that changed": (
        f"UPDATE version SET raw = replace(CAST(raw AS TEXT), 'Schumacher', 'Schuhmacher') {OF_PATIENT}",
        "The index entries of `Patient/p` are not those of its text.",
    ),
    "a version is gone": (
        f"DELETE FROM version {OF_PATIENT} AND version = 1",
        "There are 1 resources with gaps in their history.",
    ),
    "another version is the newest": (
        "UPDATE resource SET version = 1 WHERE ref = 'Patient/p'",
        "There are 1 resources whose newest version is not the one that they name.",
    ),
    "a target that is gone": (
        "DELETE FROM resource WHERE ref = 'Patient/p'",
        "`Observation/o` refers to `Patient/p`, which is not there.",
    ),
    "trigrams of nothing": ("INSERT INTO gram SELECT tp, 'abc', 'abcdef' FROM gram LIMIT 1", "There are 1 trigrams"),
    "words of nothing": (f"UPDATE words SET content = 'other' {OF_PATIENT}", "`Patient/p`"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found(database: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    statement, says = DAMAGES[damage]
    with sqlite3.connect(database) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    monkeypatch.setenv("FHIR_FULL_TEXT", "true")
    status, said = run("verify", "--store", f"sqlite:///{database}")
    assert status == 1 and says in said, said


def test_a_damaged_page_is_found(database: Path) -> None:
    data = bytearray(database.read_bytes())
    at = data.rindex(b"Schumacher") // 4096 * 4096
    data[at : at + 64] = bytes(64)
    database.write_bytes(data)
    status, said = run("verify", "--store", f"sqlite:///{database}")
    assert status == 1 and "damaged" in said, said


def test_a_backup_is_restored(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored.db"
    status, said = run("backup", tmp_path / "backup.db", "--store", f"sqlite:///{database}")
    assert status == 0 and "no reference dangles" in said, said
    status, said = run("restore", tmp_path / "backup.db", "--store", f"sqlite:///{target}")
    assert status == 0 and "no reference dangles" in said, said
    content = []
    for path in (database, target):
        connection = sqlite3.connect(path)
        content.append(connection.execute("SELECT * FROM version ORDER BY seq").fetchall())
        connection.close()
    assert content[0] == content[1]
    status, said = run("restore", tmp_path / "backup.db", "--store", f"sqlite:///{target}")
    assert status == 1 and "move the old database's files away" in said


def test_what_is_left_of_a_log_is_not_mixed_with_a_backup(database: Path, tmp_path: Path) -> None:
    (tmp_path / "new.db-wal").write_bytes(b"old")
    status, said = run("restore", database, "--store", f"sqlite:///{tmp_path}/new.db")
    assert status == 1 and "new.db-wal` is there" in said
    assert not (tmp_path / "new.db").exists()


def test_a_damaged_backup_is_not_restored(database: Path, tmp_path: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM term")
    connection.close()
    status, said = run("restore", database, "--store", f"sqlite:///{tmp_path}/new.db")
    assert status == 1 and "`term` lacks" in said
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("command", ["verify", "restore none.db"])
def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = run(*command.split(), "--store", "sqlite:///clinik.db")
    assert status == 1 and "There is no database" in said
    assert list(tmp_path.iterdir()) == []


def test_memory_is_not_verified() -> None:
    status, said = run("verify", "--store", "memory://")
    assert status == 1 and "lives in the process" in said
