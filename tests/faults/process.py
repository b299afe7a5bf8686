"""A server in a process of its own, started as a user starts it, on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """A running `fhir-server serve`; `cold` is the time in seconds from its start to the first 200 on /metadata."""

    popen: subprocess.Popen[bytes]
    base: str
    log: Path
    cold: float

    def client(self, **options: object) -> httpx.AsyncClient:
        """A client of its own connections."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        return httpx.AsyncClient(base_url=self.base, timeout=60, limits=limits, **options)  # type: ignore[arg-type]

    def kill(self) -> None:
        """End it and its workers at once, as a power cut would."""
        self.popen.send_signal(signal.SIGKILL)
        for worker in workers(self):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self.popen.wait(30)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.popen.send_signal(signal.SIGTERM)


@contextmanager
def serving_process(database: Path, *options: str, **settings: str) -> Iterator[Process]:
    """Serve an SQLite file; `settings` are environment variables without their prefix. Stopped at the end.

    One process, unless the options say otherwise: then the signals of `Process` go to the one that has the workers.
    """
    port = _free_port()
    log = database.with_suffix(f".{port}.log")
    command = (sys.executable, "-m", "fhir_server", "serve", "--store", f"sqlite:///{database}", "--port", str(port))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")}
    environment |= {f"FHIR_{name.upper()}": value for name, value in settings.items()}
    began = time.monotonic()
    with log.open("wb") as output:
        popen = subprocess.Popen(
            (*command, "--workers", "1", *options), cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        base = f"http://127.0.0.1:{port}/fhir"
        _wait_for(base, popen, log)
        yield Process(popen, base, log, time.monotonic() - began)
    finally:
        if popen.poll() is None:
            _end(popen)


def workers(process: Process) -> list[int]:
    """The ids of its worker processes, by what it logged; those that ended since are among them."""
    return [int(id) for id in re.findall(r"Started server process \[(\d+)\]", process.log.read_text())]


def _end(popen: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: a killed parent would leave its workers behind."""
    popen.terminate()
    try:
        popen.wait(20)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(base: str, popen: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=10) as client:
        while time.monotonic() < until:
            assert popen.poll() is None, log.read_text()
            try:
                if client.get(f"{base}/metadata").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_SECONDS)
    raise AssertionError(f"no answer within {START_SECONDS} s:\n{log.read_text()}")
