"""`$everything` of a patient or an encounter (https://hl7.org/fhir/R4/patient-operation-everything.html).

The resources of the compartment are matches; what they refer to outside of it is included with the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

import orjson

from fhir_server.fhir.bundle import write_bundle, write_search_entry
from fhir_server.fhir.datetimes import format_instant, parse_interval
from fhir_server.fhir.outcome import Invalid, NotFound, TooCostly
from fhir_server.fhir.references import BaseUrls, find_literal_references, find_local_target
from fhir_server.interactions.read import build_deleted_error
from fhir_server.operations.parameters import parse_parameters, parse_positive_integer
from fhir_server.requests.context import Context
from fhir_server.requests.page_links import PAGE, Place, build_next_link, check_added, open_page_link, replace_pairs
from fhir_server.requests.request import Pairs, Request, Response
from fhir_server.search.compartment import ITSELF, build_compartment_clause, list_member_types
from fhir_server.search.query import (
    EVERYTHING,
    And,
    Bound,
    Clause,
    DateRange,
    LastUpdated,
    Not,
    Or,
    Present,
    Query,
    Scope,
    SortKey,
    StartsWith,
)
from fhir_server.search.simplify import simplify_or
from fhir_server.security.access import Reader
from fhir_server.store.protocol import Page, Stored

PARAMETERS = ("start", "end", "_since", "_type", "_count")

# When care was given, per type; in order of preference. Types with none of these are always in scope.
CARE_DATES = (
    *(
        "date",
        "period",
        "effective",
        "effective-time",
        "onset-date",
        "occurrence",
        "event-date",
        "started",
        "start-date",
    ),
    *("collected", "whenhandedover", "sent", "identified", "authored", "authoredon", "authored-on", "datewritten"),
    *("datetime", "created", "recorded"),
)
# These have `date` or `onset` for something else, or are no care themselves.
_CARE_DATE_OF = {"AllergyIntolerance": "onset", "MedicationRequest": "authoredon", "Invoice": "date"}
_NO_CARE_DATE = frozenset(
    {"Patient", "Person", "RelatedPerson", "Consent", "FamilyMemberHistory", "AuditEvent", "List"}
)

_BINARY = re.compile(rb'"url"\s*:\s*"([^"\\]*Binary/[^"\\]+)"')


@dataclass(frozen=True, slots=True)
class EverythingRequest:
    """The request: `owner` and `id` of the compartment (None: all of them). `care`: closed interval in µs."""

    owner: str
    id: str | None
    pairs: Pairs
    care: tuple[int | None, int | None] = (None, None)
    since: int | None = None
    types: frozenset[str] = frozenset()
    count: int | None = None
    after: SortKey | None = None

    def wants(self, type: str) -> bool:
        """Whether resources of the type are returned."""
        return not self.types or type in self.types


async def everything(context: Context, request: Request) -> Response:
    """200 with a searchset of everything, or of a page when `_count` is given; 404 and 410 as for a read."""
    query = _parse_request(context, request)
    if query.id is not None:
        stored = await context.reader(request.caller).read(query.owner, query.id)
        if stored is None:
            raise NotFound(f"`{query.owner}/{query.id}` does not exist on this server.")
        if stored.raw is None:
            raise build_deleted_error(stored)
    scopes = tuple(_build_scopes(context, query))
    page = await _read_page(context, context.reader(request.caller), query, scopes) if scopes else Page((), None)
    extra = await _read_referenced(context, request, query, page.matches)
    return Response(200, _build_searchset(context, request, query, page, extra))


def _parse_request(context: Context, request: Request) -> EverythingRequest:
    path = request.path
    owner, id = path[0], path[1] if len(path) == 3 else None
    pairs = parse_parameters(context, request)
    token = dict(pairs).get(PAGE)
    if token is None:
        return _parse_values(context, EverythingRequest(owner, id, pairs))
    added = tuple(pair for pair in check_added(pairs) if pair[0] == "_count")
    state = open_page_link(context, Place(path, request.principal), token)
    query = EverythingRequest(owner, id, replace_pairs(tuple((name, value) for name, value in state["pairs"]), added))
    return replace(_parse_values(context, query), after=tuple(state["after"]))


def _parse_values(context: Context, query: EverythingRequest) -> EverythingRequest:
    """The same, with its parameters read. Raises Invalid."""
    names = [name for name, _ in query.pairs]
    for name, value in query.pairs:
        if name not in PARAMETERS:
            listed = ", ".join(f"`{each}`" for each in PARAMETERS)
            raise Invalid(f"`$everything` has no parameter `{name}`. Valid ones: {listed}.", code="not-supported")
        if name != "_type" and names.count(name) > 1:
            raise Invalid(f"`{name}` is given more than once; give one value.")
        if name == "_type":
            query = replace(query, types=query.types | _parse_types(context, value))
        elif name == "_count":
            query = replace(query, count=min(parse_positive_integer(name, value), context.settings.max_count))
        else:
            low, high = _parse_interval(context, name, value)
            if name == "_since":
                query = replace(query, since=low)
            elif name == "start":
                query = replace(query, care=(low, query.care[1]))
            else:
                query = replace(query, care=(query.care[0], high))
    return query


def _parse_types(context: Context, value: str) -> frozenset[str]:
    types = frozenset(value.split(","))
    for type in sorted(types - context.types):
        raise Invalid(f"`_type` names `{type}`, which is no resource type of this server.", code="value")
    return types


def _parse_interval(context: Context, name: str, value: str) -> tuple[int, int]:
    try:
        return parse_interval(value, context.criteria("").zone)
    except ValueError as error:
        raise Invalid(f"`{name}={value}` cannot be read: {error}", code="value") from None


def _build_scopes(context: Context, query: EverythingRequest) -> Iterable[Scope]:
    """The scopes to search: the types of `_type` when all of them are members of the compartment, else all members."""
    members = list_member_types(context.definitions, query.owner)
    only = query.types if query.types <= set(members) else frozenset()
    for type in members:
        if type in context.types and (not only or type in only):
            clauses = [_build_membership_clause(context, query, type), *_build_limits(context, query, type)]
            parts = tuple(clause for clause in clauses if clause != EVERYTHING)
            yield Scope(type, parts[0] if len(parts) == 1 else And(parts))


def _build_membership_clause(context: Context, query: EverythingRequest, type: str) -> Clause:
    """What places a resource of the type in the compartment, or in that of anybody."""
    if query.id is not None:
        return build_compartment_clause(context.definitions, query.owner, query.id, type)
    if type == query.owner:
        return EVERYTHING
    codes = context.definitions.compartments[query.owner].get(type, ())
    return simplify_or(StartsWith(code, f"{query.owner}/") for code in codes if code != ITSELF)


def _build_limits(context: Context, query: EverythingRequest, type: str) -> Iterable[Clause]:
    if query.since is not None:
        yield LastUpdated((Bound("low", "ge", query.since),))
    start, end = query.care
    code = _find_care_date(context, type)
    if code is not None and query.care != (None, None):
        tests: tuple[Bound, ...] = (Bound("high", "ge", start),) if start is not None else ()
        tests += (Bound("low", "le", end),) if end is not None else ()
        yield Or((DateRange(code, tests), Not(Present(code))))


def _find_care_date(context: Context, type: str) -> str | None:
    if type in _NO_CARE_DATE:
        return None
    parameters = context.registry.parameters(type)
    listed = (_CARE_DATE_OF.get(type, ""), *CARE_DATES)
    return next((code for code in listed if code in parameters and parameters[code].type == "date"), None)


async def _read_page(context: Context, reader: Reader, query: EverythingRequest, scopes: tuple[Scope, ...]) -> Page:
    """The page that `_count` asks for; without `_count` everything. Raises TooCostly."""
    if query.count is not None:
        return await reader.search(
            Query(scopes, count=query.count, after=query.after, most_bytes=context.settings.max_answer)
        )
    most = context.settings.max_included
    page = await reader.search(Query(scopes, count=most, most_bytes=context.settings.max_answer))
    if page.next is not None:
        raise TooCostly(
            f"There are more than {most} resources, or more bytes than one answer may have; ask for them in pages, "
            "with `_count`."
        )
    return page


async def _read_referenced(
    context: Context, request: Request, query: EverythingRequest, matches: Sequence[Stored]
) -> list[Stored]:
    """What the matches refer to and the compartment does not hold, in the order of their references."""
    members = list_member_types(context.definitions, query.owner)
    if query.types and query.types <= set(members):
        return []
    found = await _list_references(context, context.bases.include(request.base), matches)
    wanted: dict[str, list[str]] = {}
    for reference in sorted(found - {match.reference for match in matches}):
        type = reference.partition("/")[0]
        if query.wants(type):
            wanted.setdefault(type, []).append(reference)
    reader = context.reader(request.caller)
    current = await reader.read_many([reference for listed in wanted.values() for reference in listed])
    kept: list[Stored] = []
    for type, references in wanted.items():
        there = [reference for reference in references if reference in current]
        shown = set(there)
        if type in members:  # these are matches, of this page or another, or were not asked for
            shown -= await reader.find_matching(there, _build_membership_clause(context, query, type))
        kept += [current[reference] for reference in there if reference in shown]
    kept = [stored for stored in kept if query.since is None or stored.last_updated >= query.since]
    if len(kept) > context.settings.max_included:
        raise TooCostly(f"More than {context.settings.max_included} resources are referred to; ask for smaller pages.")
    return kept


async def _list_references(context: Context, base: BaseUrls, matches: Sequence[Stored]) -> set[str]:
    """Every `Type/id` that the matches refer to, attachments kept as Binary included."""

    def list_references(match: Stored) -> set[str]:
        raw = match.raw or b"{}"
        references = set(find_literal_references(orjson.loads(raw), base, context.types))
        if b"Binary/" in raw:
            urls = (find_local_target(url.decode(), base, ("Binary",)) for url in _BINARY.findall(raw))
            references.update(reference for reference in urls if reference is not None)
        return references

    return set().union(*await context.long_work.run_each(list_references, matches))


def _build_searchset(
    context: Context, request: Request, query: EverythingRequest, page: Page, extra: Sequence[Stored]
) -> bytes:
    url = "/".join((request.base, *request.path))
    links = [("self", f"{url}?{urlencode(query.pairs, safe=':,', quote_via=quote)}" if query.pairs else url)]
    if page.next is not None:
        state = {"pairs": query.pairs, "after": page.next}
        links.append(build_next_link(context, url, Place(request.path, request.principal), state))
    matches = [match for match in page.matches if query.wants(match.type)]
    parts = (("match", matches), ("include", extra))
    entries = [
        write_search_entry(request.base, found.reference, found.raw or b"{}", mode)
        for mode, listed in parts
        for found in listed
    ]
    meta = {"lastUpdated": format_instant(context.clock())}
    head: dict[str, object] = {"id": context.new_id(), "meta": meta, "type": "searchset"}
    if page.next is None and query.after is None:
        head["total"] = len(matches)
    return write_bundle(head, links, entries)
