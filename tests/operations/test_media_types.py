"""Operations whose body or answer is no FHIR JSON: what the table says decides content negotiation, 406 and 415."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_server.api.negotiation import choose_media_type
from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import NotAcceptable
from fhir_server.fhir.urls import operation_url
from fhir_server.operations import OPERATIONS
from fhir_server.operations.operation import ANY, Operation
from fhir_server.requests.context import Context
from fhir_server.requests.request import FHIR_JSON, Request, Response
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

ER7 = "x-application/hl7-v2+er7"
CSV = "text/csv"


async def echo(context: Context, request: Request) -> Response:
    """The body as it came, under the media type that was chosen; as a Parameters where that is FHIR JSON."""
    if request.media_type == FHIR_JSON:
        return Response(200, b'{"resourceType":"Parameters"}')
    return Response(200, request.body or b"a,b\r\n", content_type=request.media_type)


ECHO = Operation(
    "echo", ("GET", "POST"), operation_url("echo"), "Echoes.", echo, at={ANY: ("system",)},
    takes=(ER7, FHIR_JSON), gives=(CSV, ER7, FHIR_JSON),
)  # fmt: skip


@pytest.fixture
async def echoing(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setitem(OPERATIONS, "echo", ECHO)
    async with serving(known, store="memory://") as client:
        yield client


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (None, CSV),
        ("*/*", CSV),
        (ER7, ER7),
        (f"{CSV};q=0.5, {ER7}", ER7),
        ("text/*", CSV),
        ("application/json", FHIR_JSON),
        (FHIR_JSON, FHIR_JSON),
        (f"image/png, {FHIR_JSON};q=0.1", FHIR_JSON),
    ],
)
async def test_accept_chooses_among_what_the_operation_gives(echoing: Client, accept: str | None, given: str) -> None:
    answer = await echoing.fhir("GET", "$echo", headers={"accept": accept} if accept else {"accept": "*/*"})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, given)


async def test_format_wins_over_accept(echoing: Client) -> None:
    answer = await echoing.fhir("GET", "$echo?_format=json", headers={"accept": CSV})
    assert answer.headers["content-type"].startswith(FHIR_JSON)
    answer = await echoing.fhir("GET", "$echo?_format=x-application/hl7-v2%2Ber7")
    assert answer.headers["content-type"] == ER7


async def test_what_is_not_given_is_406_and_lists_what_is(echoing: Client) -> None:
    answer = await echoing.fhir("GET", "$echo", headers={"accept": "application/pdf"})
    assert answer.status_code == 406
    assert answer.headers["content-type"].startswith(FHIR_JSON)
    assert f"`{CSV}`, `{ER7}`, `{FHIR_JSON}`" in answer.json()["issue"][0]["diagnostics"]


async def test_a_body_comes_byte_for_byte(echoing: Client) -> None:
    message = "MSH|^~\\&|A|B\rPID|1||M\u00fcller\r".encode("latin-1")
    answer = await echoing.fhir("POST", "$echo", content=message, headers={"content-type": ER7, "accept": ER7})
    assert answer.content == message


@pytest.mark.parametrize("kind", [CSV, "text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_of_another_type_is_415_and_lists_what_is_taken(echoing: Client, kind: str | None) -> None:
    answer = await echoing.fhir("POST", "$echo", content=b"x", headers={"content-type": kind} if kind else {})
    if kind is None:
        assert "no Content-Type" in answer.json()["issue"][0]["diagnostics"]
    assert answer.status_code == 415
    assert kind is None or f"`{ER7}`, `{FHIR_JSON}`" in answer.json()["issue"][0]["diagnostics"]


async def test_other_operations_answer_fhir_json_alone(echoing: Client) -> None:
    answer = await echoing.fhir("GET", "$reindex", headers={"accept": CSV})
    assert answer.status_code == 406


def test_a_quality_of_zero_refuses() -> None:
    with pytest.raises(NotAcceptable):
        choose_media_type(f"{CSV};q=0", None, (CSV,))
