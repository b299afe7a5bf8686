"""HL7 v2 over HTTP: an answer counts by its MSA-2, and a result says how far the octets came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from pydantic import ValidationError

from fhir_server.partners.endpoints import HttpEndpoint
from fhir_server.transports.acknowledged import find_acknowledged
from fhir_server.transports.http import LARGEST_ANSWER, Http
from fhir_server.transports.http_headers import LARGEST_FILE, MOST_HEADERS
from fhir_server.transports.protocol import DeliveryResult

pytestmark = pytest.mark.anyio

PAYLOAD = b"MSH|^~\\&|PMS|CLINIC|EHR|NORTH|20260101||ADT^A31|77|P|2.5.1\rPID|1\r"
HEADER = b"MSH|^~\\&|EHR|NORTH|PMS|CLINIC|20260101||ACK|A1|P|2.5.1\r"


@asynccontextmanager
async def answering(response: bytes | None, received: list[bytes]) -> AsyncIterator[str]:
    """The address of a server that answers each request with these octets; None: with nothing at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        received.append(head + await reader.readexactly(length))
        if response is not None:
            writer.write(response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hl7"
    finally:
        server.close()


def respond(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def post(response: bytes | None, received: list[bytes] | None = None) -> DeliveryResult:
    async with answering(response, [] if received is None else received) as url:
        return await Http().deliver({"url": url, "seconds": "5"}, "77", PAYLOAD)


async def test_an_acknowledgement_of_this_message_counts_whatever_its_status() -> None:
    received: list[bytes] = []
    accepted = HEADER + b"MSA|AA|77\r"
    assert await post(respond("200 OK", accepted), received) == DeliveryResult("delivered", accepted)
    assert received[0].endswith(PAYLOAD) and b"content-type: x-application/hl7-v2+er7" in received[0].lower()
    refused = HEADER + b"MSA|AE|77|no\r"
    assert await post(respond("500 Internal Server Error", refused)) == DeliveryResult("delivered", refused)


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (respond("200 OK", HEADER + b"MSA|AA|78\r"), "unanswered"),
        (respond("200 OK", b"thank you"), "unanswered"),
        (respond("503 Service Unavailable", b"later"), "unanswered"),
        (respond("401 Unauthorized", b"who"), "unanswered"),
        (respond("400 Bad Request", b"no"), "refused"),
        (respond("415 Unsupported Media Type", b""), "refused"),
        (respond("200 OK", b"x" * (LARGEST_ANSWER + 10)), "unanswered"),
        (b"no HTTP\r\n\r\n", "unanswered"),
        (None, "unanswered"),
    ],
)
async def test_everything_else_is_no_acknowledgement(response: bytes | None, outcome: str) -> None:
    result = await post(response)
    assert result.outcome == outcome and result.reason.endswith(".")


async def test_what_nobody_listens_to_left_no_octet() -> None:
    async with answering(b"", []) as url:
        pass
    result = await Http().deliver({"url": url}, "77", PAYLOAD)
    assert result.outcome == "unsent" and "cannot be reached" in result.reason


async def test_one_who_does_not_answer_in_time_left_it_unanswered() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.read()  # until the other side gives up

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    result = await Http().deliver({"url": url, "seconds": "0.2"}, "77", PAYLOAD)
    assert (result.outcome, "within 0.2 seconds" in result.reason) == ("unanswered", True)
    server.close()


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (HEADER + b"MSA|AA|77\r", "77"),
        (b"\r\n" + HEADER + b"MSA|AA| 77 |x\r", "77"),
        (b"MSH$^~\\&$A\rMSA$AA$7|7\r", "7|7"),
        (HEADER + b"MSA|AA\r", ""),
        (HEADER, None),
        (b"MSA|AA|77\r", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_the_message_that_an_answer_is_for_is_read_from_its_octets(answer: bytes, number: str | None) -> None:
    assert find_acknowledged(answer) == number


async def test_a_token_and_headers_come_from_files_and_are_read_at_each_sending(tmp_path: Path) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    headers.write_text("# ours\n\nX-API-Key: k e y\nX-Site:7\n")
    received: list[bytes] = []
    accepted = HEADER + b"MSA|AA|77\r"
    for text in ("first-token\n", "second-token"):
        token.write_text(text)
        async with answering(respond("200 OK", accepted), received) as url:
            endpoint = HttpEndpoint.model_validate({"url": url, "token_file": str(token), "headers_file": str(headers)})
            assert (await Http().deliver(endpoint.to_endpoint(), "77", PAYLOAD)).outcome == "delivered"
    heads = [each.partition(b"\r\n\r\n")[0].decode().split("\r\n") for each in received]
    assert "Authorization: Bearer first-token" in heads[0] and "Authorization: Bearer second-token" in heads[1]
    assert "X-API-Key: k e y" in heads[0] and "X-Site: 7" in heads[0]
    assert "content-type: x-application/hl7-v2+er7; charset=utf-8" in [each.lower() for each in heads[0]]


async def test_what_is_told_of_an_answer_has_nothing_of_the_token(tmp_path: Path) -> None:
    """A partner may say back what it was sent."""
    token = tmp_path / "token"
    token.write_text("very-secret")
    async with answering(respond("401 Unauthorized", b"Bearer very-secret is not known"), []) as url:
        result = await Http().deliver({"url": url, "token_file": str(token)}, "77", PAYLOAD)
    assert result.outcome == "unanswered" and "answered 401" in result.reason
    assert "very-secret" not in result.reason


async def test_a_token_that_is_gone_leaves_the_message_unsent(tmp_path: Path) -> None:
    received: list[bytes] = []
    async with answering(respond("200 OK", b""), received) as url:
        result = await Http().deliver({"url": url, "token_file": str(tmp_path / "gone")}, "77", PAYLOAD)
    assert (result.outcome, received) == ("unsent", [])
    assert result.reason == f"`{tmp_path / 'gone'}` cannot be read: No such file or directory."


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("token_file", "two words", "holds no bearer token"),
        ("token_file", "", "holds no bearer token"),
        ("token_file", "s3cret\r\nX-Other: 1", "holds no bearer token"),
        ("token_file", "s3cret" * LARGEST_FILE, f"has more than {LARGEST_FILE} bytes"),
        ("headers_file", "X-Key s3cret", "line 1: it is no `Name: value`"),
        ("headers_file", "X-Key: s3cret\x07", "line 1: it is no `Name: value`"),
        ("headers_file", "X-Key: 1\nHost: s3cret", "line 2: the header `Host` is set by the server itself"),
        ("headers_file", "X-Key: 1\nx-key: s3cret", "line 2: the header `x-key` stands there twice"),
        ("headers_file", "X-Key: s3cr\u00e9t", "is not ASCII text"),
        ("headers_file", "".join(f"X-{n}: 1\n" for n in range(MOST_HEADERS + 1)), f"at most {MOST_HEADERS} are sent"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_content(
    tmp_path: Path, file: str, content: str, says: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    with pytest.raises(ValidationError) as error:
        HttpEndpoint.model_validate({"url": "https://ehr.example.org/hl7", file: str(path)})
    (fault,) = error.value.errors()
    assert says in fault["msg"] and "s3cr" not in fault["msg"]


@pytest.mark.parametrize(
    ("url", "path", "says"),
    [
        ("http://ehr.example.org/hl7", "{folder}/token", "go by `https://` alone"),
        ("https://ehr.example.org/hl7", "token", "Write the whole path"),
        ("https://ehr.example.org/hl7", "{folder}/none", "cannot be read"),
    ],
)
def test_a_secret_goes_to_nobody_in_the_clear(tmp_path: Path, url: str, path: str, says: str) -> None:
    (tmp_path / "token").write_text("s3cret")
    with pytest.raises(ValidationError, match=says):
        HttpEndpoint.model_validate({"url": url, "token_file": path.format(folder=tmp_path)})


def test_a_token_and_a_header_of_its_name_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    (tmp_path / "headers").write_text("authorization: Basic s3cret")
    files = {"token_file": str(tmp_path / "token"), "headers_file": str(tmp_path / "headers")}
    with pytest.raises(ValidationError, match="keep one"):
        HttpEndpoint.model_validate({"url": "https://ehr.example.org/hl7", **files})
