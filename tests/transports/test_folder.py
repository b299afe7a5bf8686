"""The folder transport: whole files or none, never overwritten, complete files alone (docs/partners.md)."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.transports.folder import (
    Folder,
    finish_file,
    name_file,
    observe_files,
    read_file,
    remove_unfinished,
    select_complete,
    write_file,
)
from fhir_server.transports.protocol import Transport

pytestmark = pytest.mark.anyio

PAYLOAD = b"MSH|^~\\&|A\rPID|1\r" * 100


@pytest.fixture
def endpoint(tmp_path: Path) -> dict[str, str]:
    folders = {name: str(tmp_path / name) for name in ("in", "done", "failed", "out")}
    for each in folders.values():
        Path(each).mkdir()
    return {**folders, "suffix": ".hl7"}


def names(endpoint: dict[str, str], key: str) -> list[str]:
    return sorted(os.listdir(endpoint[key]))


async def test_a_file_carries_its_control_number(endpoint: dict[str, str]) -> None:
    transport: Transport = Folder()
    assert not await transport.find_delivered(endpoint, "000000042")
    assert (await transport.deliver(endpoint, "000000042", PAYLOAD)).outcome == "delivered"
    assert names(endpoint, "out") == ["000000042.hl7"]
    assert (Path(endpoint["out"]) / "000000042.hl7").read_bytes() == PAYLOAD
    assert await transport.find_delivered(endpoint, "000000042")
    assert transport.repeats is False


async def test_the_same_file_again_is_delivered_and_not_written(endpoint: dict[str, str]) -> None:
    await Folder().deliver(endpoint, "1", PAYLOAD)
    before = (Path(endpoint["out"]) / "1.hl7").stat()
    assert (await Folder().deliver(endpoint, "1", PAYLOAD)).outcome == "delivered"
    after = (Path(endpoint["out"]) / "1.hl7").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_a_file_with_other_bytes_is_never_overwritten(endpoint: dict[str, str]) -> None:
    await Folder().deliver(endpoint, "1", PAYLOAD)
    result = await Folder().deliver(endpoint, "1", b"other")
    assert result.outcome == "refused" and "never overwritten" in result.reason
    assert (Path(endpoint["out"]) / "1.hl7").read_bytes() == PAYLOAD
    assert names(endpoint, "out") == ["1.hl7"]


async def test_a_link_in_the_place_of_the_file_is_not_written_through(endpoint: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (Path(endpoint["out"]) / "1.hl7").symlink_to(tmp_path / "elsewhere")
    assert (await Folder().deliver(endpoint, "1", PAYLOAD)).outcome == "refused"
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


async def test_a_folder_that_is_not_there_is_said(endpoint: dict[str, str]) -> None:
    result = await Folder().deliver({"out": endpoint["out"] + "/none"}, "1", PAYLOAD)
    assert result.outcome == "unsent" and "the folder is not there" in result.reason


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=2, max_size=10))
def test_different_numbers_have_different_safe_names(numbers: list[str]) -> None:
    numbers = [each for each in numbers if each.isprintable()]
    made = [name_file(number, ".txt") for number in numbers]
    assert len(set(made)) == len(made)
    assert all("/" not in each and "\\" not in each and not each.startswith(".") for each in made)


@pytest.mark.parametrize("number", ["", "x" * 400])
async def test_a_number_that_names_no_file_is_refused(endpoint: dict[str, str], number: str) -> None:
    assert (await Folder().deliver(endpoint, number, PAYLOAD)).outcome == "refused"
    assert names(endpoint, "out") == []


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
async def test_a_full_disk_leaves_no_file(endpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Half of the bytes fit; then the disk is full."""
    writes: list[int] = []

    def full(descriptor: Any, *arguments: Any, **named: Any) -> int:
        if call == "write" and not writes:
            writes.append(1)
            return real_write(descriptor, bytes(arguments[0])[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_write = os.write
    monkeypatch.setattr(os, call, full)
    result = await Folder().deliver(endpoint, "1", PAYLOAD)
    monkeypatch.undo()
    assert result.outcome == "unsent" and "no space left on device" in result.reason
    assert names(endpoint, "out") == []
    assert (await Folder().deliver(endpoint, "1", PAYLOAD)).outcome == "delivered"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user cannot mount a disk of its own")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_small_disk_takes_what_fits_and_nothing_half(small_disk: Path) -> None:
    endpoint = {"out": str(small_disk)}
    results = [(await Folder().deliver(endpoint, str(number), b"x" * 20_000)).outcome for number in range(5)]
    assert "unsent" in results and results[0] == "delivered"
    files = [each for each in small_disk.iterdir() if not each.name.startswith(".")]
    assert len(files) == results.count("delivered")
    assert all(each.stat().st_size == 20_000 for each in files)
    assert [each for each in small_disk.iterdir() if each.name.startswith(".")] == []
    files[0].unlink()
    assert (await Folder().deliver(endpoint, "5", b"x" * 20_000)).outcome == "delivered"


def test_no_reader_ever_sees_half_a_file(endpoint: dict[str, str]) -> None:
    out, large, seen = Path(endpoint["out"]), b"x" * 2_000_000, set()
    writer = threading.Thread(target=lambda: [write_file(out / f"{n}.hl7", large) for n in range(20)])
    writer.start()
    while writer.is_alive():
        seen |= {each.stat().st_size for each in out.glob("[!.]*.hl7")}
    writer.join()
    assert seen <= {len(large)} and len(list(out.glob("*.hl7"))) == 20


def deliver_again_and_again(out: str) -> None:
    number = 0
    while True:
        write_file(Path(out) / f"{number % 7}.hl7", bytes([number % 7]) * 500_000)
        number += 1


@pytest.mark.external
def test_a_killed_process_leaves_whole_files_and_nothing_is_written_twice(endpoint: dict[str, str]) -> None:
    spawn = multiprocessing.get_context("spawn")
    inodes: dict[str, int] = {}
    for _ in range(3):
        process = spawn.Process(target=deliver_again_and_again, args=(endpoint["out"],))
        process.start()
        deadline = time.monotonic() + 30
        while not any(Path(endpoint["out"]).iterdir()) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        process.kill()
        process.join()
        for path in Path(endpoint["out"]).glob("[!.]*.hl7"):
            assert path.read_bytes() == bytes([int(path.stem)]) * 500_000
            assert inodes.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino
    remove_unfinished(Path(endpoint["out"]), time.time() + 1)
    for number in range(7):
        assert write_file(Path(endpoint["out"]) / f"{number}.hl7", bytes([number]) * 500_000).outcome == "delivered"
    assert names(endpoint, "out") == [f"{number}.hl7" for number in range(7)]


async def test_what_a_dead_process_left_is_removed_once_it_is_old(endpoint: dict[str, str]) -> None:
    left = [Path(endpoint["out"]) / name for name in (".1.hl7.00.part", ".2.hl7.00.part", ".other")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (1, 1))
    await Folder().deliver(endpoint, "3", PAYLOAD)
    assert names(endpoint, "out") == [".2.hl7.00.part", ".other", "3.hl7"]


def test_a_file_still_being_written_is_left(endpoint: dict[str, str]) -> None:
    folder_in = Path(endpoint["in"])
    (folder_in / "a.hl7").write_bytes(b"MSH|half")
    (folder_in / "b.hl7").write_bytes(b"MSH|whole")
    seen = observe_files(folder_in, {}, 0)
    assert select_complete(seen, 0, 5) == []
    with (folder_in / "a.hl7").open("ab") as growing:
        growing.write(b" and more")
    seen = observe_files(folder_in, seen, 5)
    assert select_complete(seen, 5, 5) == ["b.hl7"]
    seen = observe_files(folder_in, seen, 9)
    assert select_complete(seen, 9, 5) == ["b.hl7"]
    seen = observe_files(folder_in, seen, 10)
    assert sorted(select_complete(seen, 10, 5)) == ["a.hl7", "b.hl7"]


def test_a_file_rewritten_in_its_size_is_left(endpoint: dict[str, str]) -> None:
    path = Path(endpoint["in"]) / "a.hl7"
    path.write_bytes(b"MSH|one")
    seen = observe_files(path.parent, {}, 0)
    path.write_bytes(b"MSH|two")
    os.utime(path, ns=(1, 1))
    assert select_complete(observe_files(path.parent, seen, 10), 10, 5) == []


def test_hidden_files_links_folders_and_unfinished_names_are_left(endpoint: dict[str, str], tmp_path: Path) -> None:
    folder_in = Path(endpoint["in"])
    for name in (".hidden.hl7", "a.hl7.part", "b.TMP", "c.filepart"):
        (folder_in / name).write_bytes(b"x")
    (folder_in / "folder").mkdir()
    (folder_in / "link.hl7").symlink_to(tmp_path)
    assert observe_files(folder_in, {}, 0) == {}


def test_what_was_taken_is_moved_and_what_failed_has_its_reason(endpoint: dict[str, str]) -> None:
    for name in ("a.hl7", "b.hl7"):
        (Path(endpoint["in"]) / name).write_bytes(name.encode())
    assert finish_file(endpoint, "a.hl7").name == "a.hl7"
    finish_file(endpoint, "b.hl7", "The message has no MSH.")
    assert names(endpoint, "in") == [] and names(endpoint, "done") == ["a.hl7"]
    assert names(endpoint, "failed") == ["b.hl7", "b.hl7.reason.txt"]
    reason = (Path(endpoint["failed"]) / "b.hl7.reason.txt").read_text(encoding="utf-8")
    assert reason == "The message has no MSH.\n"


def test_a_move_that_was_cut_short_is_finished(endpoint: dict[str, str]) -> None:
    """The process died when the file was in both folders."""
    (Path(endpoint["in"]) / "a.hl7").write_bytes(b"a")
    os.link(Path(endpoint["in"]) / "a.hl7", Path(endpoint["failed"]) / "a.hl7")
    finish_file(endpoint, "a.hl7", "It failed.")
    assert names(endpoint, "in") == [] and names(endpoint, "failed") == ["a.hl7", "a.hl7.reason.txt"]


def test_a_file_is_read_as_far_as_it_may_be(endpoint: dict[str, str], tmp_path: Path) -> None:
    (Path(endpoint["in"]) / "a.hl7").write_bytes(b"x" * 100)
    assert len(read_file(endpoint, "a.hl7", 100)) == 100 and len(read_file(endpoint, "a.hl7", 10)) == 11
    (Path(endpoint["in"]) / "link").symlink_to(tmp_path / "in" / "a.hl7")
    with pytest.raises(OSError, match="symbolic links"):
        read_file(endpoint, "link", 100)


def test_nothing_in_done_or_failed_is_overwritten(endpoint: dict[str, str]) -> None:
    for number in range(3):
        (Path(endpoint["in"]) / "a.hl7").write_text(str(number))
        finish_file(endpoint, "a.hl7", "It failed." if number == 2 else "")
    assert names(endpoint, "done") == ["a.hl7", "a.hl7.1"]
    assert (Path(endpoint["done"]) / "a.hl7").read_text() == "0"
