"""history of an instance, a type and the system (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fhir_server.fhir.bundle import write_bundle, write_history_entry
from fhir_server.fhir.datetimes import format_instant, parse_interval
from fhir_server.fhir.outcome import Invalid, NotFound
from fhir_server.interactions.response_entries import format_status
from fhir_server.interactions.summary import FORMAT_PARAMETERS, LENIENT, is_lenient
from fhir_server.requests.context import Context
from fhir_server.requests.page_links import PAGE, Place, build_next_link, check_added, open_page_link
from fhir_server.requests.request import Request, Response
from fhir_server.security.access import Reader
from fhir_server.store.protocol import HistoryPage, HistoryQuery, Stored

_PARAMETERS = ("_since", "_at", "_count", "_format", "_pretty")


async def history(context: Context, request: Request) -> Response:
    """200 with versions newest first, deletions included; 404 for an instance that never existed."""
    path = request.path[:-1]
    query = _parse_query_parameters(context, request, path)
    page = await context.reader(request.caller).history(replace(query, most_bytes=context.settings.max_answer))
    if len(path) == 2 and not page.versions and await context.reader(request.caller).read(path[0], path[1]) is None:
        raise NotFound(f"`{path[0]}/{path[1]}` does not exist on this server and never did.")
    created = await _find_creations(context.reader(request.caller), page.versions)
    entries = [_build_entry(request.base, each, (each.reference, each.version) in created) for each in page.versions]
    head: dict[str, Any] = {
        "id": context.new_id(),
        "meta": {"lastUpdated": format_instant(page.horizon)},
        "type": "history",
    }
    if page.next is None and query.before is None:
        head["total"] = len(entries)
    return Response(200, write_bundle(head, _build_links(context, request, query, page), entries))


async def _find_creations(reader: Reader, versions: Sequence[Stored]) -> set[tuple[str, int]]:
    """The versions (reference, number) that made a resource: first ones, and PUTs right after a deletion."""
    shown = {(each.reference, each.version): each for each in versions}

    async def is_revival(version: Stored) -> bool:
        key = version.type, version.id, version.version - 1
        before = shown.get((version.reference, key[2])) or await reader.vread(*key)
        return before is not None and before.raw is None

    later = [each for each in versions if each.version > 1 and each.method == "PUT" and each.raw is not None]
    answers = await asyncio.gather(*map(is_revival, later))
    made = [each for each, created in zip(later, answers, strict=True) if created]
    first = [each for each in versions if each.version == 1]
    return {(each.reference, each.version) for each in (*first, *made)}


def _build_entry(base: str, version: Stored, created: bool) -> bytes:
    url = version.type if version.method == "POST" else version.reference
    status = 204 if version.raw is None else 201 if created else 200
    response = {
        "status": format_status(status),
        "etag": f'W/"{version.version}"',
        "lastModified": format_instant(version.last_updated),
    }
    return write_history_entry(
        f"{base}/{version.reference}", {"method": version.method, "url": url}, response, version.raw
    )


def _parse_query_parameters(context: Context, request: Request, path: tuple[str, ...]) -> HistoryQuery:
    values: dict[str, str] = {}
    lenient = is_lenient(context, request)
    for name, value in request.query:
        if name in FORMAT_PARAMETERS:
            continue
        if name not in (*_PARAMETERS, PAGE):
            if lenient or (name == "_summary" and PAGE in dict(request.query)):
                continue
            raise Invalid(
                f"History has no parameter `{name}`. Valid ones: {', '.join(_PARAMETERS)}. {LENIENT}",
                code="not-supported",
            )
        if name in values:
            raise Invalid(f"`{name}` may be given once.")
        values[name] = value
    types = path[:1] if path else ()
    id = path[1] if len(path) == 2 else None
    if PAGE in values:
        check_added(tuple(values.items()))
        following = _continue_history(context, request, values[PAGE], types, id)
        return replace(following, count=_parse_count(context, values["_count"])) if "_count" in values else following
    if "_since" in values and "_at" in values:
        raise Invalid("`_since` and `_at` cannot be combined.")
    return HistoryQuery(
        types,
        id,
        since=_parse_moment(context, "_since", values["_since"])[0] if "_since" in values else None,
        at=_parse_moment(context, "_at", values["_at"]) if "_at" in values else None,
        count=_parse_count(context, values.get("_count")),
    )


def _continue_history(
    context: Context, request: Request, token: str, types: tuple[str, ...], id: str | None
) -> HistoryQuery:
    state = open_page_link(context, Place(request.path, request.principal), token)
    at = state["at"]
    return HistoryQuery(
        types, id, state["since"], None if at is None else tuple(at), state["count"], tuple(state["before"])
    )


def _restore_plus(value: str) -> str:
    """The value with the plus sign of its offset, which arrives as a space when it was not encoded."""
    return value.replace(" ", "+")


def _parse_moment(context: Context, name: str, value: str) -> tuple[int, int]:
    try:
        return parse_interval(_restore_plus(value), context.criteria("").zone)
    except ValueError as error:
        raise Invalid(f"`{name}={value}` is not a date or time: {error}", code="value") from None


def _parse_count(context: Context, value: str | None) -> int:
    if value is None:
        return context.settings.default_count
    if not (value.isascii() and value.isdecimal()) or int(value[:9]) == 0:
        raise Invalid(f"`_count={value}` is not a number of versions; use a whole number from 1.", code="value")
    return min(int(value[:9]), context.settings.max_count)


def _build_links(context: Context, request: Request, query: HistoryQuery, page: HistoryPage) -> list[tuple[str, str]]:
    url = "/".join((request.base, *request.path))
    pairs = "&".join(
        f"{name}={_restore_plus(value).replace('+', '%2B')}"
        for name, value in request.query
        if name in ("_since", "_at", "_count")
    )
    links = [("self", f"{url}?{pairs}" if pairs else url)]
    if page.next is not None:
        state = {"since": query.since, "at": query.at, "count": query.count, "before": page.next}
        links.append(build_next_link(context, url, Place(request.path, request.principal), state))
    return links
