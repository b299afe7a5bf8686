"""batch: each entry by itself, one entry's fault never another's (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import asyncio
from typing import Any

from fhir_server.fhir.bundle import write_bundle
from fhir_server.fhir.outcome import FhirError, Invalid, NotSupported
from fhir_server.interactions.entries import Posted, parse_bundle, read_entry
from fhir_server.interactions.response_entries import error_to_entry, response_to_entry
from fhir_server.interactions.transaction import transaction
from fhir_server.interactions.write_requests import check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.store.protocol import StoreError

AT_ONCE = 16

# Entries of one kind run side by side; the kinds follow each other in the order that the specification gives.
_ORDER = (("DELETE",), ("POST",), ("PUT", "PATCH"), ("GET", "HEAD"))


async def batch_or_transaction(context: Context, request: Request) -> Response:
    """What a Bundle posted to the base URL asks for, by its type. Preconditions belong into its entries."""
    check_write_request(request)
    if "if-none-exist" in request.headers:
        raise NotSupported("`If-None-Exist` has no meaning for a whole Bundle; give its entries `ifNoneExist`.")
    posted = parse_bundle(context, request)
    kind = posted.type
    if kind == "transaction":
        return await transaction(context, request, posted)
    if kind == "batch":
        return await batch(context, request, posted)
    raise Invalid(
        f"A Bundle of type `{kind}` cannot be processed here, only `batch` and `transaction`; "
        f"to store it as it is, POST it to `{request.base}/Bundle`.",
        code="value",
        expression=("Bundle.type",),
    )


async def batch(context: Context, request: Request, posted: Posted) -> Response:
    """200 with an entry per entry, each with its own status and, where it failed, its outcome."""
    entries = posted.entries
    responses: list[bytes] = [b""] * len(entries)
    gate = asyncio.Semaphore(AT_ONCE)

    async def process(position: int) -> None:
        async with gate:
            responses[position] = await _process_entry(context, request, posted, position)

    for kind in _ORDER:
        positions = [number for number, entry in enumerate(entries) if _get_method(entry) in kind]
        await asyncio.gather(*(process(position) for position in positions))
    for position, done in enumerate(responses):
        if not done:
            await process(position)
    return Response(200, write_bundle({"id": context.new_id(), "type": "batch-response"}, (), responses))


def _get_method(entry: dict[str, Any]) -> str:
    method: str = entry.get("request", {}).get("method", "")
    return method


async def _process_entry(context: Context, request: Request, posted: Posted, position: int) -> bytes:
    try:
        entry = read_entry(request, posted, position)
        if entry.request.method == "POST" and not entry.request.path:
            raise Invalid("A batch entry cannot hold another batch or transaction; send that Bundle by itself.")
        response = await context.dispatch(context, entry.request)
    except (FhirError, StoreError) as error:
        return error_to_entry(error)
    return response_to_entry(response, entry.request.method, request.get_preference("return"))
