"""What create, update, patch and delete share: checks of the request, and the response from the result."""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, Issue, build_operation_outcome
from fhir_server.fhir.resource import Text, parse
from fhir_server.interactions.summary import FORMAT_PARAMETERS
from fhir_server.requests.context import Context
from fhir_server.requests.headers import parse_if_none_match
from fhir_server.requests.request import Request, Response
from fhir_server.writes.action import WriteResult
from fhir_server.writes.identity import check_identity

# Which methods a precondition has a meaning for; anywhere else it would be ignored, and the client deceived.
_PRECONDITIONS = {
    "if-match": ("PUT", "PATCH", "DELETE"),
    "if-none-match": ("PUT",),
    "if-none-exist": ("POST",),
}

HARMLESS = {"Binary": FORMAT_PARAMETERS | {"_filename"}}
"""What clients add to writes of a type and nothing is lost by ignoring (Medplum names the file of a Binary)."""

_PREFERENCES = ("minimal", "representation", "OperationOutcome")


async def parse_body(context: Context, request: Request, type: str) -> Text:
    """The resource in the body; its type has to be the URL's."""
    text = await context.long_work.run(len(request.body), parse, request.body)
    check_identity(text, type, None)
    return text


def check_write_request(request: Request, criteria: bool = False) -> None:
    """Refuse preconditions that the method does not take, and query parameters unless they are the `criteria`."""
    for header, methods in _PRECONDITIONS.items():
        if header in request.headers and request.method not in methods:
            name = header.title()
            raise Invalid(
                f"`{name}` has no meaning on a {request.method}; it goes with {', '.join(methods)}. Leave it out.",
                code="not-supported",
            )
    harmless = HARMLESS.get(request.path[0], FORMAT_PARAMETERS) if request.path else FORMAT_PARAMETERS
    for name, _ in () if criteria else request.query:
        if name not in harmless:
            raise Invalid(
                f"A {request.method} of this URL has no parameter `{name}`; it takes `_format` and `_pretty`.",
                code="not-supported",
            )


def parse_if_none_match_star(request: Request) -> bool:
    """Whether a write carries `If-None-Match: *`; other values have no meaning on writes."""
    versions = parse_if_none_match(request)
    if versions is None:
        return False
    if versions:
        raise Invalid(
            f"`If-None-Match: {request.headers['if-none-match']}` has no meaning on a write; only `*` has.",
            code="value",
        )
    return True


def build_write_response(context: Context, request: Request, done: WriteResult) -> Response:
    """The response of a write, as `Prefer: return=` asks for it."""
    location = f"{request.base}/{done.type}/{done.id}/_history/{done.version}" if done.version else None
    if done.status == 204:
        return Response(204, version=done.version or None)
    wanted = request.get_preference("return") or "representation"
    if wanted not in _PREFERENCES:
        wanted = "representation"
    if wanted == "minimal":
        body = b""
    elif wanted == "OperationOutcome":
        body = orjson.dumps(build_success_outcome(done))
    else:
        body = done.text()
    return Response(
        done.status,
        body,
        version=done.version,
        last_updated=done.last_updated,
        location=location if done.status == 201 or request.method in ("POST", "PUT", "PATCH") else None,
    )


def build_success_outcome(done: WriteResult) -> dict[str, Any]:
    """An OperationOutcome that says what was done, and what the rule of the type remarks on it."""
    verb = "was created" if done.status == 201 else "is current"
    sentence = f"`{done.type}/{done.id}` version {done.version} {verb}."
    return build_operation_outcome([Issue("information", "informational", sentence), *done.issues])
