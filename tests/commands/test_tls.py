"""`fhir-server serve` with a certificate: https alone, and a new certificate without a restart."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost that has signed itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *wanted.split(), *names], check=True, capture_output=True)
    return certificate, key


@contextmanager
def serving(folder: Path, certificate: Path, key: Path) -> Iterator[str]:
    """A server in a process of its own; its base URL."""
    command = f"-m fhir_server serve --store sqlite:///{folder}/fhir.db --port 0 --workers 1"
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command.split(), *options], cwd=folder, env=environment, stdout=out, stderr=out
        )
        try:
            yield wait_for_banner(folder / "out", process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for_banner(out: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"FHIR R4 server on (https://\S+)", out.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(out.read_text())


def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def test_it_speaks_https_alone_and_takes_a_new_certificate(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    other, other_key = make_certificate(tmp_path, "two")
    with serving(tmp_path, certificate, key) as base:
        answer = httpx.get(f"{base}/Patient", verify=trust(certificate))
        assert answer.status_code == 200
        assert answer.json()["link"][0]["url"] == f"{base}/Patient"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx.TransportError):
            httpx.get(base.replace("https:", "http:") + "/Patient")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{base}/Patient", verify=trust(other))

        key.write_text("no key")  # half of a change: the certificate before stays in use
        time.sleep(2.5)
        assert httpx.get(f"{base}/Patient", verify=trust(certificate)).status_code == 200
        assert "the one before stays in use" in (tmp_path / "out").read_text()

        key.write_bytes(other_key.read_bytes())
        certificate.write_bytes(other.read_bytes())
        wait_until_trusted(f"{base}/Patient", other)


def find_process(folder: Path) -> int:
    """The process that serves the folder's file: the parent of the worker that logged its start."""
    (worker,) = re.findall(r"Started server process \[(\d+)\]", (folder / "out").read_text())
    return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


def test_sighup_loads_the_certificate_again(tmp_path: Path) -> None:
    """Also where the files look as before, as after a copy that keeps times: SIGHUP alone tells of the change."""
    certificate, key = make_certificate(tmp_path, "one")
    other, other_key = make_certificate(tmp_path, "two")
    # of one size and one time: what watches the files sees no change
    size = max(each.stat().st_size for each in (certificate, key, other, other_key))
    for each in (certificate, key, other, other_key):
        each.write_text(each.read_text().ljust(size, "\n"))
    with serving(tmp_path, certificate, key) as base:
        assert httpx.get(f"{base}/Patient", verify=trust(certificate), timeout=PATIENCE).status_code == 200
        for mine, theirs in ((certificate, other), (key, other_key)):
            times = mine.stat().st_mtime_ns
            mine.write_bytes(theirs.read_bytes())
            os.utime(mine, ns=(times, times))
        time.sleep(2.5)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{base}/Patient", verify=trust(other), timeout=PATIENCE)
        os.kill(find_process(tmp_path), signal.SIGHUP)
        wait_until_trusted(f"{base}/Patient", other)


def wait_until_trusted(url: str, certificate: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert httpx.get(url, verify=trust(certificate), timeout=PATIENCE).status_code == 200
            return
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tls-key", "key.pem"], "needs `--tls-certificate`"),
        (["--tls-certificate", "missing.pem"], "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_told_at_the_start(
    options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FHIR_TLS_KEY", "FHIR_TLS_CERTIFICATE"):
        monkeypatch.delenv(name, raising=False)
    told = CliRunner(env=dict.fromkeys(("FHIR_TLS_KEY", "FHIR_TLS_CERTIFICATE"))).invoke(cli, ["serve", *options])
    assert told.exit_code == 2 and sentence in told.output


def test_other_machines_need_tls_where_tokens_are_needed() -> None:
    told = CliRunner(env={"FHIR_AUTHENTICATION": "on"}).invoke(cli, ["serve", "--host", "0.0.0.0"])
    assert told.exit_code == 2 and "--tls-certificate" in told.output
