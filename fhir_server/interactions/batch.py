"""batch: each entry by itself, one entry's fault never another's (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fhir_server.fhir.bundle import write_bundle
from fhir_server.fhir.outcome import FhirError, Invalid, NotSupported, TimedOut
from fhir_server.interactions.answer_size import Answer
from fhir_server.interactions.entries import Posted, parse_bundle, read_entry
from fhir_server.interactions.provenance import refuse_provenance
from fhir_server.interactions.response_entries import error_to_entry, response_to_entry
from fhir_server.interactions.transaction import transaction
from fhir_server.interactions.write_requests import check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.requests.time_limit import lift
from fhir_server.store.protocol import StoreError

AT_ONCE = 16

# Entries of one kind run side by side; the kinds follow each other in the order that the specification gives.
_ORDER = (("DELETE",), ("POST",), ("PUT", "PATCH"), ("GET", "HEAD"))


_READS = frozenset({"GET", "HEAD"})


async def batch_or_transaction(context: Context, request: Request) -> Response:
    """What a Bundle posted to the base URL asks for, by its type. Preconditions belong into its entries."""
    check_write_request(request)
    refuse_provenance(request)
    if "if-none-exist" in request.headers:
        raise NotSupported("`If-None-Exist` has no meaning for a whole Bundle; give its entries `ifNoneExist`.")
    posted = await context.long_work.run(len(request.body), parse_bundle, context, request)
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
    answer = Answer(context.settings.max_answer)

    # an entry that was written answers as written, and those that come too late answer that they do
    deadline, seconds = lift(), context.settings.request_timeout

    async def process(position: int) -> None:
        try:
            with context.time_limits.end_after(seconds, deadline):
                responses[position] = await _process_entry(context, request, posted, position, answer)
        except TimedOut as error:
            responses[position] = error_to_entry(error)

    async def process_all(positions: Iterator[int]) -> None:
        for position in positions:
            await process(position)
            await asyncio.sleep(0)  # what waits for nothing would keep other requests waiting

    for kind in _ORDER:
        positions = iter([number for number, entry in enumerate(entries) if _get_method(entry) in kind])
        await asyncio.gather(*(process_all(positions) for _ in range(AT_ONCE)))
    for position, done in enumerate(responses):
        if not done:
            await process(position)
    return Response(200, write_bundle({"id": context.new_id(), "type": "batch-response"}, (), responses))


def _get_method(entry: dict[str, Any]) -> str:
    method: str = entry.get("request", {}).get("method", "")
    return method


async def _process_entry(context: Context, request: Request, posted: Posted, position: int, answer: Answer) -> bytes:
    reads = _get_method(posted.entries[position]) in _READS
    try:
        if reads and answer.left <= 0:
            raise answer.build_error()
        entry = read_entry(request, posted, position)
        if entry.request.method == "POST" and not entry.request.path:
            raise Invalid("A batch entry cannot hold another batch or transaction; send that Bundle by itself.")
        response = await context.dispatch(context, entry.request)
        made = response_to_entry(response, entry.request.method, request.get_preference("return"))
        if len(made) > answer.left and not response.location:
            answer.waste(len(made))
            raise answer.build_error()
    except (FhirError, StoreError) as error:
        return error_to_entry(error)
    if len(made) > answer.left:  # it was written, which is told without the resource
        return response_to_entry(response, entry.request.method, "minimal")
    answer.left -= len(made)
    return made
