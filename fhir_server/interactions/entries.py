"""The entries of a batch or transaction Bundle read as requests (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import Text, parse
from fhir_server.interactions.exchange import Context, Request
from fhir_server.interactions.patch import JSON_PATCH

_HEADERS = {
    "ifMatch": "if-match",
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifNoneExist": "if-none-exist",
}
_INHERITED = ("prefer",)
_NEEDS_RESOURCE = frozenset({"POST", "PUT", "PATCH"})


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


_slices = msgspec.json.Decoder(_Bundle)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: the request it makes, its full URL and its resource (None without one)."""

    request: Request
    full_url: str
    text: Text | None


def bundle_of(context: Context, request: Request) -> Text:
    """The Bundle in a request's body, envelope checked; its resources are checked one by one later."""
    text = parse(request.body)
    if text.tree.get("resourceType") != "Bundle":
        raise Invalid("A POST to the base URL takes a Bundle of type `batch` or `transaction`.", code="structure")
    issues = context.validator.issues(_envelope(text.tree))
    if issues:
        raise Invalid(issues=issues)
    return text


def _envelope(tree: dict[str, Any]) -> dict[str, Any]:
    """The Bundle without the resources of its entries."""
    entries = tree.get("entry")
    if not isinstance(entries, list):
        return tree
    bare = [
        {key: value for key, value in entry.items() if key != "resource"} or {"fullUrl": "urn:none"}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]
    return {**tree, "entry": bare}


def entry_at(request: Request, bundle: Text, slices: list[msgspec.Raw], position: int) -> Entry:
    """The entry at a position. Raises Invalid, naming it, when it cannot be read as a request."""
    where = f"Bundle.entry[{position}]"
    tree = bundle.tree["entry"][position]
    asked = tree.get("request")
    if asked is None:
        raise Invalid(
            "The entry has no `request`; a batch or transaction entry needs its method and url.",
            code="required",
            expression=(where,),
        )
    method, resource = asked["method"], tree.get("resource")
    text = None
    if resource is not None:
        raw = slices[position]
        if not isinstance(resource, dict):
            raise Invalid("`resource` is not a JSON object.", code="structure", expression=(f"{where}.resource",))
        text = Text(bytes(raw), resource)
    if text is None and method in _NEEDS_RESOURCE:
        raise Invalid(f"A `{method}` entry needs a `resource`.", code="required", expression=(f"{where}.resource",))
    path, query = _target(request, asked["url"])
    headers = {name: request.headers[name] for name in _INHERITED if name in request.headers}
    headers |= {header: asked[name] for name, header in _HEADERS.items() if name in asked}
    made = Request(method, path, query, headers, b"", request.base, request.principal, request.id, where)
    return Entry(_with_body(made, text), tree.get("fullUrl", ""), text)


def resource_slices(bundle: Text) -> list[msgspec.Raw]:
    """The bytes of each entry's resource, empty where there is none."""
    return [entry.resource for entry in _slices.decode(bundle.raw).entry]


def _target(request: Request, url: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    relative = url.removeprefix(request.base).lstrip("/")
    path, _, query = relative.partition("?")
    segments = tuple(unquote(segment) for segment in path.split("/") if segment)
    return segments, tuple(parse_qsl(query, keep_blank_values=True))


def _with_body(request: Request, text: Text | None) -> Request:
    if text is None:
        return request
    if request.method == "PATCH" and text.tree.get("resourceType") == "Binary":
        return _with_json_patch(request, text)
    return replace(request, body=text.raw, headers={**request.headers, "content-type": "application/fhir+json"})


def _with_json_patch(request: Request, text: Text) -> Request:
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
    return replace(request, body=body, headers={**request.headers, "content-type": JSON_PATCH})

