"""search by GET and POST, in a type, the system or a compartment (https://hl7.org/fhir/R4/http.html#search)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from fhir_server.fhir.bundle import bundle, outcome_entry, search_entry
from fhir_server.fhir.datetimes import instant
from fhir_server.fhir.outcome import Invalid, NotFound, NotSupported, UnsupportedMediaType, operation_outcome
from fhir_server.fhir.references import versioned_references
from fhir_server.fhir.subset import subset
from fhir_server.interactions.contained import Found, Reading, search_inside
from fhir_server.interactions.exchange import Context, Pairs, Request, Response, pairs_of
from fhir_server.interactions.explain import explains, explanation, milliseconds
from fhir_server.interactions.reading import read_pairs
from fhir_server.interactions.shaping import check_elements
from fhir_server.search.compartment import compartment_clause, compartment_types
from fhir_server.search.contained import Contained
from fhir_server.search.entries import Entries
from fhir_server.search.include import included
from fhir_server.search.paging import open_token, seal
from fhir_server.search.parse import ELSEWHERE, Search, system_types
from fhir_server.search.query import And, Query, Scope, SortKey
from fhir_server.search.result import Options
from fhir_server.search.words import score
from fhir_server.store.protocol import Page, Stored

PAGE = "__page"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Asked:
    """A search as asked for: where (`path`, the segments without `_search`), with which pairs, from which position."""

    path: tuple[str, ...]
    pairs: Pairs
    lenient: bool
    after: SortKey | None = None


async def search(context: Context, request: Request) -> Response:
    """200 with a searchset; unknown parameters are 400 unless handling is lenient."""
    asked = _asked(context, request)
    wanted = await read_search(context, request, asked)
    page = await _page(context, request, wanted)
    return Response(200, await searchset(context, request, asked, wanted, page))


async def _page(context: Context, request: Request, wanted: Search) -> Page | Found:
    if wanted.inside:
        reading = Reading(functools.partial(context.index.entries, base=request.base), context.types)
        return await search_inside(context.store, wanted.query, wanted.inside, reading)
    if wanted.query.count == 0:
        return Page((), None)
    return await context.store.search(wanted.query)


def _asked(context: Context, request: Request) -> Asked:
    pairs = request.query
    path = tuple(segment for segment in request.path if segment != "_search")
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.body and kind != FORM:
            raise UnsupportedMediaType(f"A search by POST has a body of type `{FORM}`; this one is `{kind}`.")
        pairs = (*pairs, *form_pairs(request.body))
    handling = request.prefers("handling") or context.settings.handling
    token = dict(pairs).get(PAGE)
    if token is None:
        return Asked(path, pairs, handling == "lenient")
    if any(name not in ELSEWHERE and name != PAGE for name, _ in pairs):
        raise Invalid(f"A page link carries its whole search; `{PAGE}` cannot be combined with other parameters.")
    return _continued(context, path, token)


def form_pairs(body: bytes) -> Pairs:
    """The parameters in the body of a search by POST. Raises Invalid for what is not form-encoded UTF-8."""
    try:
        return pairs_of(body.decode())
    except (UnicodeDecodeError, Invalid):
        raise Invalid("The search form in the body is not UTF-8 text in form encoding.", code="structure") from None


def _continued(context: Context, path: tuple[str, ...], token: str) -> Asked:
    payload = open_token(context.page_key, token, context.clock() // 1_000_000)
    if tuple(payload["path"]) != path:
        raise Invalid("This page link belongs to another URL; follow links as they are.", code="value")
    pairs = tuple((name, value) for name, value in payload["pairs"])
    return Asked(path, pairs, payload["lenient"], tuple(payload["after"]))


async def read_search(context: Context, request: Request, asked: Asked) -> Search:
    """The parsed search with compartment, policy and page position added."""
    options = Options(asked.lenient, context.settings.default_count, context.settings.max_count)
    types = _types(context, asked)
    wanted = await read_pairs(context, types, asked.pairs, request.base, options)
    inside = wanted.inside
    check_elements(context, context.registry.types if inside and not inside.alone else types, wanted.elements)
    scopes = tuple(_restricted(context, request, asked, scope) for scope in wanted.query.scopes)
    if inside:
        if len(asked.path) == 3:
            raise NotSupported(
                "Contained resources belong to no compartment of their own, so `_contained` cannot be applied here; "
                f"search `{asked.path[2]}` itself."
            )
        containers = tuple(_restricted(context, request, asked, scope) for scope in inside.containers)
        inside = replace(inside, containers=containers)
    return replace(wanted, query=replace(wanted.query, scopes=scopes, after=asked.after), inside=inside)


def _types(context: Context, asked: Asked) -> tuple[str, ...]:
    path = asked.path
    if len(path) == 1:
        return (path[0],)
    if not path:
        return system_types(asked.pairs, context.registry)
    if path[2] != "*":
        return (path[2],)
    within = compartment_types(context.definitions, path[0])
    listed = system_types(asked.pairs, context.registry)
    outside = [type for type in listed if type not in within]
    if outside and listed != context.registry.types:
        raise Invalid(f"`_type` names `{outside[0]}`, which is not in the {path[0]} compartment.", code="value")
    return tuple(type for type in listed if type in within)


def _restricted(context: Context, request: Request, asked: Asked, scope: Scope) -> Scope:
    clauses = [scope.where]
    if len(asked.path) == 3:
        clauses.append(compartment_clause(context.definitions, asked.path[0], asked.path[1], scope.type))
    restriction = context.policy.restriction(request.principal, scope.type)
    if restriction != And():
        clauses.append(restriction)
    return scope if len(clauses) == 1 else Scope(scope.type, And(tuple(clauses)))


async def searchset(context: Context, request: Request, asked: Asked, wanted: Search, page: Page | Found) -> bytes:
    """The Bundle of a page: matches, what they include, warnings, links and the total where it is due."""
    explained, started = explains(request, asked.pairs), time.perf_counter()
    extra: Sequence[Stored | Contained] = ()
    if wanted.includes and page.matches:
        extra = await _included(context, request.base, wanted, page.matches)
    steps = (f"Including {len(extra)} resources took {milliseconds(started)}.",) if explained else ()
    if explained and isinstance(page, Found):
        steps = (f"{page.looked} containers were looked into; they give {page.inside} matches.", *steps)
    shape = functools.partial(_shape, context, wanted)
    if len(page.matches) + len(extra) > 500 or wanted.elements or wanted.summary:
        await asyncio.sleep(0)
    entries = [
        search_entry(request.base, found.reference, shape(found), "match", _score(context, wanted, found))
        for found in page.matches
    ]
    entries += [search_entry(request.base, found.reference, shape(found), "include") for found in extra]
    if wanted.issues:
        entries.append(outcome_entry(operation_outcome(wanted.issues)))
    if explained:
        entries.append(await explanation(context, request, wanted, steps))
    meta = {"lastUpdated": instant(context.clock())}
    head: dict[str, Any] = {"id": context.new_id(), "meta": meta, "type": "searchset"}
    total = await _total(context, wanted, page)
    if total is not None:
        head["total"] = total
    return bundle(head, _links(context, request, asked, wanted, page), entries)


async def _included(
    context: Context, base: str, wanted: Search, matches: Sequence[Stored | Contained]
) -> Sequence[Stored | Contained]:
    """What the includes add; of a resource that is referred to by its version alone, that version."""
    entries_of = functools.partial(_entries, context, base)
    limit = context.settings.max_included
    extra = await included(context.store, entries_of, matches, wanted.includes, context.registry, limit)
    if all(include.reverse for include in wanted.includes):
        return extra
    named: dict[str, int] = {}
    for source in (*matches, *extra):
        if b"/_history/" in (source.raw or b""):
            named = versioned_references(orjson.loads(source.raw or b"{}"), base, context.types) | named
    if not named:
        return extra
    current = {reference for source in (*matches, *extra) for reference in entries_of(source).references}
    return [
        await _version(context, each, named[each.reference])
        if each.reference in named and each.reference not in current
        else each
        for each in extra
    ]


async def _version(context: Context, found: Stored | Contained, number: int) -> Stored | Contained:
    """That version of an included resource, or the resource as it was found where there is no such version."""
    older = await context.store.vread(found.type, found.id, number)
    return older if older is not None and older.raw is not None else found


def _entries(context: Context, base: str, stored: Stored | Contained) -> Entries:
    return context.index.entries(stored.type, orjson.loads(stored.raw or b"{}"), base)


def _score(context: Context, wanted: Search, stored: Stored | Contained) -> float | None:
    """How well a match answers what was searched in texts; None where nothing was."""
    if not wanted.words:
        return None
    return score(wanted.words, context.index.texts(orjson.loads(stored.raw or b"{}")))


def _shape(context: Context, wanted: Search, stored: Stored | Contained) -> bytes:
    assert stored.raw is not None
    summary = wanted.summary if wanted.summary in ("true", "text", "data") else None
    if summary is None and not wanted.elements:
        return stored.raw
    return subset(stored.raw, stored.type, context.definitions, summary, wanted.elements)


async def _total(context: Context, wanted: Search, page: Page | Found) -> int | None:
    """Given when it is asked for, or known because all matches are on this page."""
    query: Query = wanted.query
    if query.count == 0 or wanted.total in ("accurate", "estimate"):
        return await context.store.count(query) + (page.inside if isinstance(page, Found) else 0)
    if wanted.total is None and page.next is None and query.after is None:
        return len(page.matches)
    return None


def _links(
    context: Context, request: Request, asked: Asked, wanted: Search, page: Page | Found
) -> list[tuple[str, str]]:
    url = "/".join((request.base, *asked.path))
    links = [("self", f"{url}?{urlencode(wanted.applied, safe=':,|$/', quote_via=quote)}" if wanted.applied else url)]
    if page.next is not None:
        payload = {
            "path": asked.path,
            "pairs": asked.pairs,
            "lenient": asked.lenient,
            "after": page.next,
            "expires": context.clock() // 1_000_000 + context.settings.page_lifetime,
        }
        links.append(("next", f"{url}?{PAGE}={seal(context.page_key, payload)}"))
    return links


async def compartment_search(context: Context, request: Request) -> Response:
    """A search among the resources of a compartment, such as `Patient/1/Observation` or `Patient/1/*`."""
    type = request.path[0]
    if type not in context.definitions.compartments:
        raise NotFound(
            f"There is no compartment `{type}`; compartments are {', '.join(sorted(context.definitions.compartments))}."
        )
    return await search(context, request)
