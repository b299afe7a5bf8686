"""Binary in its own content type, in and out (https://hl7.org/fhir/R4/binary.html#rest)."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson

from fhir_server.api.negotiation import find_accepted_type, is_fhir_json
from fhir_server.fhir.resource import check_number_of_values
from fhir_server.requests.request import Pairs, Response

_WRITES = frozenset({"POST", "PUT"})
_SUBSET_PARAMETERS = frozenset({"_format", "_summary", "_elements"})
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+\-]+/[\w!#$&^.+\-]+[ -~]*", re.ASCII)
_UNKNOWN = "application/octet-stream"
THREAD_FROM = 256 * 1024
"""Bytes of a Binary from which its content is decoded in a thread."""


def is_native_write(method: str, path: tuple[str, ...], content_type: str | None) -> bool:
    """Whether a request writes a Binary in its own content type."""
    return (
        method in _WRITES
        and path[:1] == ("Binary",)
        and len(path) <= 2
        and path[-1] != "_search"
        and content_type is not None
        and not is_fhir_json(content_type)
    )


def is_native_json(method: str, path: tuple[str, ...], content_type: str | None, body: bytes) -> bool:
    """Whether a write of a Binary in JSON is its content: all but a Binary resource, and text that is no JSON."""
    if not is_native_write(method, path, _UNKNOWN) or content_type is None or not is_fhir_json(content_type):
        return False
    check_number_of_values(body)
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:  # more likely a resource with a fault, which is then told
        return False
    return not isinstance(tree, dict) or tree.get("resourceType") != "Binary"


def content_to_resource(path: tuple[str, ...], headers: dict[str, str], body: bytes) -> bytes:
    """The Binary resource with the content; `X-Security-Context` becomes its securityContext."""
    resource: dict[str, Any] = {"resourceType": "Binary"}
    if len(path) == 2:
        resource["id"] = path[1]
    resource["contentType"] = headers["content-type"]
    if "x-security-context" in headers:
        resource["securityContext"] = {"reference": headers["x-security-context"]}
    if body:
        resource["data"] = base64.b64encode(body).decode()
    return orjson.dumps(resource)


def is_native_read(method: str, path: tuple[str, ...], accept: str | None, query: Pairs) -> bool:
    """Whether a read of a Binary asks for its content: no FHIR type in `Accept`, no format or subset in the URL."""
    is_read = method in ("GET", "HEAD") and (len(path) == 2 or (len(path) == 4 and path[2] == "_history"))
    if not is_read or accept is None or path[1].startswith(("_", "$")):
        return False
    if any(name in _SUBSET_PARAMETERS for name, _ in query):
        return False
    kinds = [part.partition(";")[0].strip() for part in accept.split(",")]
    return all(kind.endswith("/*") for kind in kinds) or find_accepted_type(accept) is None


def resource_to_content(response: Response) -> Response:
    """The response with a Binary's content in place of the resource."""
    if response.status != 200:
        return response
    resource = orjson.loads(response.body)
    headers = response.headers
    context = resource.get("securityContext", {}).get("reference")
    # A stored reference may be any text; a header can only hold printable ASCII.
    if context and context.isascii() and context.isprintable():
        headers = (*headers, ("X-Security-Context", context))
    kind = resource.get("contentType", _UNKNOWN)
    return Response(
        200,
        base64.b64decode(resource.get("data", "")),
        response.version,
        response.last_updated,
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else _UNKNOWN,
        headers=(*headers, ("Content-Security-Policy", "sandbox"), ("Content-Disposition", "attachment")),
    )
