"""The files in `deployment/`, read and compared with the server; no image is built here, where there is no Docker.

https://docs.docker.com/reference/dockerfile/, https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import ssl
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.commands.worker_processes import Patience
from fhir_server.settings import Settings
from tests.commands.test_tls import make_certificate

ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENT = ROOT / "deployment"


def read_dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest) in order."""
    text = re.sub(r"(?m)^#.*\n", "", (DEPLOYMENT / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(instruction, rest) for instruction, rest in lines]


def get_all(name: str) -> list[str]:
    return [rest for instruction, rest in read_dockerfile() if instruction == name]


def read_unit() -> dict[str, list[str]]:
    """The settings of the service by name, sections aside."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOYMENT / "fhir-server.service").read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_image_has_all_that_the_package_is_made_of() -> None:
    copied = {name for rest in get_all("COPY") for name in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], "pyproject.toml"}
    needed |= {project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"}
    assert copied == needed
    assert all((ROOT / name).exists() for name in copied)
    assert any("pip install" in rest and "-c constraints.txt '.[pdf]'" in rest for rest in get_all("RUN"))


def test_nothing_else_is_sent_to_the_builder() -> None:
    """The last line that matches a path decides: https://docs.docker.com/build/concepts/context/#dockerignore-files."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    def is_sent(path: str) -> bool:
        sent = True
        for line in lines:
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = Path(path).parts
            tested = parts if "**/" in line else parts[:1]
            if any(fnmatch.fnmatch(part, pattern) for part in tested):
                sent = line.startswith("!")
        return sent

    for path in (
        ".git/config",
        ".venv/bin/python",
        "fhir.db",
        "tests/test_app.py",
        "examples/fhir.db-wal",
        "docs/start.md",
    ):
        assert not is_sent(path), path
    assert not is_sent("fhir_server/__pycache__/app.cpython-312.pyc")
    for rest in get_all("COPY"):
        assert all(is_sent(name) for name in rest.split()[:-1])
    assert is_sent("fhir_server/store/sqlite/schema.py")


def test_the_volume_is_the_users_who_runs_the_server() -> None:
    instructions = [name for name, _ in read_dockerfile()]
    (user,), (volume,), (environment,) = get_all("USER"), get_all("VOLUME"), get_all("ENV")
    prepared = next(rest for rest in get_all("RUN") if "useradd" in rest)
    uid, _, gid = user.partition(":")
    assert uid.isdecimal() and gid.isdecimal() and "0" not in (uid, gid)  # Kubernetes' runAsNonRoot reads numbers alone
    assert f"groupadd --gid {gid} fhir" in prepared
    assert re.search(rf"useradd --uid {uid} --gid fhir .* fhir\b", prepared)
    assert re.search(rf"install --directory --owner=fhir --group=fhir --mode=0700 {volume}$", prepared.strip())
    # what a RUN makes in a volume after VOLUME is lost, and what runs after USER is not root's
    assert instructions.index("VOLUME") > instructions.index("RUN")
    assert "RUN" not in instructions[instructions.index("USER") :]
    name, _, uri = environment.partition("=")
    assert name == "FHIR_STORE" and Settings(store=uri).store.startswith(f"sqlite:///{volume}/")


def test_the_container_serves_others_only_when_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (command,) = get_all("CMD")
    (entry,) = get_all("ENTRYPOINT")
    assert json.loads(entry) == ["fhir-server"]
    arguments = json.loads(command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FHIR_ALLOW_UNAUTHENTICATED", raising=False)
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 2
    assert "FHIR_ALLOW_UNAUTHENTICATED=true" in " ".join(refused.output.split())
    monkeypatch.setenv("FHIR_ALLOW_UNAUTHENTICATED", "true")
    passed = CliRunner().invoke(cli, [*arguments, "--store", "none://"])
    assert passed.exit_code == 2 and "names no store" in passed.output
    assert "FHIR_ALLOW_UNAUTHENTICATED" not in passed.output


class Probed(BaseHTTPRequestHandler):
    """Answers the health check with the status that a test gave its server."""

    def do_GET(self) -> None:
        assert isinstance(self.server, ProbedServer)
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said of each request."""


class ProbedServer(HTTPServer):
    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Probed)
        self.status, self.asked = status, list[str]()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_tells_whether_the_port_that_is_served_is_ready(
    status: int, tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = get_all("HEALTHCHECK")
    _, option, code = json.loads(check[check.index("[") :])
    port = json.loads(get_all("CMD")[0])[-1]
    assert f"'127.0.0.1', {port};" in code and get_all("EXPOSE") == [port]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.delenv("FHIR_TLS_CERTIFICATE", raising=False)
    server = ProbedServer(status)
    if tls:
        certificate, key = make_certificate(tmp_path, "of-another-name")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("FHIR_TLS_CERTIFICATE", str(certificate))
    asked = [sys.executable, option, code.replace(f" {port};", f" {server.server_port};")]
    with server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            assert subprocess.run(asked, check=False, timeout=30).returncode == (status != 200)
        finally:
            server.shutdown()
            thread.join()
    assert server.asked == ["/readyz"]
    assert subprocess.run(asked, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode == 1


def test_the_unit_starts_and_stops_the_server() -> None:
    unit = read_unit()
    program, *arguments = unit["ExecStart"][0].split()
    assert Path(program).name == "fhir-server"
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    (folder,) = unit["StateDirectory"]
    assert unit["Environment"] == [f"FHIR_STORE=sqlite:////var/lib/{folder}/fhir.db"]
    assert (unit["UMask"], unit["StateDirectoryMode"], unit["KillMode"]) == (["0077"], ["0700"], ["mixed"])
    assert int(unit["TimeoutStopSec"][0]) > Settings().request_timeout + 2 * 10 >= Patience().finishing
    assert unit["User"] != ["root"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOYMENT / "fhir-server.service").read_text().replace("/opt/fhir-server/bin/fhir-server", "/bin/true")
    unit = tmp_path / "fhir-server.service"
    unit.write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "Unknown" not in said.stderr and "Failed to parse" not in said.stderr, said.stderr


def test_compose_builds_this_image_and_says_that_no_one_is_identified() -> None:
    services = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())["services"]
    for name in ("server1", "server2"):
        server = services[name]
        assert (
            DEPLOYMENT / server["build"]["context"] / server["build"]["dockerfile"]
        ).resolve() == DEPLOYMENT / "Dockerfile"
        assert "--allow-unauthenticated" in server["command"]
        assert name in Settings(hosts=server["environment"]["FHIR_HOSTS"]).hosts
        assert all(port.startswith("127.0.0.1:") for port in server["ports"])
        assert server["stop_grace_period"] == f"{read_unit()['TimeoutStopSec'][0]}s"
