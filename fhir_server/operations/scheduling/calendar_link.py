"""`$calendar-link`: the secret URL of a calendar feed is made, listed or revoked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.scheduling.calendar_links import Link, list_links, make_link, revoke_link
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response


async def calendar_link(context: Context, request: Request) -> Response:
    """POST: 201 with the URL, which is told once. GET: the links without their keys. DELETE with `id`: revoked."""
    asked = read_parameters(context, request, ("id",) if request.method == "DELETE" else ())
    owner = "/".join(request.path[:2])
    stored = await context.reader(request.caller).read(*request.path[:2])
    if request.method == "DELETE":
        hidden = stored is None and await context.unrestricted.read(*request.path[:2]) is not None
        return await _revoke(context, owner, asked.text("id"), hidden)
    if stored is None or stored.raw is None:
        raise NotFound(f"`{owner}` does not exist on this server.")
    if request.method == "POST":
        link, key = await make_link(context, owner, request.principal)
        url = f"{request.base}/{owner}/$calendar?{urlencode({'key': key})}"
        return Response(201, _write([*_describe(link), {"name": "url", "valueUrl": url}]))
    links = await list_links(context, owner)
    return Response(200, _write([{"name": "link", "part": _describe(link)} for link in links]))


async def _revoke(context: Context, owner: str, id: str, hidden: bool) -> Response:
    """Also where the resource was deleted, so that no link outlives what somebody wants to end."""
    if not id:
        text = "`DELETE $calendar-link` needs the parameter `id`; GET lists the links with their ids."
        raise Invalid(text, code="required", expression=("id",))
    if hidden or not await revoke_link(context, owner, id):
        raise NotFound(f"`{owner}` has no calendar link `{id}`; it may have been revoked already.", expression=("id",))
    text = f"The calendar link `{id}` is revoked; calendar programs that have it get nothing more."
    return Response(200, orjson.dumps(build_operation_outcome([Issue("information", "informational", text)])))


def _describe(link: Link) -> list[dict[str, Any]]:
    return [
        {"name": "id", "valueString": link.id},
        {"name": "made", "valueInstant": format_instant(link.made // 1000 * 1000)},
        {"name": "by", "valueString": link.principal},
    ]


def _write(parameters: list[dict[str, Any]]) -> bytes:
    tree: dict[str, Any] = {"resourceType": "Parameters"}
    return orjson.dumps({**tree, "parameter": parameters} if parameters else tree)
