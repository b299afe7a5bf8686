"""`fhir-server hl7v2`: listen, send and convert as a user runs them (docs/hl7v2.md)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import open_store
from fhir_server.transports.mllp import Connection

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "hl7v2"


def run(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(
        cli, ["hl7v2", *arguments], env={f"FHIR_{name.upper()}": value for name, value in settings.items()}
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of profiles with the sample partner, and an empty store in it."""
    (tmp_path / "partners").mkdir()
    text = (ROOT / "profiles" / "partners" / "ehr.toml.sample").read_text()
    (tmp_path / "partners" / "ehr.toml").write_text(text)
    asyncio.run(make_store(f"sqlite:///{tmp_path}/fhir.db"))
    return tmp_path


async def make_store(uri: str) -> None:
    """An empty store, as `serve` or `load` makes it."""
    await (await open_store(uri, create=True)).close()


@contextmanager
def listening(site: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A listener on an SQLite file, and its port."""
    command = [sys.executable, "-m", "fhir_server", "hl7v2", "listen", "--port", "0", *options]
    store = ["--store", f"sqlite:///{site}/fhir.db"]
    environment = {**os.environ, "FHIR_PROFILES": str(site)}
    process = subprocess.Popen([*command, *store], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.search(r":(\d+) \(store", line)
        assert found, line
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def test_the_walk_of_the_readme_ends_with_two_acknowledged_messages(tmp_path: Path) -> None:
    """Every line of the section is run, in a folder of its own and on a free port."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## HL7 v2\n")[1]
    block = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)[0]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for folder in ("profiles", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    python = shlex.quote(sys.executable)
    lines = block.replace("2575", port).replace(".venv/bin/fhir-server", f"{python} -m fhir_server").splitlines()
    connect = f'import socket; socket.create_connection(("127.0.0.1", {port}))'
    waiting = f"until {python} -c {shlex.quote(connect)} 2>/dev/null; do sleep 0.1; done"
    started = 1 + next(number for number, line in enumerate(lines) if line.endswith("&"))
    script = "\n".join(["set -e", *lines[:started], "trap 'kill $!' EXIT", waiting, *lines[started:]])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    environment.pop("FHIR_PROFILES", None)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^MSA\|(\w+)\|(\w+)", done.stdout, flags=re.MULTILINE) == [("AA", "N1001"), ("AA", "N1002")]
    assert done.stdout.count("acknowledged") == 2 and "north-ehr" in done.stdout


def test_a_listener_ends_at_sigterm_and_what_was_acknowledged_is_there(site: Path) -> None:
    with listening(site) as (process, port):
        sent = run("send", str(EXAMPLES / "registration.hl7"), str(EXAMPLES / "registration.hl7"), "--port", str(port))
        assert sent.exit_code == 0, sent.output
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    listed = CliRunner().invoke(cli, ["messages", "list", "--store", f"sqlite:///{site}/fhir.db"])
    assert listed.output.count("N1001") == 1


def test_a_refused_message_makes_send_end_with_one(site: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.hl7"
    wrong.write_bytes((EXAMPLES / "charge.hl7").read_bytes().replace(b"DFT^P03", b"ORM^O01"))
    with listening(site) as (_, port):
        sent = run("send", str(wrong), "--port", str(port))
        assert sent.exit_code == 1 and "MSA|AR|N1002" in sent.output
    nobody = run("send", str(wrong), "--port", str(port), "--seconds", "1")
    assert nobody.exit_code == 1 and f"127.0.0.1:{port}" in nobody.output


def test_sighup_gives_a_listener_the_certificate_that_lies_there_now(site: Path) -> None:
    first, key = make_certificate(site)
    with listening(site, "--certificate", first, "--key", key, "--workers", "2") as (process, port):
        connect_with(first, port)
        second = replace_unnoticed(first, key)
        process.send_signal(signal.SIGHUP)  # also of a worker that is just starting
        wait_until_trusted(second, port)
        assert process.poll() is None


def test_a_worker_that_is_replaced_has_the_certificate_that_lies_there_now(site: Path) -> None:
    first, key = make_certificate(site)
    with listening(site, "--certificate", first, "--key", key, "--workers", "2") as (process, port):
        connect_with(first, port)
        second = replace_unnoticed(first, key)
        for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        wait_until_trusted(second, port)


def connect_with(authority: str, port: int) -> None:
    """A connection that trusts this certificate alone, and its end."""

    async def connect() -> None:
        await (await Connection.open("localhost", port, ssl.create_default_context(cafile=authority))).close()

    asyncio.run(connect())


def wait_until_trusted(authority: str, port: int) -> None:
    """Return once four connections in a row, to both of two workers then, are taken with this certificate."""
    deadline = time.monotonic() + 60
    while True:
        try:
            for _ in range(4):
                connect_with(authority, port)
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def replace_unnoticed(certificate: str, key: str) -> str:
    """Put another certificate and key in these files, whose times and sizes stay; a copy of the other certificate."""
    folder = Path(certificate).parent / "new"
    folder.mkdir()
    second = make_certificate(folder)
    for mine, new in zip((certificate, key), second, strict=True):
        before = Path(mine).stat()
        Path(mine).write_text(Path(new).read_text().ljust(before.st_size, "\n"))
        os.utime(mine, ns=(before.st_mtime_ns, before.st_mtime_ns))
    return second[0]


def make_certificate(folder: Path) -> tuple[str, str]:
    """A certificate of `localhost` that is its own authority, and its key."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *wanted.split(), *names], check=True, capture_output=True)
    return certificate, key


def test_messages_go_over_tls(site: Path) -> None:
    certificate, key = make_certificate(site)
    options = ("--certificate", certificate, "--key", key)
    message = str(EXAMPLES / "registration.hl7")
    with listening(site, *options) as (_, port):
        plain = run("send", message, "--port", str(port), "--seconds", "2")
        assert plain.exit_code == 1
        secure = ("--host", "localhost", "--port", str(port), "--authorities", certificate)
        sent = run("send", message, *secure)
        assert sent.exit_code == 0 and "MSA|AA|N1001" in sent.output, sent.output


def test_with_authorities_senders_need_a_certificate(site: Path) -> None:
    certificate, key = make_certificate(site)
    message = (EXAMPLES / "registration.hl7").read_bytes()

    async def send(port: int, *own: str) -> bytes:
        tls = ssl.create_default_context(cafile=certificate)
        if own:
            tls.load_cert_chain(*own)
        connection = await Connection.open("localhost", port, tls)
        try:
            return await connection.exchange(message, 20)
        finally:
            await connection.close()

    with listening(site, "--certificate", certificate, "--key", key, "--authorities", certificate) as (_, port):
        with pytest.raises(OSError, match=r"without an acknowledgement|CERTIFICATE_REQUIRED|reset|alert"):
            asyncio.run(send(port))
        assert b"MSA|AA|N1001" in asyncio.run(send(port, certificate, key))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (None, "No partner speaks HL7 v2"),
        ('formats = ["hl7v2"]\n[hl7v2]\ncharacter_set = "EBCDIC"\n', "`character_set` of the partner `a` is `EBCDIC`"),
        ('formats = ["x12"]\n[hl7v2]\n', "`formats` has no `hl7v2`"),
    ],
)
def test_a_listener_does_not_start_without_right_partners(tmp_path: Path, file: str | None, says: str) -> None:
    (tmp_path / "partners").mkdir()
    if file is not None:
        (tmp_path / "partners" / "a.toml").write_text(f'name = "a"\n{file}')
    started = run("listen", "--port", "0", "--store", f"sqlite:///{tmp_path}/fhir.db", profiles=str(tmp_path))
    assert started.exit_code == 1 and says in started.output, started.output


def test_a_memory_store_is_refused(site: Path) -> None:
    started = run("listen", "--port", "0", "--store", "memory://", profiles=str(site))
    assert started.exit_code == 1 and "memory://" in started.output


def test_convert_prints_bundle_and_issues_without_a_server(site: Path) -> None:
    converted = CliRunner().invoke(
        cli, ["hl7v2", "convert", str(EXAMPLES / "charge.hl7")], env={"FHIR_PROFILES": str(site)}
    )
    assert converted.exit_code == 0, converted.output
    bundle = json.loads(converted.stdout)
    (charge,) = [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == "ChargeItem"]
    assert charge["priceOverride"] == {"value": 125.5, "currency": "USD"} and '"value": 125.50' in converted.stdout
    (patient,) = [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == "Patient"]
    assert patient["identifier"][0]["system"] == "urn:oid:2.16.840.1.113883.19.4712"


def test_convert_of_what_cannot_be_stored_says_why(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "junk.hl7"
    file.write_bytes(b"junk")
    converted = run("convert", str(file), profiles=str(site))
    assert converted.exit_code == 1 and "A message begins with `MSH`" in converted.output
    unknown = run("convert", str(file), "--partner", "south", profiles=str(site))
    assert unknown.exit_code == 2 and "no partner `south`" in unknown.output
    assert run("convert", str(tmp_path / "absent"), profiles=str(site)).exit_code == 2


def test_convert_tells_how_much_of_the_official_tables_is_mapped() -> None:
    told = run("convert", "--coverage")
    assert told.exit_code == 0 and re.search(r"^all: \d+ of \d+ fields", told.output, flags=re.MULTILINE)
