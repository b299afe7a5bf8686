"""Responses as entries of a batch-response or transaction-response (https://hl7.org/fhir/R4/bundle.html#batch-response)."""

from __future__ import annotations

import functools
from http import HTTPStatus

import orjson

from fhir_server.fhir.bundle import response_entry
from fhir_server.fhir.datetimes import instant
from fhir_server.interactions.exchange import Response


@functools.cache
def status_line(status: int) -> str:
    """`201 Created` for 201."""
    return f"{status} {HTTPStatus(status).phrase}"


def response_as_entry(response: Response, method: str, wanted: str | None) -> bytes:
    """A response as an entry of a response Bundle; of a write it holds the resource only where that is asked for."""
    about: dict[str, object] = {"status": status_line(response.status)}
    if response.location:
        about["location"] = response.location
    if response.version:
        about["etag"] = f'W/"{response.version}"'
    if response.last_updated:
        about["lastModified"] = instant(response.last_updated)
    body = b"" if method == "HEAD" else response.body
    if response.location:  # only writes have one
        if wanted == "OperationOutcome" and body:
            about["outcome"] = orjson.loads(body)
        body = body if wanted == "representation" else b""
    return response_entry(about, body)
