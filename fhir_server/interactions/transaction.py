"""transaction: all entries or none (https://hl7.org/fhir/R4/http.html#trules)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from fhir_server.fhir.bundle import write_bundle, write_minimal_response_entry, write_response_entry
from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Deleted, FhirError, NotFound, NotSupported, TooCostly
from fhir_server.interactions import read
from fhir_server.interactions.answer_size import Answer
from fhir_server.interactions.entries import Entry, Posted, read_entry
from fhir_server.interactions.patch import parse_patch
from fhir_server.interactions.response_entries import error_to_entry, format_status, response_to_entry
from fhir_server.interactions.search import SearchRequest, build_searchset, read_search
from fhir_server.interactions.write_requests import build_success_outcome, check_write_request, parse_if_none_match_star
from fhir_server.requests.authorisation import audit, authorise
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_if_none_exist
from fhir_server.requests.headers import parse_if_match
from fhir_server.requests.request import Request, Response
from fhir_server.search.parse import Search
from fhir_server.security.access import Reader
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed, Page, ReadFailed, StoreError
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.commit import commit_bundle
from fhir_server.writes.identity import check_id
from fhir_server.writes.resolve_targets import SLICE

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


MOST_SEARCHES = 200
"""Searches of one transaction."""


@dataclass(slots=True)
class EntryGroups:
    """The entries of a transaction, sorted by what they ask for; positions are those in the Bundle."""

    actions: list[Action] = field(default_factory=list)
    reads: dict[int, Entry] = field(default_factory=dict)
    searches: dict[int, tuple[Entry, SearchRequest, Search]] = field(default_factory=dict)
    versions: dict[int, Entry] = field(default_factory=dict)
    authorised: list[tuple[Request, str]] = field(default_factory=list)
    """The entries so far that will be audited, each with the code of its interaction."""


async def transaction(context: Context, request: Request, posted: Posted) -> Response:
    """200 with an entry per entry in request order; any fault refuses the whole and names the entry."""
    groups, status = EntryGroups(), 500
    try:
        response = await _process(context, request, posted, groups)
        status = response.status
        return response
    except FhirError as error:
        status = error.status
        raise
    finally:
        for entry, interaction in groups.authorised:
            audit(context, entry, interaction, status)


async def _process(context: Context, request: Request, posted: Posted, groups: EntryGroups) -> Response:
    for position in range(len(posted.entries)):
        await _add_entry(context, request, groups, read_entry(request, posted, position), position)
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    answer = Answer(context.settings.max_answer)
    answers = {}
    for position, entry in groups.versions.items():
        answers[position] = await _answer_vread(context, entry)
        answer.take(len(answers[position]))
    reader = context.reader(request.caller)
    for entry in groups.reads.values():
        await _refuse_hidden(context, reader, entry)
    await _take_reads(reader, groups, answer)
    most_bytes = answer.left // max(1, len(groups.searches))
    reads = Transaction(
        reads=tuple("/".join(entry.request.path) for entry in groups.reads.values()),
        queries=tuple(
            replace(reader.restrict(parsed.query), most_bytes=most_bytes) for _, _, parsed in groups.searches.values()
        ),
    )
    try:
        outcome = await commit_bundle(context, groups.actions, request.caller, reads)
    except ReadFailed as error:
        raise _build_read_error(groups, error) from None
    answers |= await _answer_reads(context, groups, outcome.committed, answer)
    results = {action.where: result for action, result in zip(groups.actions, outcome.results, strict=True)}
    preference = request.get_preference("return")
    entries = []
    for position in range(len(posted.entries)):
        if position % 1000 == 999:
            await asyncio.sleep(0)
        result = results.get(f"Bundle.entry[{position}]")
        entries.append(_result_to_entry(request, result, preference) if result is not None else answers[position])
    return Response(200, write_bundle({"id": context.new_id(), "type": "transaction-response"}, (), entries))


async def _add_entry(context: Context, request: Request, groups: EntryGroups, entry: Entry, position: int) -> None:
    try:
        if entry.request.method in _WRITES:
            groups.actions.append(entry_to_action(context, groups, entry))
        else:
            await _add_read(context, request, groups, entry, position)
    except FhirError as error:
        raise error.relocate(f"Bundle.entry[{position}]") from None


async def _add_read(context: Context, request: Request, groups: EntryGroups, entry: Entry, position: int) -> None:
    search_request = entry.request
    path = search_request.path
    interaction = _name_read_interaction(path)
    if interaction is None:
        raise NotSupported(
            f"A transaction answers reads, version reads and searches; send `GET {'/'.join(path)}` by itself."
        )
    if path:
        _check_type(context, path[0])
    _authorise(context, groups, search_request, interaction)
    if interaction == "vread":
        groups.versions[position] = entry
    elif interaction == "read":
        read.check_read(context, search_request)
        groups.reads[position] = entry
    else:
        lenient = (request.get_preference("handling") or context.settings.handling) == "lenient"
        search = SearchRequest(path, search_request.query, lenient)
        parsed = await read_search(context, search_request, search)
        if parsed.contained:
            raise NotSupported(
                "A transaction does not look into containers; send the search with `_contained` by itself."
            )
        groups.searches[position] = (entry, search, parsed)


def _name_read_interaction(path: tuple[str, ...]) -> str | None:
    """Which of the reads that a transaction answers a path asks for; None for all others."""
    if len(path) == 4 and path[2] == "_history":
        return "vread"
    if len(path) > 3 or path[:1] == ("metadata",) or any(part.startswith(("$", "_")) for part in path):
        return None
    return ("search-system", "search-type", "read", "search-compartment")[len(path)]


def _authorise(context: Context, groups: EntryGroups, request: Request, interaction: str) -> None:
    if context.audit is not None:
        groups.authorised.append((request, interaction))
    authorise(context, request, interaction)


async def _refuse_hidden(context: Context, reader: Reader, entry: Entry) -> None:
    """Refuse the read of a resource that the policy hides, as one that does not exist."""
    type, id = entry.request.path
    if not context.policy.restricts(entry.request.principal) or await reader.read(type, id) is not None:
        return
    if reader.hides(type) or await context.unrestricted.read(type, id) is not None:
        raise NotFound(
            f"`{type}/{id}` does not exist, so the transaction's read fails.", expression=(entry.request.where,)
        )


def entry_to_action(context: Context, groups: EntryGroups, entry: Entry) -> Action:
    """The write that an entry asks for, checked and authorised. Raises the FhirError of what cannot be done."""
    request = entry.request
    method, path = request.method, request.path
    type = path[0] if path else ""
    _check_type(context, type)
    if len(path) > 2 or (len(path) == 2 and (method == "POST" or path[1].startswith(("$", "_")))):
        raise NotSupported(
            f"A transaction cannot do `{method} {'/'.join(path)}`; it takes create, update, patch, delete and reads."
        )
    id = check_id(path[1]) if len(path) == 2 else None
    _authorise(context, groups, request, _WRITES[method])
    check_write_request(request, criteria=id is None and method != "POST")
    criteria = request.query if id is None and method != "POST" else None
    if method == "POST" and "if-none-exist" in request.headers:
        criteria = parse_if_none_exist(request.headers["if-none-exist"], type)
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
        patch=parse_patch(context, request.headers["content-type"], request.body) if method == "PATCH" else None,
        patch_size=len(request.body) if method == "PATCH" else 0,
        if_match=parse_if_match(request),
        absent=parse_if_none_match_star(request) if method == "PUT" else False,
        full_url=entry.full_url,
        where=request.where,
    )


def _check_type(context: Context, type: str) -> None:
    if type not in context.types:
        raise NotFound(f"`{type}` is no resource type of this server." if type else "The entry's url is empty.")


async def _answer_vread(context: Context, entry: Entry) -> bytes:
    """Versions never change, so they can be read before the writes."""
    try:
        return response_to_entry(await read.vread(context, entry.request), entry.request.method, None)
    except FhirError as error:
        raise error.relocate(entry.request.where) from None


async def _take_reads(reader: Reader, groups: EntryGroups, answer: Answer) -> None:
    """Count what the reads will answer, of what is stored now or written here. Raises TooCostly.

    So do many searches: what each finds is known only after the writes.
    """
    if len(groups.searches) > MOST_SEARCHES:
        raise TooCostly(
            f"The transaction has {len(groups.searches)} searches; {MOST_SEARCHES} are possible. Send them as a batch."
        )
    references = ["/".join(entry.request.path) for entry in groups.reads.values()]
    sizes = {f"{each.type}/{each.id}": len(each.text.raw) for each in groups.actions if each.text is not None}
    stored = [reference for reference in dict.fromkeys(references) if reference not in sizes]
    for start in range(0, len(stored), SLICE):
        read = await reader.read_many(stored[start : start + SLICE])
        sizes |= {reference: len(each.raw or b"") for reference, each in read.items()}
        answer.check(sum(sizes.get(reference, 0) for reference in stored))
    for reference in references:
        answer.take(sizes.get(reference, 0))


async def _answer_reads(
    context: Context, groups: EntryGroups, committed: Committed, answer: Answer
) -> dict[int, bytes]:
    answers = {}
    for (position, entry), stored in zip(groups.reads.items(), committed.found, strict=True):
        answers[position] = response_to_entry(
            read.build_read_response(context, entry.request, stored), entry.request.method, None
        )
    for (position, (entry, search_request, parsed)), page in zip(groups.searches.items(), committed.pages, strict=True):
        answers[position] = await _answer_search(context, entry, search_request, parsed, page)
        try:
            answer.take(len(answers[position]))
        except TooCostly as error:
            answers[position] = error_to_entry(error)
    return answers


async def _answer_search(
    context: Context, entry: Entry, search_request: SearchRequest, parsed: Search, page: Page
) -> bytes:
    """The answer of a search. All is committed by now, so that what fails is told in its entry alone."""
    try:
        body = await build_searchset(context, entry.request, search_request, parsed, page)
    except (FhirError, StoreError) as error:
        return error_to_entry(error)
    return response_to_entry(Response(200, body), entry.request.method, None)


def _result_to_entry(request: Request, done: WriteResult, parsed: str | None) -> bytes:
    status = format_status(done.status)
    if not done.version:
        return write_response_entry({"status": status}, b"")
    etag, last_modified = f'W/"{done.version}"', format_instant(done.last_updated)
    if done.status == 204:
        return write_response_entry({"status": status, "etag": etag, "lastModified": last_modified}, b"")
    location = f"{request.base}/{done.type}/{done.id}/_history/{done.version}"
    if parsed not in ("OperationOutcome", "representation"):
        return write_minimal_response_entry(status, location, done.version, last_modified)
    about: dict[str, object] = {"status": status, "location": location, "etag": etag, "lastModified": last_modified}
    if parsed == "OperationOutcome":
        about["outcome"] = build_success_outcome(done)
    return write_response_entry(about, done.text() if parsed == "representation" else b"")


def _build_read_error(groups: EntryGroups, error: ReadFailed) -> FhirError:
    where = next(
        entry.request.where for entry in groups.reads.values() if "/".join(entry.request.path) == error.reference
    )
    sentence = (
        f"`{error.reference}` {'was deleted' if error.deleted else 'does not exist'}, so the transaction's read fails."
    )
    return (Deleted if error.deleted else NotFound)(sentence, expression=(where,))
