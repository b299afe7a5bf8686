"""Binary in its own content type, in and out (https://hl7.org/fhir/R4/binary.html#rest)."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson

from fhir_server.api.negotiation import accepts, is_fhir_json
from fhir_server.requests.request import Pairs, Response

_WRITES = frozenset({"POST", "PUT"})
_SHAPING = frozenset({"_format", "_summary", "_elements"})
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+\-]+/[\w!#$&^.+\-]+[ -~]*", re.ASCII)
_UNKNOWN = "application/octet-stream"


def comes_native(method: str, path: tuple[str, ...], content_type: str | None) -> bool:
    """Whether a request writes a Binary as plain content."""
    return (
        method in _WRITES
        and path[:1] == ("Binary",)
        and len(path) <= 2
        and path[-1] != "_search"
        and content_type is not None
        and not is_fhir_json(content_type)
    )


def as_resource(path: tuple[str, ...], headers: dict[str, str], body: bytes) -> bytes:
    """The Binary resource that holds the content; `X-Security-Context` becomes its securityContext."""
    resource: dict[str, Any] = {"resourceType": "Binary"}
    if len(path) == 2:
        resource["id"] = path[1]
    resource["contentType"] = headers["content-type"]
    if "x-security-context" in headers:
        resource["securityContext"] = {"reference": headers["x-security-context"]}
    if body:
        resource["data"] = base64.b64encode(body).decode()
    return orjson.dumps(resource)


def goes_native(method: str, path: tuple[str, ...], accept: str | None, query: Pairs) -> bool:
    """Whether a read of a Binary asks for its content: an `Accept` without a FHIR type, nothing that shapes it."""
    reads = method in ("GET", "HEAD") and (len(path) == 2 or (len(path) == 4 and path[2] == "_history"))
    if not reads or accept is None or path[1].startswith(("_", "$")):
        return False
    if any(name in _SHAPING for name, _ in query):
        return False
    named = [part.partition(";")[0].strip() for part in accept.split(",")]
    return all(kind.endswith("/*") for kind in named) or accepts(accept) is None


def as_content(response: Response) -> Response:
    """The content of a Binary instead of the resource."""
    if response.status != 200:
        return response
    resource = orjson.loads(response.body)
    headers = response.headers
    context = resource.get("securityContext", {}).get("reference")
    # what was stored is text of any kind; a header takes one line of it
    if context and context.isascii() and context.isprintable():
        headers = (*headers, ("X-Security-Context", context))
    kind = resource.get("contentType", _UNKNOWN)
    return Response(
        200,
        base64.b64decode(resource.get("data", "")),
        response.version,
        response.last_updated,
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else _UNKNOWN,
        headers=(*headers, ("X-Content-Type-Options", "nosniff"), ("Content-Disposition", "attachment")),
    )
