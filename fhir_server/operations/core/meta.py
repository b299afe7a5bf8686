"""`$meta` at every level; `$meta-add` and `$meta-delete` on an instance (https://hl7.org/fhir/R4/resource-operation-meta.html)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Invalid, NotFound, TooCostly
from fhir_server.fhir.resource import parse
from fhir_server.interactions.read import build_deleted_error, parse_version
from fhir_server.operations.parameters import refuse_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.headers import parse_if_match
from fhir_server.requests.request import Request, Response
from fhir_server.search.query import Or, Present, Query, Scope
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit
from fhir_server.writes.identity import check_id

Meta = dict[str, Any]

MOST_LABELLED = 10_000
"""Resources whose labels one request collects."""

_PAGE = 500
_LISTS = ("profile", "security", "tag")
# A client that sends back the meta it got has these in it; they name no change.
_SET_BY_SERVER = ("versionId", "lastUpdated")


async def meta(context: Context, request: Request) -> Response:
    """The `meta` of the current version, or of the version in the URL; of a type or the system, all labels in use."""
    refuse_parameters(request)
    path = request.path
    if len(path) < 3:
        return Response(200, _meta_to_parameters(await _collect_labels(context, request, path[:-1])))
    if len(path) == 5:
        stored = await context.reader(request.caller).vread(path[0], path[1], parse_version(path[3]))
    else:
        stored = await context.reader(request.caller).read(path[0], path[1])
    if stored is None:
        raise NotFound(f"`{'/'.join(path[:-1])}` does not exist on this server.")
    if stored.raw is None:
        raise build_deleted_error(stored)
    found = await context.long_work.run(len(stored.raw), _read_meta, stored.raw)
    return Response(200, _meta_to_parameters(found), stored.version, stored.last_updated)


async def _collect_labels(context: Context, request: Request, types: tuple[str, ...]) -> Meta:
    """The profiles, security labels and tags that current resources of a type, or of all types, have; each once."""
    labelled = Or(tuple(Present(code) for code in ("_profile", "_security", "_tag")))
    query = Query(tuple(Scope(type, labelled) for type in types or context.registry.types), count=_PAGE)
    found: Meta = {}
    reader, read = context.reader(request.caller), 0
    while True:
        page = await reader.search(query)
        raws = [stored.raw or b"{}" for stored in page.matches]
        for each in await context.long_work.run(sum(map(len, raws)), lambda raws: [*map(_read_meta, raws)], raws):
            found = _add(found, each)
        read += len(page.matches)
        if page.next is None:
            return found
        if read >= MOST_LABELLED:
            raise TooCostly(
                f"More than {MOST_LABELLED:,} resources have profiles, security labels or tags; ask by type, or search "
                "by `_profile`, `_security` and `_tag`."
            )
        query = replace(query, after=page.next)


async def meta_add(context: Context, request: Request) -> Response:
    """The meta after the elements of the parameter `meta` were added to it."""
    return await _change(context, request, _add)


async def meta_delete(context: Context, request: Request) -> Response:
    """The meta after the elements of the parameter `meta` were taken out of it."""
    return await _change(context, request, _remove)


async def _change(context: Context, request: Request, change: Callable[[Meta, Meta], Meta]) -> Response:
    refuse_parameters(request)
    type, id = request.path[0], check_id(request.path[1])
    given = _parse_meta(context, request)

    def patch(tree: dict[str, Any]) -> dict[str, Any]:
        return {**tree, "meta": change(tree.get("meta", {}), given)}

    action = Action("PATCH", type, id, id=id, patch=patch, if_match=parse_if_match(request))
    done = await commit(context, action, request.caller)
    text = done.text()
    found = await context.long_work.run(len(text), _read_meta, text)
    return Response(200, _meta_to_parameters(found), done.version, done.last_updated)


def _read_meta(raw: bytes) -> Meta:
    """The meta of a resource."""
    found: Meta = decode(raw).get("meta", {})
    return found


def _parse_meta(context: Context, request: Request) -> Meta:
    text = parse(request.body)
    if text.tree.get("resourceType") != "Parameters":
        raise Invalid("The body has to be a Parameters resource with a parameter `meta` (valueMeta).", code="structure")
    issues = context.validator.find_issues(text.tree)
    if issues:
        raise Invalid(issues=issues)
    found = decode(request.body).get("parameter", [])
    if len(found) != 1 or found[0]["name"] != "meta" or "valueMeta" not in found[0]:
        raise Invalid(
            "The Parameters need one parameter, `meta` with a `valueMeta`, and no others.",
            code="required",
            expression=("Parameters.parameter",),
        )
    meta: Meta = found[0]["valueMeta"]
    others = sorted(name for name in meta if name not in (*_LISTS, *_SET_BY_SERVER))
    if others:
        raise Invalid(
            f"`{request.path[-1]}` changes profiles, security labels and tags; leave out `{others[0]}`, which takes an "
            "update or a patch.",
            code="not-supported",
            expression=(f"Parameters.parameter[0].value.{others[0]}",),
        )
    return meta


def _identify(name: str, value: Any) -> Any:
    """What makes two entries the same: a profile's URL, a coding's system and code."""
    return value if name == "profile" else (value.get("system"), value.get("code"))


def _add(meta: Meta, given: Meta) -> Meta:
    changed = dict(meta)
    for name in _LISTS:
        there = list(meta.get(name, []))
        known = {_identify(name, value) for value in there}
        for value in given.get(name, []):
            identity = _identify(name, value)
            if identity not in known:
                known.add(identity)
                there.append(value)
        if there:
            changed[name] = there
    return changed


def _remove(meta: Meta, given: Meta) -> Meta:
    changed = dict(meta)
    for name in _LISTS:
        gone = {_identify(name, value) for value in given.get(name, [])}
        kept = [value for value in meta.get(name, []) if _identify(name, value) not in gone]
        changed.pop(name, None)
        if kept:
            changed[name] = kept
    return changed


def _meta_to_parameters(meta: Meta) -> bytes:
    """The answer; without labels it has no parameter, since FHIR has no empty element (ele-1)."""
    parameters = {"parameter": [{"name": "return", "valueMeta": meta}]} if meta else {}
    return encode({"resourceType": "Parameters", **parameters})
