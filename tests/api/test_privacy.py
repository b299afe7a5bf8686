"""What answers, logs and files give away: headers of answers, ids and errors in log lines, modes of files (fault H6).

https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Content-Security-Policy/sandbox
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.api.log import LineFormatter
from fhir_server.api.log_paths import make_path_writer
from fhir_server.app import Knowledge, Seams, open_server
from fhir_server.settings import Settings
from fhir_server.store.contract.case import Ticks, put, write
from fhir_server.store.sqlite import open_store
from tests.conftest import Client

pytestmark = pytest.mark.anyio

PAGE = b"<script>document.title = 'taken'</script>"


async def test_answers_are_not_kept_and_not_guessed(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    for method, url in (
        ("GET", "/Patient/p"),
        ("HEAD", "/Patient/p"),
        ("GET", "/Patient/p/_history/1"),
        ("GET", "/Patient?_id=p"),
        ("GET", "/Patient/none"),
        ("GET", "/Patient/p/$everything"),
        ("DELETE", "/Patient/p"),
    ):
        headers = (await client.fhir(method, url)).headers
        assert headers["cache-control"] == "no-store", url
        assert headers["x-content-type-options"] == "nosniff", url


async def test_a_binary_is_a_page_without_rights(client: Client) -> None:
    await client.fhir("PUT", "/Binary/b", content=PAGE, headers={"Content-Type": "text/html"})
    answer = await client.fhir("GET", "/Binary/b", headers={"Accept": "text/html"})
    assert answer.content == PAGE
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("abc-1", "abc-1"),
        ("x" * 500, "x" * 64),
        ('"} {"level": "error', None),
        ("two words", None),
        ("caf\u00e9".encode("latin-1"), None),
        ("", None),
    ],
)
async def test_request_ids_of_clients(client: Client, given: str | bytes, used: str | None) -> None:
    answer = (await client.fhir("GET", "/Patient/none", headers={"X-Request-Id": given})).headers["x-request-id"]
    if used is None:
        assert len(answer) == 16 and int(answer, 16) >= 0
    else:
        assert answer == used


async def read_paths(known: Knowledge, **settings: Any) -> list[str]:
    """The paths in the log of some requests."""
    lines: list[str] = []

    def log(level: str, message: str, **fields: Any) -> None:
        lines.append(fields["path"])

    chosen = Settings(store="memory://", **settings)
    async with open_server(chosen, log=log, known=known, seams=Seams(definitions=None)) as server:
        transport = httpx.ASGITransport(server.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/fhir") as http:
            for url in ("Patient/keller-1980", "Patient/keller-1980/_history/1", "keller/1980", "Patient/_search"):
                await http.get(url)
            await http.put("Patient/keller-1980", json={"resourceType": "Patient", "id": "keller-1980"})
    return lines


async def test_ids_in_paths_are_hashes(known: Knowledge) -> None:
    paths = await read_paths(known)
    assert not any("keller" in path or "1980" in path for path in paths), paths
    kind = paths[0].removeprefix("/fhir/Patient/")
    assert kind.startswith("~") and len(kind) == 13
    assert paths[1] == f"/fhir/Patient/{kind}/_history/1"
    assert paths[3:] == ["/fhir/Patient/_search", f"/fhir/Patient/{kind}"]
    assert paths[2].startswith("/fhir/~") and "/~" in paths[2].removeprefix("/fhir/~")


async def test_ids_in_paths_stay_where_the_setting_says_so(known: Knowledge) -> None:
    assert (await read_paths(known, log_ids=True))[:2] == [
        "/fhir/Patient/keller-1980",
        "/fhir/Patient/keller-1980/_history/1",
    ]


def test_paths_of_every_shape() -> None:
    types = {"Patient", "Observation", "Group"}
    hide = make_path_writer("/fhir", types, b"k" * 32)
    for path in ("/fhir", "/fhir/", "/fhir/metadata", "/fhir/Patient", "/fhir/$reindex", "/fhir/_history"):
        assert hide(path) == path
    assert hide("/fhir/Patient/x/Observation").startswith("/fhir/Patient/~")
    assert hide("/fhir/Patient/x/Observation").endswith("/Observation")
    assert hide("/fhir/Patient/x/$everything").endswith("/$everything")
    assert "Group" not in hide("/fhir/Patient/Group")  # an id may read like a type
    assert "123456789" not in hide("/fhir/Patient/123456789")
    assert "x/y" not in hide("/fhir/" + "x/y" * 5000) and len(hide("/fhir/" + "x/y" * 5000)) < 200
    assert hide("/fhir/Patient/x") != make_path_writer("/fhir", types, b"j" * 32)("/fhir/Patient/x")


def test_a_line_of_an_error_has_no_content() -> None:
    try:
        raise ValueError("Keller, 1980-07-01")
    except ValueError:
        record = logging.LogRecord("asyncio", 40, __file__, 1, "Task failed\nfuture: %r", ("Keller",), sys.exc_info())
    for plain in (False, True):
        line = LineFormatter(plain).format(record)
        assert "Keller" not in line and "ValueError" in line and "Task failed" in line and "test_privacy.py" in line


async def test_files_are_of_one_user(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = await open_store(f"sqlite:///{tmp_path}/fhir.db", Ticks())
        try:
            await write(store, put("Patient/p"))
            await store.backup(tmp_path / "backup.db")
            names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        finally:
            await store.close()
    finally:
        os.umask(before)
    expected = {"fhir.db", "fhir.db-wal", "fhir.db-shm", "fhir.db.lock", "backup.db"}
    assert names == dict.fromkeys(expected, 0o600)
