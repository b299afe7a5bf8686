"""Head and body of a response leave in one write, in the right order, and nothing is kept back (RFC 9112)."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest

from fhir_server.commands.head_buffer import HeadBuffer
from tests.faults.process import serving_process

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Written(asyncio.Transport):
    """What was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.closed = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.parts.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: object = None) -> object:
        return name


def made() -> tuple[Written, HeadBuffer]:
    written = Written()
    return written, HeadBuffer(written)


async def test_head_and_body_are_one_write() -> None:
    written, transport = made()
    transport.write(HEAD)
    transport.write(b"{}")
    assert written.parts == [HEAD + b"{}"]
    await asyncio.sleep(0)
    assert written.parts == [HEAD + b"{}"]


async def test_a_body_without_bytes_lets_the_head_go() -> None:
    written, transport = made()
    transport.write(HEAD)
    transport.write(b"")
    assert written.parts == [HEAD]


async def test_an_interim_response_goes_at_once() -> None:
    """The client waits for it before it sends its body (RFC 9110, 10.1.1)."""
    written, transport = made()
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert written.parts == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    transport.write(HEAD)
    transport.write(b"{}")
    assert written.parts[1:] == [HEAD + b"{}"]


async def test_a_head_without_body_goes_by_flush() -> None:
    """The response to a HEAD, 204 and 304."""
    written, transport = made()
    transport.write(HEAD)
    assert written.parts == []
    transport.flush()
    transport.flush()
    assert written.parts == [HEAD]


async def test_closing_writes_what_is_kept() -> None:
    written, transport = made()
    transport.write(HEAD)
    transport.close()
    assert written.parts == [HEAD]
    assert written.closed


async def test_the_rest_is_the_transport_itself() -> None:
    _, transport = made()
    assert transport.get_extra_info("peername") == "peername"


def answers(port: int, requests: bytes) -> bytes:
    """All that the server says to requests sent at once, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(requests)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db") as process:
        port = int(process.base.rpartition(":")[2].partition("/")[0])
        asked = b"".join(
            b"%b /fhir/%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % each
            for each in (
                (b"GET", b"Patient/first", b""),
                (b"HEAD", b"metadata", b""),
                (b"DELETE", b"Patient/second", b""),
                (b"GET", b"Patient/third", b"Connection: close\r\n"),
            )
        )
        said = answers(port, asked)
        waits = answers(
            port,
            b"PUT /fhir/Patient/p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\n"
            b"Connection: close\r\nExpect: 100-continue\r\n"
            b'Content-Length: 36\r\n\r\n{"resourceType":"Patient","id":"p"}\n',
        )
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"404", b"200", b"204", b"404"]
    assert said.index(b"Patient/first") < said.index(b"HTTP/1.1 204") < said.index(b"Patient/third")
    assert b"CapabilityStatement" not in said
    assert waits.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201")
