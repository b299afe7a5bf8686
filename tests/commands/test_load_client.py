"""The HTTP client of `load`: headers, connections, and what it says when there is no answer (`docs/load.md`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing

import httpx
import pytest

from fhir_server.commands.loading.client import check_base, open_client, send

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def send_to(serve: Serve, *paths: str, body: bytes = b"", **options: float) -> list[httpx.Response]:
    """The answers to one request for each path, sent one after the other to a server that does this."""

    async def run() -> list[httpx.Response]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        lines = ("Authorization: Bearer x", "Prefer: handling=lenient")
        async with server, open_client(f"http://127.0.0.1:{port}/fhir/", lines, **options) as client:
            return [await send(client, "POST" if body else "GET", path, body) for path in paths]

    return asyncio.run(run())


def test_a_request_carries_media_types_and_the_own_headers() -> None:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    send_to(serve, "", body=b"{}")
    head, _, body = received[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert (first, body) == ("POST /fhir HTTP/1.1", b"{}")
    assert {
        ("content-type", "application/fhir+json"),
        ("accept", "application/fhir+json"),
        ("content-length", "2"),
        ("authorization", "Bearer x"),
        ("prefer", "return=minimal"),
        ("prefer", "handling=lenient"),
    } <= set(headers)


def test_connections_are_kept_and_replaced_when_the_server_closes() -> None:
    opened: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        for index in range(2):
            await reader.readuntil(b"\r\n\r\n")
            close = b"Connection: close\r\n" if index else b""
            writer.write(b"HTTP/1.1 200 OK\r\n" + close + b"Content-Length: 1\r\n\r\n%d" % index)
        writer.close()

    answers = send_to(serve, *["metadata"] * 4)
    assert [answer.content for answer in answers] == [b"0", b"1", b"0", b"1"]
    assert len(opened) == 2


def test_a_server_that_closes_is_a_connection_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    with pytest.raises(ConnectionError, match="disconnected without sending a response"):
        send_to(serve, "metadata")


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    async def run() -> None:
        async with open_client("http://127.0.0.1:9/fhir") as client:
            await send(client, "GET", "metadata")

    with pytest.raises(ConnectionError, match=r"no connection to http://127\.0\.0\.1:9/fhir: .*\('127\.0\.0\.1', 9\)"):
        asyncio.run(run())


def test_what_is_no_base_url_is_told_with_the_likely_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, open_client(url) as client:
            await check_base(client)

    with pytest.raises(ValueError, match=r"`http://[^`]*` is no base URL .* Did you mean `http://127[^`]*/fhir`\?"):
        asyncio.run(run())


def test_a_silent_server_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.read()

    with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
        send_to(serve, "metadata", time_limit=0.2)


@pytest.mark.parametrize(
    ("url", "header", "words"),
    [
        ("localhost:8000", "", "is not the URL of a FHIR server"),
        ("ftp://x/fhir", "", "is not the URL of a FHIR server"),
        ("http://x:port/fhir", "", "is not the URL of a FHIR server"),
        ("http://127.0.0.1:99999/fhir", "", "is not the URL of a FHIR server"),
        ("http://x/fhir?tenant=1", "", "is not the URL of a FHIR server"),
        ("http://x/fhir", "Bearer", "is not a header"),
        ("http://x/fhir", "Näme: x", "is not a header"),
        ("http://x/fhir", "A: €", "is not a header"),
        ("http://x/fhir", "A: b\r\nC: d", "is not a header"),
    ],
)
def test_a_bad_target_of_a_load_is_explained(url: str, header: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_client(url, [header] if header else [])
