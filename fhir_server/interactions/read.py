"""read and vread, conditional read included (https://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Deleted, FhirError, NotFound
from fhir_server.interactions.summary import apply_shape, parse_shape
from fhir_server.requests.context import Context
from fhir_server.requests.headers import is_not_modified, parse_if_modified_since, parse_if_none_match
from fhir_server.requests.request import Request, Response
from fhir_server.store.protocol import Stored


async def read(context: Context, request: Request) -> Response:
    """The current version: 404 when it never existed, 410 when it was deleted."""
    type, id = request.path
    stored = await context.reader(request.caller).read(type, id)
    if stored is None:
        raise NotFound(f"`{type}/{id}` does not exist on this server.")
    if stored.raw is None:
        raise build_deleted_error(stored)
    return build_read_response(context, request, stored)


async def vread(context: Context, request: Request) -> Response:
    """One version: 404 when there is no such version, 410 when it is a deletion."""
    type, id, _, version = request.path
    stored = await context.reader(request.caller).vread(type, id, parse_version(version))
    if stored is None:
        raise NotFound(f"`{type}/{id}` has no version `{version}`; `{type}/{id}/_history` lists the versions.")
    if stored.raw is None:
        raise build_deleted_error(stored)
    return build_read_response(context, request, stored)


def check_read(context: Context, request: Request) -> None:
    """Refuse a read whose parameters or headers are at fault, whatever is stored: what `answer` would raise later."""
    if request.query:
        parse_shape(context, request, request.path[0])
    if parse_if_none_match(request) is None:
        parse_if_modified_since(request)


def parse_version(text: str) -> int:
    """The number of a version id; 0, which no version has, for a text that is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def build_deleted_error(stored: Stored) -> FhirError:
    """410, with the deletion's version as ETag."""
    return Deleted(
        f"`{stored.type}/{stored.id}` was deleted (version {stored.version}); its history has earlier versions.",
        headers=(("ETag", f'W/"{stored.version}"'),),
    )


def build_read_response(context: Context, request: Request, stored: Stored) -> Response:
    """200 with the resource as `_summary` and `_elements` ask for it, or 304."""
    headers = request.headers
    if ("if-none-match" in headers or "if-modified-since" in headers) and is_not_modified(
        request, stored.version, stored.last_updated
    ):
        return Response(304, version=stored.version, last_updated=stored.last_updated)
    assert stored.raw is not None
    body = apply_shape(context, request, stored.type, stored.raw) if request.query else stored.raw
    return Response(200, body, version=stored.version, last_updated=stored.last_updated)
