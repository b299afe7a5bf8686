"""search by GET and POST, in a type, the system or a compartment (https://hl7.org/fhir/R4/http.html#search)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from fhir_server.fhir.bundle import write_bundle, write_outcome_entry, write_search_entry
from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import (
    Invalid,
    NotFound,
    NotSupported,
    TooCostly,
    UnsupportedMediaType,
    build_operation_outcome,
)
from fhir_server.fhir.references import find_literal_references, find_versioned_references
from fhir_server.fhir.subset import write_subset
from fhir_server.interactions.contained import ContainedPage, ContainerReading, search_contained
from fhir_server.interactions.explain import build_explanation, format_elapsed, wants_explanation
from fhir_server.interactions.summary import check_elements, is_lenient
from fhir_server.requests.context import Context
from fhir_server.requests.merges import include_priors, read_priors
from fhir_server.requests.page_links import PAGE, Place, build_next_link, check_added, open_page_link, replace_pairs
from fhir_server.requests.parse_search import parse_search
from fhir_server.requests.request import Caller, Pairs, Request, Response, parse_query
from fhir_server.search.compartment import build_compartment_clause, list_member_types
from fhir_server.search.contained import Contained
from fhir_server.search.entries import Entries
from fhir_server.search.include import Limits, find_includes
from fhir_server.search.parse import Search, list_system_types
from fhir_server.search.query import And, Query, Scope, SortKey
from fhir_server.search.result_parameters import Options
from fhir_server.search.words import score
from fhir_server.security.access import Reader
from fhir_server.store.protocol import Page, Stored

FORM = "application/x-www-form-urlencoded"

MOST_FORM = 256 * 1024
"""Bytes of the body of a search by POST."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a request searches: `path` (its segments without `_search`), the pairs, and the position to go on from."""

    path: tuple[str, ...]
    pairs: Pairs
    lenient: bool
    after: SortKey | None = None


async def search(context: Context, request: Request) -> Response:
    """200 with a searchset; unknown parameters are 400 unless handling is lenient."""
    search_request = _parse_request(context, request)
    parsed = await read_search(context, request, search_request)
    page = await _read_page(context, request, parsed)
    return Response(200, await build_searchset(context, request, search_request, parsed, page))


async def _read_page(context: Context, request: Request, parsed: Search) -> Page | ContainedPage:
    if parsed.contained:
        index = functools.partial(context.index.make_entries, base=request.base)
        reading = ContainerReading(index, context.types, context.long_work)
        return await search_contained(context.reader(request.caller), parsed.query, parsed.contained, reading)
    if parsed.query.count == 0:
        return Page((), None)
    return await context.reader(request.caller).search(parsed.query)


def _parse_request(context: Context, request: Request) -> SearchRequest:
    pairs = request.query
    path = tuple(segment for segment in request.path if segment != "_search")
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.body and kind != FORM:
            raise UnsupportedMediaType(f"A search by POST has a body of type `{FORM}`; this one is `{kind}`.")
        pairs = (*pairs, *parse_form(request.body))
    token = dict(pairs).get(PAGE)
    if token is None:
        return SearchRequest(path, pairs, is_lenient(context, request))
    return _continue_search(context, Place(path, request.principal), token, check_added(pairs))


def parse_form(body: bytes) -> Pairs:
    """The parameters in the body of a search by POST. Raises Invalid for what is not form-encoded UTF-8."""
    if len(body) > MOST_FORM:
        raise TooCostly(
            f"The search form in the body has {len(body):,} bytes, more than the {MOST_FORM:,} that one search may "
            "have; search in several steps."
        )
    try:
        return parse_query(body.decode())
    except (UnicodeDecodeError, Invalid):
        raise Invalid("The search form in the body is not UTF-8 text in form encoding.", code="structure") from None


def _continue_search(context: Context, place: Place, token: str, added: Pairs) -> SearchRequest:
    state = open_page_link(context, place, token)
    pairs = tuple((name, value) for name, value in state["pairs"])
    return SearchRequest(place.path, replace_pairs(pairs, added), state["lenient"], tuple(state["after"]))


async def read_search(context: Context, request: Request, search_request: SearchRequest) -> Search:
    """The parsed search with compartment and page position added."""
    options = Options(search_request.lenient, context.settings.default_count, context.settings.max_count)
    types = _find_types(context, search_request)
    parsed = await parse_search(context, types, search_request.pairs, request.caller, options)
    inside = parsed.contained
    check_elements(
        context, context.registry.types if inside and not inside.without_containers else types, parsed.elements
    )
    scopes = tuple(_restrict_to_compartment(context, search_request, scope) for scope in parsed.query.scopes)
    if inside:
        if len(search_request.path) == 3:
            raise NotSupported(
                "Contained resources belong to no compartment of their own, so `_contained` cannot be applied here; "
                f"search `{search_request.path[2]}` itself."
            )
        containers = tuple(_restrict_to_compartment(context, search_request, scope) for scope in inside.containers)
        inside = replace(inside, containers=containers)
    if context.partners and (priors := await read_priors(context)):
        reader = context.reader(request.caller)
        scopes = tuple([Scope(each.type, await include_priors(reader, each.where, priors)) for each in scopes])
    most_bytes = None if inside else context.settings.max_answer
    query = replace(parsed.query, scopes=scopes, after=search_request.after, most_bytes=most_bytes)
    return replace(parsed, query=query, contained=inside)


def _find_types(context: Context, search_request: SearchRequest) -> tuple[str, ...]:
    path = search_request.path
    if len(path) == 1:
        return (path[0],)
    if not path:
        return list_system_types(search_request.pairs, context.registry)
    if path[2] != "*":
        return (path[2],)
    within = list_member_types(context.definitions, path[0])
    listed = list_system_types(search_request.pairs, context.registry)
    outside = [type for type in listed if type not in within]
    if outside and listed != context.registry.types:
        raise Invalid(f"`_type` names `{outside[0]}`, which is not in the {path[0]} compartment.", code="value")
    return tuple(type for type in listed if type in within)


def _restrict_to_compartment(context: Context, search_request: SearchRequest, scope: Scope) -> Scope:
    path = search_request.path
    if len(path) != 3:
        return scope
    return Scope(
        scope.type, And((scope.where, build_compartment_clause(context.definitions, path[0], path[1], scope.type)))
    )


async def build_searchset(
    context: Context, request: Request, search_request: SearchRequest, parsed: Search, page: Page | ContainedPage
) -> bytes:
    """The searchset Bundle of a page: matches, included resources, warnings, links and the total."""
    explain, started = wants_explanation(request, search_request.pairs), time.perf_counter()
    extra: Sequence[Stored | Contained] = ()
    if parsed.includes and page.matches:
        extra = await _add_includes(context, request.caller, parsed, page.matches)
    steps = (f"Including {len(extra)} resources took {format_elapsed(started)}.",) if explain else ()
    if explain and isinstance(page, ContainedPage):
        steps = (f"{page.container_count} containers were looked into; they give {page.inside} matches.", *steps)
    shape = functools.partial(_apply_shape, context, parsed)
    if len(page.matches) + len(extra) > 500 or parsed.elements or parsed.summary:
        await asyncio.sleep(0)
    entries: list[bytes] = []
    for found in page.matches:
        score_of_match = await _score_words(context, parsed, found)
        entries.append(write_search_entry(request.base, found.reference, await shape(found), "match", score_of_match))
    for found in extra:
        entries.append(write_search_entry(request.base, found.reference, await shape(found), "include"))
    if parsed.issues:
        entries.append(write_outcome_entry(context.new_id(), build_operation_outcome(parsed.issues)))
    if explain:
        entries.append(await build_explanation(context, request, parsed, steps))
    meta = {"lastUpdated": format_instant(context.clock())}
    head: dict[str, Any] = {"id": context.new_id(), "meta": meta, "type": "searchset"}
    total = await _count_total(context.reader(request.caller), parsed, page)
    if total is not None:
        head["total"] = total
    return write_bundle(head, _build_links(context, request, search_request, parsed, page), entries)


async def _add_includes(
    context: Context, caller: Caller, parsed: Search, matches: Sequence[Stored | Contained]
) -> Sequence[Stored | Contained]:
    """The resources that the includes add; a resource that is referred to by version alone comes in that version."""
    make_entries = functools.partial(
        context.long_work.run_each, functools.partial(_index_entries, context, caller.base)
    )
    reader = context.reader(caller)
    limits = Limits(context.settings.max_included, context.settings.max_answer)
    extra = await find_includes(reader, make_entries, matches, parsed.includes, context.registry, limits)
    if all(include.reverse for include in parsed.includes):
        return extra
    bases, sources = context.bases.include(caller.base), (*matches, *extra)

    def list_versioned(source: Stored | Contained) -> dict[str, int]:
        return find_versioned_references(orjson.loads(source.raw or b"{}"), bases, context.types)

    def list_current(source: Stored | Contained) -> tuple[str, ...]:
        return find_literal_references(orjson.loads(source.raw or b"{}"), bases, context.types)

    versioned = [source for source in sources if b"/_history/" in (source.raw or b"")]
    named: dict[str, int] = {}
    for versions in await context.long_work.run_each(list_versioned, versioned):
        for reference, number in versions.items():
            named.setdefault(reference, number)
    if not named:
        return extra
    current = set(chain.from_iterable(await context.long_work.run_each(list_current, sources)))
    return [
        await _read_version(reader, each, named[each.reference])
        if each.reference in named and each.reference not in current
        else each
        for each in extra
    ]


async def _read_version(reader: Reader, found: Stored | Contained, number: int) -> Stored | Contained:
    """That version of an included resource, or the resource as it was found where there is no such version."""
    older = await reader.vread(found.type, found.id, number)
    return older if older is not None and older.raw is not None else found


def _index_entries(context: Context, base: str, stored: Stored | Contained) -> Entries:
    return context.index.make_entries(stored.type, orjson.loads(stored.raw or b"{}"), base)


async def _score_words(context: Context, parsed: Search, stored: Stored | Contained) -> float | None:
    """The relevance of a full-text match, 0 to 1; None for a search without words."""
    if not parsed.words:
        return None
    raw = stored.raw or b"{}"
    texts = await context.long_work.run(len(raw), lambda: context.index.make_texts(orjson.loads(raw)))
    return score(parsed.words, texts)


async def _apply_shape(context: Context, parsed: Search, stored: Stored | Contained) -> bytes:
    assert stored.raw is not None
    summary = parsed.summary if parsed.summary in ("true", "text", "data") else None
    if summary is None and not parsed.elements:
        return stored.raw
    await asyncio.sleep(0)
    size = len(stored.raw)
    return await context.long_work.run(
        size, write_subset, stored.raw, stored.type, context.definitions, summary, parsed.elements
    )


async def _count_total(reader: Reader, parsed: Search, page: Page | ContainedPage) -> int | None:
    """The total when `_total` asks for it, or when it is known because all matches are on this page; else None."""
    query: Query = parsed.query
    if query.count == 0 or parsed.total in ("accurate", "estimate"):
        return await reader.count(query) + (page.inside if isinstance(page, ContainedPage) else 0)
    if parsed.total is None and page.next is None and query.after is None:
        return len(page.matches)
    return None


def _build_links(
    context: Context, request: Request, search_request: SearchRequest, parsed: Search, page: Page | ContainedPage
) -> list[tuple[str, str]]:
    url = "/".join((request.base, *search_request.path))
    first = f"{url}?{urlencode(parsed.applied, safe=':,|$/', quote_via=quote)}" if parsed.applied else url
    links = [("self", first)]
    if search_request.after is not None:
        links.append(("first", first))
    if page.next is not None:
        state = {"pairs": search_request.pairs, "lenient": search_request.lenient, "after": page.next}
        links.append(build_next_link(context, url, Place(search_request.path, request.principal), state))
    return links


async def compartment_search(context: Context, request: Request) -> Response:
    """A search among the resources of a compartment, such as `Patient/1/Observation` or `Patient/1/*`."""
    type = request.path[0]
    if type not in context.definitions.compartments:
        raise NotFound(
            f"There is no compartment `{type}`; compartments are {', '.join(sorted(context.definitions.compartments))}."
        )
    return await search(context, request)
