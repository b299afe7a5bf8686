"""The entries of a batch or transaction Bundle read as requests (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import (
    Text,
    check_number_of_values,
    join_members,
    make_too_deep_error,
    parse,
    refuse_duplicates,
    split_members,
)
from fhir_server.interactions.patch import JSON_PATCH
from fhir_server.requests.context import Context
from fhir_server.requests.request import FHIR_JSON, Pairs, Request, parse_query

_HEADERS = {
    "ifMatch": "if-match",
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifNoneExist": "if-none-exist",
}
_INHERITED = ("prefer",)
_NEEDS_RESOURCE = frozenset({"POST", "PUT", "PATCH"})
_TOLD_BY_RESOURCE = frozenset({"POST", "PUT"})
"""Methods whose url the resource tells: HAPI's Java client leaves it out in `transaction().withResources(…)`."""

_BEGINNING = 64
"""Bytes of a resource by which its place in the bundle is found: a search for all of it would cost more."""

_Entries = list[dict[str, msgspec.Raw]]
_ABSENT = msgspec.Raw(b"")
_USUAL = ("resourceType", "id", "meta", "type", "timestamp", "total", "link")
_usual_bundle = msgspec.json.Decoder(
    msgspec.defstruct(
        "UsualBundle",
        [("entry", _Entries), *((name, msgspec.Raw, _ABSENT) for name in _USUAL)],
        forbid_unknown_fields=True,
    )
)
_entries = msgspec.json.Decoder(_Entries)


class Entry(NamedTuple):
    """One entry: the request it makes, its full URL and its resource (None without one)."""

    request: Request
    full_url: str
    text: Text | None


@dataclass(frozen=True, slots=True)
class Posted:
    """A Bundle as posted: its type, its entries without their resources, and the bytes of these (None without one)."""

    type: str
    entries: list[dict[str, Any]]
    resources: list[bytes | None]


def parse_bundle(context: Context, request: Request) -> Posted:
    """The Bundle in a request's body, envelope checked; its resources are parsed and checked one by one later."""
    check_number_of_values(request.body)
    try:
        parts, entries = _split_bundle(request.body)
    except msgspec.MsgspecError:
        return _refuse(context, request)
    except RecursionError:
        raise make_too_deep_error() from None
    resources = [_raw_to_bytes(entry.pop("resource", None)) for entry in entries]
    if "entry" in parts:
        parts["entry"] = msgspec.Raw(b"[%b]" % b",".join([join_members(entry) for entry in entries]))
    envelope = join_members(parts)
    _check_keys(request.body, envelope, resources)
    tree = parse(envelope).tree
    if tree.get("resourceType") != "Bundle":
        raise Invalid("A POST to the base URL takes a Bundle of type `batch` or `transaction`.", code="structure")
    issues = context.validator.find_issues(_fill_entries(tree), invariants=False)
    if issues:
        raise Invalid(issues=issues)
    return Posted(tree["type"], tree.get("entry", []), resources)


def _split_bundle(body: bytes) -> tuple[dict[str, msgspec.Raw], _Entries]:
    """The members of a Bundle, and its entries; the usual members are read with the entries in one go."""
    try:
        bundle: Any = _usual_bundle.decode(body)
    except msgspec.ValidationError:
        parts = split_members(body)
        return parts, _entries.decode(parts["entry"]) if "entry" in parts else []
    parts = {name: value for name in _USUAL if (value := getattr(bundle, name))}
    return parts | {"entry": _ABSENT}, bundle.entry


def _refuse(context: Context, request: Request) -> Posted:
    """The error for a body that is no JSON object, or no Bundle in its outermost structure."""
    tree = parse(request.body).tree
    issues = context.validator.find_issues(tree, invariants=False) if tree.get("resourceType") == "Bundle" else ()
    if issues:
        raise Invalid(issues=issues)
    raise Invalid("A POST to the base URL takes a Bundle of type `batch` or `transaction`.", code="structure")


def _raw_to_bytes(raw: msgspec.Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)


def _check_keys(body: bytes, envelope: bytes, resources: list[bytes | None]) -> None:
    """Refuse a key that stands twice around the resources: decoding merged it, so that colons are missing."""
    colons = at = 0
    for resource in filter(None, resources):
        start = body.find(resource[:_BEGINNING], at)
        end = start + len(resource)
        if start < 0 or body[start:end] != resource:  # it begins like what stands before it
            start = body.index(resource, at)
            end = start + len(resource)
        colons += body.count(b":", at, start) - 1
        at = end
    if colons + body.count(b":", at) != envelope.count(b":"):
        refuse_duplicates(body)


def _fill_entries(tree: dict[str, Any]) -> dict[str, Any]:
    """The envelope for validation: an entry that had nothing but a resource is not empty, and what the resource tells
    of the url is not missing.
    """
    entries = tree.get("entry")
    return {**tree, "entry": [_fill_entry(entry) for entry in entries]} if entries else tree


def _fill_entry(entry: dict[str, Any]) -> dict[str, Any]:
    if not entry:
        return {"fullUrl": "urn:none"}
    asked = entry.get("request")
    if not isinstance(asked, dict) or "url" in asked or asked.get("method") not in _TOLD_BY_RESOURCE:
        return entry
    return {**entry, "request": {**asked, "url": "told-by-resource"}}


def read_entry(request: Request, posted: Posted, position: int) -> Entry:
    """The entry at a position. Raises Invalid, naming it, when it cannot be read as a request."""
    where = f"Bundle.entry[{position}]"
    tree = posted.entries[position]
    asked = tree.get("request")
    if asked is None:
        raise Invalid(
            "The entry has no `request`; a batch or transaction entry needs its method and url.",
            code="required",
            expression=(where,),
        )
    method, raw = asked["method"], posted.resources[position]
    if raw is None and method in _NEEDS_RESOURCE:
        raise Invalid(f"A `{method}` entry needs a `resource`.", code="required", expression=(f"{where}.resource",))
    url = asked["url"] if "url" in asked else _derive_url(method, Text(raw or b""), where)
    path, query = _parse_url(request, url, where)
    headers = {name: request.headers[name] for name in _INHERITED if name in request.headers}
    headers |= {header: asked[name] for name, header in _HEADERS.items() if name in asked}
    text, body = None, b""
    if raw is not None:
        text, body = Text(raw), raw
        headers["content-type"] = FHIR_JSON
    made = Request(method, path, query, headers, body, request.base, request.principal, request.id, where=where)
    if method == "PATCH" and text is not None and text.type == "Binary":
        made = _unwrap_json_patch(made, text)
    return Entry(made, tree.get("fullUrl", ""), text)


def _derive_url(method: str, text: Text, where: str) -> str:
    """The url of an entry that has none: the type of its resource, and its id for PUT. Raises Invalid without."""
    parts = [text.tree.get(name) for name in (("resourceType",) if method == "POST" else ("resourceType", "id"))]
    if not all(isinstance(part, str) and part for part in parts):
        sentence = f"`{where}.request` must have `url`."
        raise Invalid(sentence, code="required", expression=(f"{where}.request.url",))
    return "/".join(map(str, parts))


def _parse_url(request: Request, url: str, where: str) -> tuple[tuple[str, ...], Pairs]:
    path, _, query = url.partition("?")
    if "://" in path:
        if path != request.base and not path.startswith(f"{request.base}/"):
            raise Invalid(
                f"The url `{url}` is not on this server; write it relative to `{request.base}`, such as `Patient/1`.",
                code="value",
                expression=(f"{where}.request.url",),
            )
        path = path.removeprefix(request.base)
    if "%" not in path and not query:
        return tuple([segment for segment in path.split("/") if segment]), ()
    try:
        return tuple(unquote(segment) for segment in path.split("/") if segment), parse_query(query)
    except Invalid as error:
        raise error.relocate(where) from None


def _unwrap_json_patch(request: Request, text: Text) -> Request:
    """A JSON Patch travels in a bundle as a Binary: https://hl7.org/fhir/R4/http.html#jsonpatch-bundle"""
    kind = str(text.tree.get("contentType", "")).partition(";")[0].strip()
    where = f"{request.where}.resource"
    if kind != JSON_PATCH:
        raise Invalid(
            f"A Binary that patches has the contentType `{JSON_PATCH}`; this one has `{kind}`.",
            code="value",
            expression=(f"{where}.contentType",),
        )
    try:
        body = base64.b64decode(str(text.tree.get("data", "")), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("`data` of the Binary is not base64.", code="value", expression=(f"{where}.data",)) from None
    return request._replace(body=body, headers={**request.headers, "content-type": JSON_PATCH})
