"""The keep-alive client reads every framing of HTTP/1.1 (RFC 9112 §6.3) and says what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest

from bench.answers import Answer
from bench.http import connect, parse_target

OK = b"HTTP/1.1 200 OK\r\n"


def exchanged(*pieces: bytes, method: str = "GET", close: bool = False, time_limit: float = 5.0) -> Answer:
    """What the client makes of an answer that arrives in these pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            if not close:
                await reader.read()

    async def ask(url: str) -> Answer:
        target = parse_target(url)
        connection = await connect(target, time_limit)
        try:
            return await connection.exchange(target.request(method, "metadata"))
        finally:
            connection.close()

    return _with_server(serve, ask)


def _with_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ask: Callable[[str], Awaitable[Answer]],
) -> Answer:
    async def run() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await ask(f"http://127.0.0.1:{port}/fhir")
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "close"),
    [
        ((OK + b"Content-Length: 5\r\n\r\nhello",), False),
        ((OK + b"CONTENT-LENGTH:   5 \r\n\r\n", b"he", b"llo"), False),
        ((b"HTTP/1.1 20", b"0 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhello"), False),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n",), False),
        (
            (OK + b"Transfer-Encoding: chunked\r\n\r\n2", b"\r\nhe\r", b"\n3\r\nll", b"o\r\n0\r\nX: y\r\n", b"\r\n"),
            False,
        ),
        ((OK + b"\r\n", b"he", b"llo"), True),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",), False),
    ],
)
def test_every_framing_gives_the_same_body(pieces: tuple[bytes, ...], close: bool) -> None:
    answer = exchanged(*pieces, close=close)
    assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", b"200 OK"), ("GET", b"304 Not Modified"), ("GET", b"204 No Content")]
)
def test_answers_without_a_body_do_not_wait_for_one(method: str, status: bytes) -> None:
    answer = exchanged(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n", method=method)
    assert (answer.status, answer.body) == (int(status[:3]), b"")


def test_headers_are_found_in_any_case() -> None:
    answer = exchanged(OK + b'etag: W/"7"\r\nContent-Length: 0\r\n\r\n')
    assert answer.header("ETag") == 'W/"7"'
    assert answer.header("Location") is None


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((), "closed the connection"),
        ((OK + b"Content-Length: 9\r\n\r\nhal",), "closed the connection"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), "does not speak HTTP/1.1"),
        ((OK + b"Content-Length: nine\r\n\r\n",), "not a number"),
    ],
)
def test_a_broken_answer_is_a_connection_error(pieces: tuple[bytes, ...], words: str) -> None:
    with pytest.raises(ConnectionError, match=words):
        exchanged(*pieces, close=True)


def test_a_silent_server_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
        exchanged(time_limit=0.2)


def test_a_request_carries_host_accept_and_length() -> None:
    target = parse_target("http://127.0.0.1:8000/fhir/", ["Authorization: Bearer x"])
    assert target.request("POST", "Patient", b"{}", (("Prefer", "return=minimal"),)) == (
        b"POST /fhir/Patient HTTP/1.1\r\nPrefer: return=minimal\r\nContent-Type: application/fhir+json\r\n"
        b"Content-Length: 2\r\nHost: 127.0.0.1:8000\r\nAuthorization: Bearer x\r\n"
        b"Accept: application/fhir+json\r\n\r\n{}"
    )
    assert target.request("GET", "").startswith(b"GET /fhir HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "header", "words"),
    [
        ("localhost:8000", "", "is not the URL of a FHIR server"),
        ("ftp://x/fhir", "", "is not the URL of a FHIR server"),
        ("http://x/fhir", "Bearer", "is not a header"),
        ("http://x/fhir", "A: b\r\nC: d", "is not a header"),
    ],
)
def test_a_bad_target_is_explained(url: str, header: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_target(url, [header] if header else [])
