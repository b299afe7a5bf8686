"""Heads, silence, slow readers, standing workers and stops have bounds, and the log has sentences for them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from fhir_server.fhir.resource import MOST_VALUES
from tests.faults.process import Process, serving_process, workers

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/fhir+json"}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving_process(tmp_path_factory.mktemp("connections") / "fhir.db") as process:
        yield process


def connect(process: Process) -> socket.socket:
    address = urlsplit(process.base)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=30)


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_for(holds: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_a_header_line_beyond_the_limit_is_431(process: Process) -> None:
    with connect(process) as connection:
        head = b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n"
        connection.sendall(head)
        assert answer_of(connection).startswith(b"HTTP/1.1 431 ")


def test_an_endless_head_is_431(process: Process) -> None:
    with connect(process) as connection:
        connection.sendall(b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 50_000_000:
                connection.sendall(b"a" * 65536)
                sent += 65536
        assert sent < 50_000_000


def test_a_head_within_the_limit_is_taken(process: Process) -> None:
    answer = httpx.get(f"{process.base}/metadata", headers={"X-Long": "a" * 50_000})
    assert answer.status_code == 200


def test_readers_that_do_not_read_leave_no_traceback(process: Process) -> None:
    asked = b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n"
    readers = [connect(process) for _ in range(20)]
    for reader in readers:
        reader.sendall(asked * 40)
    time.sleep(1)
    assert httpx.get(f"{process.base}/metadata").status_code == 200
    for reader in readers:
        reader.close()
    time.sleep(0.5)
    assert "Traceback" not in process.log.read_text()


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """A lower limit for the processes that are started inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_silent_connections_make_room_for_new_ones(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with few_descriptors(200):
            process = stack.enter_context(serving_process(tmp_path / "fhir.db"))
        for _ in range(600):
            stack.enter_context(connect(process))
        for _ in range(20):
            assert httpx.get(f"{process.base}/metadata", timeout=20).status_code == 200
        log = process.log.read_text()
        assert "idle ones are closed" in log
        assert "Traceback" not in log


def test_a_worker_that_stands_still_is_replaced(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", watchdog_seconds="2") as process:
        (first,) = workers(process)
        os.kill(first, signal.SIGSTOP)
        assert wait_for(lambda: len(workers(process)) == 2), process.log.read_text()
        assert wait_for(lambda: httpx.get(f"{process.base}/metadata").status_code == 200)
        assert "stands still" in process.log.read_text()


def test_a_suspended_machine_triggers_nothing(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", watchdog_seconds="2") as process:
        pids = [process.popen.pid, *workers(process)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(3)
        assert len(workers(process)) == 1, process.log.read_text()


def test_workers_that_keep_dying_are_started_later_and_later(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db") as process:
        for number in range(1, 4):
            assert wait_for(lambda number=number: len(workers(process)) == number)  # type: ignore[misc]
            assert wait_for(lambda: httpx.get(f"{process.base}/metadata").status_code == 200)
            os.kill(workers(process)[-1], signal.SIGKILL)
        assert wait_for(lambda: "another one is started in 1 seconds" in process.log.read_text())
        assert wait_for(lambda: len(workers(process)) == 4)


async def test_a_stop_ends_although_a_stranger_holds_the_lock(tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(serving_process(database, "--workers", "2", request_timeout="2"))
        lock = stack.enter_context(Path(f"{database}.lock").open("r+b"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with process.client() as client:
            patient = {"resourceType": "Patient", "id": "p1"}
            answer = await client.put("/Patient/p1", content=orjson.dumps(patient), headers=JSON)
            assert answer.status_code == 408
        process.terminate()
        await asyncio.to_thread(process.popen.wait, 60)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", "--workers", "2") as process:
        for worker in workers(process):
            os.kill(worker, signal.SIGSTOP)  # they finish nothing
        process.terminate()
        time.sleep(1)
        assert process.popen.poll() is None
        process.terminate()
        process.popen.wait(5)


def test_memory_stays_below_the_documented_worst_case(tmp_path: Path) -> None:
    """`docs/limits.md`: 250 MB, the bodies that are held, 31 times the one that is worked on, and the answers."""
    most = 4 * 1024 * 1024
    settings = {"max_body": str(most), "max_bodies": str(2 * most), "max_answer": str(most)}
    with serving_process(tmp_path / "fhir.db", **settings) as process:
        nested = b'{"resourceType":"Patient","x":[' + b"[]," * (most // 3 - 40) + b"[]]}"
        objects = b'{"resourceType":"Patient","x":[' + b'{"a":[]},' * (most // 9 - 40) + b"{}]}"
        with httpx.Client(base_url=process.base, timeout=60) as client:
            single = b'{"resourceType":"Patient","x":[' + b'{"a":1},' * (most // 8 - 40) + b"{}]}"
            for body in (nested, objects, single):
                assert client.post("/Patient", content=body, headers=JSON).status_code == 400
        status = Path(f"/proc/{workers(process)[-1]}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        assert peak <= 250 + (2 * most + 31 * most + 4 * most) / 1_000_000


def test_a_body_of_as_many_values_as_are_taken_stays_below_the_documented_memory(tmp_path: Path) -> None:
    """`docs/limits.md`: 1 GB for what is worked on, with the settings as they are by default."""
    with serving_process(tmp_path / "fhir.db") as process:
        objects = b'{"resourceType":"Patient","x":[' + b'{"a":1},' * (MOST_VALUES // 2 - 40) + b"{}]}"
        texts = b'{"resourceType":"Patient","x":[' + b'"abcdefgh",' * (MOST_VALUES - 40) + b"1]}"
        with httpx.Client(base_url=process.base, timeout=120) as client:
            for body in (objects, texts):
                assert client.post("/Patient", content=body, headers=JSON).status_code == 400
            more = client.post("/Patient", content=objects + objects, headers=JSON)
            assert more.status_code == 413 and "objects, arrays and further values" in more.text
        status = Path(f"/proc/{workers(process)[-1]}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        print(f"peak of a worker: {peak:.0f} MB")
        assert peak <= 250 + 256 + 1024
