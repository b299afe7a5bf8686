"""Prints how many HL7 v2 messages a second a listener stores, each acknowledged after its commit.

    python -m scripts.measure_listener [SECONDS]

A listener in a process of its own on an SQLite file, eight connections that each wait for the acknowledgement; first
admissions of new patients (ADT^A01, with what surrounds a visit), then updates of known ones (ADT^A08).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fhir_server.app import open_store
from fhir_server.transports.mllp import Connection
from tests.mappers.hl7v2.admission import ADMISSION

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 8
PARTNER = 'name = "ehr"\nformats = ["hl7v2"]\nzone = "America/Chicago"\n'


def write_admissions() -> Iterator[bytes]:
    """Admissions of one patient after the other, each with an account and a visit."""
    for number in itertools.count(1):
        text = ADMISSION.replace("|C9|", f"|A{number}|").replace("123^^^MRN", f"{number}^^^MRN")
        yield text.replace("V77", f"V{number}").replace("ACC9", f"ACC{number}").encode()


def write_updates() -> Iterator[bytes]:
    """Updates of a hundred patients in turn: another telephone number each time."""
    for number in itertools.count(1):
        head = f"MSH|^~\\&|EHR|NORTH|PMS|P|{20240306120000 + number % 60}-0600||ADT^A08^ADT_A01|U{number}|P|2.5.1\r"
        yield f"{head}PID|1||{number % 100 + 1}^^^MRN^MR||QUILL^ADA||||||||{5550000 + number}\r".encode()


async def measure(port: int, pid: int, messages: Iterator[bytes], seconds: float) -> str:
    """Acknowledged messages a second, and processor time of each. Raises ValueError where one is refused."""
    ends, count = time.monotonic() + seconds, 0

    async def send() -> None:
        nonlocal count
        connection = await Connection.open("127.0.0.1", port, None)
        while time.monotonic() < ends:
            answer = await connection.exchange(next(messages))
            if b"MSA|AA|" not in answer:
                raise ValueError(answer.decode(errors="replace"))
            count += 1
        await connection.close()

    started, before = time.monotonic(), read_processor_time(pid)
    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    rate = count / (time.monotonic() - started)
    return f"{rate:8.1f} messages/s {(read_processor_time(pid) - before) / count * 1000:8.2f} ms of processor time each"


def read_processor_time(pid: int) -> float:
    """Seconds that a process and its workers have worked (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(read_processor_time(int(each)) for each in children)


async def main(seconds: float) -> None:
    """Start a listener on an empty store, and print a line for each kind of message."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "partners").mkdir()
        (Path(folder) / "partners" / "ehr.toml").write_text(PARTNER, encoding="utf-8")
        store = f"sqlite:///{folder}/fhir.db"
        await (await open_store(store, create=True)).close()
        command = [sys.executable, "-m", "fhir_server", "hl7v2", "listen", "--port", "0"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--store", store),
            cwd=ROOT,
            env={**os.environ, "FHIR_PROFILES": folder},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            found = re.search(r":(\d+) \(store", line)
            if found is None:
                raise ValueError(f"The listener did not start: {line}")
            for name, messages in (("ADT^A01, new", write_admissions()), ("ADT^A08, known", write_updates())):
                print(f"{name:16} {await measure(int(found[1]), process.pid, messages, seconds)}")
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
