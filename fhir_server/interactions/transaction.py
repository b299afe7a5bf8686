"""transaction: all entries or none (https://hl7.org/fhir/R4/http.html#trules)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fhir_server.fhir.bundle import bundle, response_entry, written_entry
from fhir_server.fhir.datetimes import instant
from fhir_server.fhir.outcome import Deleted, FhirError, NotFound, NotSupported
from fhir_server.interactions import read
from fhir_server.interactions.entries import Entry, Posted, entry_at
from fhir_server.interactions.patch import patch_of
from fhir_server.interactions.response_entries import failed_entry, response_as_entry, status_line
from fhir_server.interactions.search import Asked, read_search, searchset
from fhir_server.interactions.write_requests import check_write, must_be_absent, success
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import criteria_pairs
from fhir_server.requests.headers import if_match
from fhir_server.requests.request import Request, Response
from fhir_server.search.parse import Search
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed, Page, ReadFailed, StoreError
from fhir_server.writes.action import Action, Done
from fhir_server.writes.commit import commit_all
from fhir_server.writes.identity import checked_id
from fhir_server.writes.plan import SLICE

_AUTHORISED_AS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class Work:
    """The entries of a transaction, sorted by what they ask for; positions are those in the Bundle."""

    actions: list[Action] = field(default_factory=list)
    reads: dict[int, Entry] = field(default_factory=dict)
    searches: dict[int, tuple[Entry, Asked, Search]] = field(default_factory=dict)
    versions: dict[int, Entry] = field(default_factory=dict)


async def transaction(context: Context, request: Request, posted: Posted) -> Response:
    """200 with an entry per entry in request order; any fault refuses the whole and names the entry."""
    work = Work()
    for position in range(len(posted.entries)):
        await _sort_in(context, request, work, entry_at(request, posted, position), position)
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    answers = {position: await _vread(context, entry) for position, entry in work.versions.items()}
    reads = Transaction(
        reads=tuple("/".join(entry.request.path) for entry in work.reads.values()),
        queries=tuple(wanted.query for _, _, wanted in work.searches.values()),
    )
    try:
        done, committed = await commit_all(context, work.actions, request.base, reads)
    except ReadFailed as error:
        raise _read_failed(work, error) from None
    answers |= await _answers(context, work, committed)
    wanted = request.prefers("return")
    entries = []
    for position in range(len(posted.entries)):
        result = done.get(f"Bundle.entry[{position}]")
        entries.append(_written(request, result, wanted) if result is not None else answers[position])
    return Response(200, bundle({"id": context.new_id(), "type": "transaction-response"}, (), entries))


async def _sort_in(context: Context, request: Request, work: Work, entry: Entry, position: int) -> None:
    try:
        if entry.request.method in _AUTHORISED_AS:
            work.actions.append(_action(context, entry))
        else:
            await _sort_in_get(context, request, work, entry, position)
    except FhirError as error:
        raise error.located(f"Bundle.entry[{position}]") from None


async def _sort_in_get(context: Context, request: Request, work: Work, entry: Entry, position: int) -> None:
    asked = entry.request
    path = asked.path
    interaction = _read_interaction(path)
    if interaction is None:
        raise NotSupported(
            f"A transaction answers reads, version reads and searches; send `GET {'/'.join(path)}` by itself."
        )
    if path:
        _served(context, path[0])
    context.policy.authorise(asked.principal, interaction, path[0] if path else None, path[1] if path[1:] else None)
    if interaction == "vread":
        work.versions[position] = entry
    elif interaction == "read":
        read.check(context, asked)
        work.reads[position] = entry
    else:
        lenient = (request.prefers("handling") or context.settings.handling) == "lenient"
        search = Asked(path, asked.query, lenient)
        wanted = await read_search(context, asked, search)
        if wanted.inside:
            raise NotSupported(
                "A transaction does not look into containers; send the search with `_contained` by itself."
            )
        work.searches[position] = (entry, search, wanted)


def _read_interaction(path: tuple[str, ...]) -> str | None:
    """Which of the reads that a transaction answers a path asks for; None for all others."""
    if len(path) == 4 and path[2] == "_history":
        return "vread"
    if len(path) > 3 or path[:1] == ("metadata",) or any(part.startswith(("$", "_")) for part in path):
        return None
    return "read" if len(path) == 2 else "search"


def _action(context: Context, entry: Entry) -> Action:
    request = entry.request
    method, path = request.method, request.path
    type = path[0] if path else ""
    _served(context, type)
    if len(path) > 2 or (len(path) == 2 and (method == "POST" or path[1].startswith(("$", "_")))):
        raise NotSupported(
            f"A transaction cannot do `{method} {'/'.join(path)}`; it takes create, update, patch, delete and reads."
        )
    id = checked_id(path[1]) if len(path) == 2 else None
    context.policy.authorise(request.principal, _AUTHORISED_AS[method], type, id)
    check_write(request, criteria=id is None and method != "POST")
    criteria = request.query if id is None and method != "POST" else None
    if method == "POST" and "if-none-exist" in request.headers:
        criteria = criteria_pairs(request.headers["if-none-exist"], type)
    text = None
    if method in ("POST", "PUT"):
        text = entry.text
    return Action(
        method,  # type: ignore[arg-type]
        type,
        context.new_id(),
        id=id,
        criteria=criteria,
        text=text,
        patch=patch_of(context, request.headers["content-type"], request.body) if method == "PATCH" else None,
        if_match=if_match(request),
        absent=must_be_absent(request) if method == "PUT" else False,
        full_url=entry.full_url,
        where=request.where,
    )


def _served(context: Context, type: str) -> None:
    if type not in context.types:
        raise NotFound(f"`{type}` is no resource type of this server." if type else "The entry's url is empty.")


async def _vread(context: Context, entry: Entry) -> bytes:
    """Versions never change, so they can be read before the writes."""
    try:
        return response_as_entry(await read.vread(context, entry.request), entry.request.method, None)
    except FhirError as error:
        raise error.located(entry.request.where) from None


async def _answers(context: Context, work: Work, committed: Committed) -> dict[int, bytes]:
    answers = {}
    for (position, entry), stored in zip(work.reads.items(), committed.found, strict=True):
        answers[position] = response_as_entry(read.answer(context, entry.request, stored), entry.request.method, None)
    for (position, (entry, asked, wanted)), page in zip(work.searches.items(), committed.pages, strict=True):
        answers[position] = await _found(context, entry, asked, wanted, page)
    return answers


async def _found(context: Context, entry: Entry, asked: Asked, wanted: Search, page: Page) -> bytes:
    """The answer of a search. All is committed by now, so that what fails is told in its entry alone."""
    try:
        body = await searchset(context, entry.request, asked, wanted, page)
    except (FhirError, StoreError) as error:
        return failed_entry(error)
    return response_as_entry(Response(200, body), entry.request.method, None)


def _written(request: Request, done: Done, wanted: str | None) -> bytes:
    status = status_line(done.status)
    if not done.version:
        return response_entry({"status": status}, b"")
    etag, last_modified = f'W/"{done.version}"', instant(done.last_updated)
    if done.status == 204:
        return response_entry({"status": status, "etag": etag, "lastModified": last_modified}, b"")
    location = f"{request.base}/{done.type}/{done.id}/_history/{done.version}"
    if wanted not in ("OperationOutcome", "representation"):
        return written_entry(status, location, done.version, last_modified)
    about: dict[str, object] = {"status": status, "location": location, "etag": etag, "lastModified": last_modified}
    if wanted == "OperationOutcome":
        about["outcome"] = success(done)
    return response_entry(about, done.text() if wanted == "representation" else b"")


def _read_failed(work: Work, error: ReadFailed) -> FhirError:
    where = next(
        entry.request.where for entry in work.reads.values() if "/".join(entry.request.path) == error.reference
    )
    sentence = (
        f"`{error.reference}` {'was deleted' if error.deleted else 'does not exist'}, so the transaction's read fails."
    )
    return (Deleted if error.deleted else NotFound)(sentence, expression=(where,))
