"""The wheel: what is in it, and that it serves from an empty environment elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder))
    (made,) = folder.glob("*.whl")
    return made


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """This one without what would lead back to the checkout or change a setting."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FHIR_") and name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }


def test_the_wheel_holds_all_that_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tables = {f"fhir_server/fhir/tables/{path.name}" for path in (ROOT / "fhir_server/fhir/tables").glob("*.json")}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("fhir_server", "mappers")
        for path in (ROOT / package).rglob("*.py")
    }
    shipped = {
        f"fhir_server/_{folder}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in ("profiles", "examples")
        for path in (ROOT / folder).rglob("*.json")
    }
    assert len(tables) >= 5
    assert {"fhir_server/_profiles/capability.json", "fhir_server/py.typed"} <= names
    assert any(name.startswith("fhir_server/_examples/") for name in names)
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fhir_server/api/templates").iterdir()}
    assert len(templates) >= 4
    assert (tables | modules | shipped | templates) - names == set()
    assert [name for name in names if name.startswith(("tests/", "bench/", "docs/", "scripts/"))] == []


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an environment that has nothing but the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, with_pip=True)
    scripts = folder / "bin"
    run(str(scripts / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return scripts


@contextmanager
def server(scripts: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`fhir-server serve` on a free port of this machine, in that folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (str(scripts / "fhir-server"), "serve", "--store", "sqlite:///fhir.db", "--port", str(port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], client: httpx.Client, path: str, log: Path) -> httpx.Response:
    """The first 200 of a path."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            response = client.get(path)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if response.status_code == 200:
            return response
        time.sleep(0.1)
    raise AssertionError(f"{path} did not answer 200 within {START_SECONDS} s:\n{log.read_text()}")


def test_the_wheel_serves_from_an_empty_environment(scripts: Path, tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "1", "name": [{"family": "Ås"}]}
    with server(scripts, tmp_path) as (process, client):
        statement = wait_for(process, client, "/fhir/metadata", tmp_path / "log").json()
        assert statement["fhirVersion"] == "4.0.1"
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.put("/fhir/Patient/1", json=patient).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "fhir.db").exists()
    # what was answered with 201 is there when the same file is served again
    with server(scripts, tmp_path) as (process, client):
        wait_for(process, client, "/readyz", tmp_path / "log")
        assert client.get("/fhir/Patient/1").json()["name"] == patient["name"]


def test_the_installed_command_imports_nothing_from_the_checkout(scripts: Path, tmp_path: Path) -> None:
    script = "import fhir_server.app as app, mappers; print(app.__file__); print(app.find_shipped('profiles'))"
    places = run(str(scripts / "python"), "-c", script, cwd=tmp_path).split()
    environment_folder = str(scripts.parent)
    assert [place for place in places if not place.startswith(environment_folder)] == []
