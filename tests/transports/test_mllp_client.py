"""MLLP as a transport: a connection is kept while its answers are right, and closed at once when one is not."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.transports import mllp_client
from fhir_server.transports.mllp_client import Mllp
from tests.workers.stub_partner import Stub, stub_partner

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mllp() -> AsyncIterator[Mllp]:
    """The transport; what it keeps is closed in the end."""
    transport = Mllp()
    yield transport
    transport.close()
    assert not transport._kept


def message(number: str) -> bytes:
    return f"MSH|^~\\&|PMS|CLINIC|EHR|NORTH|2026||ADT^A31|{number}|P|2.5.1\rPID|1||N1||V0\r".encode()


async def send(mllp: Mllp, port: int, number: str, seconds: str = "0.2") -> str:
    result = await mllp.deliver({"host": "127.0.0.1", "port": str(port), "seconds": seconds}, number, message(number))
    assert (result.outcome == "delivered") == (not result.reason)
    return result.outcome


async def test_one_connection_carries_many_messages_while_all_is_well(mllp: Mllp) -> None:
    stub = Stub()
    async with stub_partner(stub) as port:
        assert [await send(mllp, port, number) for number in "123"] == ["delivered"] * 3
        assert stub.opened == 1


@pytest.mark.parametrize("action", ["wrong", "garbage", "late", "close", "half"])
async def test_after_anything_but_the_right_answer_the_connection_is_another(mllp: Mllp, action: str) -> None:
    stub = Stub(lambda number: action if number == 1 else "AA")
    async with stub_partner(stub) as port:
        assert [await send(mllp, port, number) for number in "112"] == ["unanswered", "delivered", "delivered"]
        assert stub.opened == 2


async def test_a_refusal_is_an_answer(mllp: Mllp) -> None:
    stub = Stub(lambda number: "AE")
    async with stub_partner(stub) as port:
        assert [await send(mllp, port, number) for number in "12"] == ["delivered", "delivered"]
        assert stub.opened == 1


async def test_a_connection_that_the_partner_ended_meanwhile_is_not_used(mllp: Mllp) -> None:
    stub = Stub()
    writers: list[asyncio.StreamWriter] = []
    serve = stub.serve

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    stub.serve = noting  # type: ignore[method-assign]
    async with stub_partner(stub) as port:
        assert await send(mllp, port, "1") == "delivered"
        writers[0].close()
        await asyncio.sleep(0.05)
        assert await send(mllp, port, "2") == "delivered"
        assert stub.opened == 2 and len(stub.arrivals) == 2


async def test_an_idle_connection_is_ended(mllp: Mllp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp_client, "IDLE_SECONDS", 0.05)
    stub = Stub()
    async with stub_partner(stub) as port:
        await send(mllp, port, "1")
        await asyncio.sleep(0.2)
        assert await send(mllp, port, "2") == "delivered" and stub.opened == 2


async def test_nobody_there_left_no_octet(mllp: Mllp) -> None:
    async with stub_partner(Stub()) as port:
        pass
    assert await send(mllp, port, "1") == "unsent"


async def test_tls_checks_the_partner(mllp: Mllp, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    extension = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        made = [*command, *extension, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not here")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    stub = Stub()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=tls)
    endpoint = {"host": "127.0.0.1", "port": str(server.sockets[0].getsockname()[1]), "tls": "yes"}
    stranger = await mllp.deliver(endpoint, "1", message("1"))
    assert stranger.outcome == "unsent" and "cannot be reached" in stranger.reason
    known = await mllp.deliver({**endpoint, "authorities": str(certificate)}, "1", message("1"))
    assert known.outcome == "delivered" and len(stub.arrivals) == 1
    server.close()
