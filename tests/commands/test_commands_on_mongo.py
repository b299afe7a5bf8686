"""The command line on a MongoDB store, as a user types it (`docs/stores/mongodb.md`)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")} | {"COLUMNS": "120"}
LIMIT = 120
"""Seconds after which a command has failed."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fhir_server", *arguments]


def fhir_server(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def examples() -> Counter[str]:
    """How many resources of each type the sample clinic has."""
    bundles = (json.loads(path.read_bytes()) for path in sorted((ROOT / "examples").glob("*.json")))
    return Counter(entry["resource"]["resourceType"] for bundle in bundles for entry in bundle["entry"])


def table(output: str) -> list[dict[str, str]]:
    """The rows of the table that `load` ends with, by its column titles."""
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in output.splitlines()]
    first = next(number for number, row in enumerate(rows) if row[:1] == ["type"])
    titles = rows[first]
    return [dict(zip(titles, row, strict=True)) for row in rows[first + 1 :] if len(row) == len(titles)]


@pytest.fixture(scope="module")
def uri(fresh_mongo_uri: Callable[[], str]) -> str:
    """A database that holds the sample clinic."""
    uri = fresh_mongo_uri()
    loaded = fhir_server("load", "examples", "--store", uri)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    expected = {**examples(), "all": examples().total()}
    assert {row["type"]: int(row["created"]) for row in table(loaded.stdout)} == expected
    return uri


@pytest.fixture(scope="module")
def served(uri: str) -> Iterator[str]:
    """A server on a free port of this machine; SIGTERM ends it with status 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = command("serve", "--store", uri, "--port", str(port))
    server = subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/livez", server)
        yield address
        server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0
    finally:
        server.kill()
        server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended before it answered"
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} did not answer")


def with_password(uri: str) -> str:
    """The URI with a user of whom the server knows nothing."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=f"clinic:hunter2@{parts.netloc}"))


def test_a_second_load_changes_nothing(uri: str) -> None:
    again = fhir_server("load", "examples", "--store", uri)
    assert again.returncode == 0, again.stdout + again.stderr
    rows = table(again.stdout)
    assert {row["type"]: int(row["unchanged"]) for row in rows} == {**examples(), "all": examples().total()}
    assert {row[result] for row in rows for result in ("created", "updated", "failed")} == {"0"}


def test_serve_is_ready_and_answers(served: str) -> None:
    """The queries and their counts are those of README.md."""
    ready = httpx.get(f"{served}/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    family = httpx.get(f"{served}/fhir/Patient?family=okafor&_sort=birthdate").json()
    births = [entry["resource"]["birthDate"] for entry in family["entry"]]
    assert len(births) == 3 and births == sorted(births)
    day = httpx.get(f"{served}/fhir/Appointment?date=2026-11-30&status=booked&_include=Appointment:patient").json()
    modes = Counter((entry["search"]["mode"], entry["resource"]["resourceType"]) for entry in day["entry"])
    assert modes == {("match", "Appointment"): 4, ("include", "Patient"): 4}


def test_reindex_counts_the_type_and_searches_go_on(uri: str, served: str) -> None:
    done = fhir_server("reindex", "Patient", "--store", uri)
    assert done.returncode == 0, done.stderr
    assert f"{examples()['Patient']} resources indexed." in done.stdout
    assert len(httpx.get(f"{served}/fhir/Patient?family=okafor").json()["entry"]) == 3


def test_backup_leaves_mongodb_to_its_own_way(uri: str, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    refused = fhir_server("backup", str(target), "--store", with_password(uri))
    assert refused.returncode == 1
    shown = uri.partition("://")[2].rpartition("@")[2].partition("?")[0]
    assert f"mongodb://{shown} has its own way of backup" in refused.stderr
    assert "copies SQLite stores" in refused.stderr
    assert "hunter2" not in refused.stdout + refused.stderr
    assert not target.exists()


def test_a_start_that_is_refused_tells_why_without_the_user_and_options() -> None:
    uri = "mongodb://clinic:hunter2@127.0.0.1:1/fhir?serverSelectionTimeoutMS=200&authSource=admin"
    refused = fhir_server("serve", "--port", "0", "--store", uri)
    assert refused.returncode != 0
    assert refused.stdout == "", "the banner comes when the port listens"
    assert "No MongoDB server answers at the store's address" in refused.stderr
    for secret in ("hunter2", "clinic", "authSource"):
        assert secret not in refused.stdout + refused.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [("load", "examples"), ("reindex", "Patient"), ("serve", "--port", "0")], ids=lambda each: each[0]
)
def test_a_refused_user_is_told_without_the_password(uri: str, arguments: tuple[str, ...]) -> None:
    refused = fhir_server(*arguments, "--store", with_password(uri))
    assert refused.returncode != 0
    assert "hunter2" not in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
