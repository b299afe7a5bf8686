"""patch: JSON Patch, FHIRPath Patch and JSON Merge Patch, also conditional (https://hl7.org/fhir/R4/http.html#patch)."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from fhir_server.fhir import fhirpath_patch, json_patch, merge_patch
from fhir_server.fhir.json_tree import decode
from fhir_server.fhir.outcome import Invalid, TooCostly, UnsupportedMediaType
from fhir_server.fhir.resource import check_number_of_values, check_tree
from fhir_server.interactions.provenance import commit_with_provenance
from fhir_server.interactions.write_requests import build_write_response, check_write_request
from fhir_server.requests.context import Context
from fhir_server.requests.headers import parse_if_match
from fhir_server.requests.request import FHIR_JSON, Request, Response
from fhir_server.writes.action import Action, Patch
from fhir_server.writes.identity import check_id

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
FHIR_TYPES = frozenset({FHIR_JSON, "application/json", "text/json", "application/json+fhir"})


async def patch(context: Context, request: Request) -> Response:
    """200 with the patched resource; a patch that changes nothing makes no new version."""
    type, id = request.path
    check_id(id)
    check_write_request(request)
    action = Action(
        "PATCH",
        type,
        id,
        id=id,
        patch=await _parse_patch(context, request),
        patch_size=len(request.body),
        if_match=parse_if_match(request),
    )
    return build_write_response(context, request, await commit_with_provenance(context, request, action))


async def conditional_patch(context: Context, request: Request) -> Response:
    """As `patch`, on the one resource that the criteria match: none is 404, several are 412."""
    (type,) = request.path
    check_write_request(request, criteria=True)
    action = Action(
        "PATCH",
        type,
        "",
        criteria=request.query,
        patch=await _parse_patch(context, request),
        patch_size=len(request.body),
        if_match=parse_if_match(request),
    )
    return build_write_response(context, request, await commit_with_provenance(context, request, action))


async def _parse_patch(context: Context, request: Request) -> Patch:
    content_type = request.headers.get("content-type", "")
    return await context.long_work.run(len(request.body), parse_patch, context, content_type, request.body)


def parse_patch(context: Context, content_type: str, body: bytes) -> Patch:
    """The patch in a body: a JSON Patch document, or a Parameters resource for FHIRPath Patch."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (JSON_PATCH, MERGE_PATCH) and kind not in FHIR_TYPES:
        raise UnsupportedMediaType(
            f"A patch comes as `{JSON_PATCH}`, as `{MERGE_PATCH}`, or as a Parameters resource in "
            "`application/fhir+json`; " + (f"not as `{kind}`." if kind else "this one has no Content-Type.")
        )
    tree = decode(body)
    check_tree(body, decode_numbers_as_text(body))
    if kind == MERGE_PATCH or (kind in FHIR_TYPES and _is_partial_resource(tree)):
        return functools.partial(merge_patch.apply, patch=tree)
    operations = tree if kind == JSON_PATCH else tree.get("parameter") if isinstance(tree, dict) else None
    most = context.settings.max_patch_operations
    if isinstance(operations, list) and len(operations) > most:
        raise TooCostly(
            f"The patch has {len(operations):,} operations, more than the {most:,} that one may have (setting "
            "`max_patch_operations`); send it in parts, or a PUT."
        )
    if kind == JSON_PATCH:
        return functools.partial(json_patch.apply, operations=tree)
    if not isinstance(tree, dict) or tree.get("resourceType") != "Parameters":
        raise Invalid(
            f"A FHIRPath Patch is a Parameters resource; for a JSON Patch say `Content-Type: {JSON_PATCH}`.",
            code="structure",
        )
    return functools.partial(_parse_fhirpath_patch, parameters=tree, definitions=context.definitions)


def _is_partial_resource(tree: Any) -> bool:
    """Whether a body in FHIR JSON is part of a resource to merge, as fhirpy sends it, and no FHIRPath Patch."""
    return isinstance(tree, dict) and tree.get("resourceType") != "Parameters"


def decode_numbers_as_text(body: bytes) -> Any:
    """The plain parsed tree, for the checks on duplicate keys and depth."""
    check_number_of_values(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"The body is not valid JSON: {error}.", code="structure") from None


def _parse_fhirpath_patch(tree: Any, parameters: Any, definitions: Any) -> Any:
    return fhirpath_patch.apply(tree, parameters, definitions)
