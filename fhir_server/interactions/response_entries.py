"""Responses as entries of a batch-response or transaction-response (https://hl7.org/fhir/R4/bundle.html#batch-response)."""

from __future__ import annotations

import functools
from http import HTTPStatus

import orjson

from fhir_server.fhir.bundle import write_response_entry
from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import FhirError, build_operation_outcome
from fhir_server.requests.request import Response
from fhir_server.requests.store_errors import store_error_to_fhir_error
from fhir_server.store.protocol import StoreError


@functools.cache
def format_status(status: int) -> str:
    """`201 Created` for 201."""
    return f"{status} {HTTPStatus(status).phrase}"


def error_to_entry(error: FhirError | StoreError) -> bytes:
    """What went wrong with one entry, its status and outcome; the rest of the bundle is as it is."""
    told = store_error_to_fhir_error(error) if isinstance(error, StoreError) else error
    outcome = build_operation_outcome(told.issues)
    return write_response_entry({"status": format_status(told.status), "outcome": outcome}, b"")


def response_to_entry(response: Response, method: str, wanted: str | None) -> bytes:
    """A response as an entry of a response Bundle; of a write it holds the resource only where that is asked for."""
    about: dict[str, object] = {"status": format_status(response.status)}
    if response.location:
        about["location"] = response.location
    if response.version:
        about["etag"] = f'W/"{response.version}"'
    if response.last_updated:
        about["lastModified"] = format_instant(response.last_updated)
    body = b"" if method == "HEAD" else response.body
    if response.location:  # only writes have one
        if wanted == "OperationOutcome" and body:
            about["outcome"] = orjson.loads(body)
        body = body if wanted == "representation" else b""
    return write_response_entry(about, body)
