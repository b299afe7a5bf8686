"""What create, update, patch and delete share: the action from the request, and the answer from what was done."""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, Issue, operation_outcome
from fhir_server.fhir.resource import Text, parse, valid_id
from fhir_server.interactions.action import Done
from fhir_server.interactions.exchange import Context, Request, Response
from fhir_server.interactions.headers import if_none_match
from fhir_server.interactions.shaping import FORMAT_PARAMETERS

# Which methods a precondition has a meaning for; anywhere else it would be ignored, and the client deceived.
_PRECONDITIONS = {
    "if-match": ("PUT", "PATCH", "DELETE"),
    "if-none-match": ("PUT",),
    "if-none-exist": ("POST",),
}

_PREFERENCES = ("minimal", "representation", "OperationOutcome")


def body_of(request: Request, type: str) -> Text:
    """The resource in the body; its type has to be the URL's."""
    text = parse(request.body)
    check_identity(text, type, None)
    return text


def check_identity(text: Text, type: str, id: str | None) -> None:
    """Refuse a body whose `resourceType` is not the URL's, or whose `id` is not where the URL has one."""
    found = text.tree.get("resourceType")
    if found is None:
        raise Invalid(f"The body has no `resourceType`; for this URL it is `{type}`.", code="structure")
    if found != type:
        raise Invalid(
            f"The body is of type `{found}`, but the URL says `{type}`.", code="structure", expression=(type,)
        )
    own = text.tree.get("id")
    if id is None or own == id:
        return
    path = (f"{type}.id",)
    if own is None:
        sentence = f'The body has no `id`; an update of `{type}/{id}` needs `"id": "{id}"`.'
        raise Invalid(sentence, code="required", expression=path)
    raise Invalid(f"The body has the id `{own}`, but the URL says `{id}`.", code="value", expression=path)


def stored_tree(tree: dict[str, Any], id: str) -> dict[str, Any]:
    """The tree as it will be stored: the id set, and what the server assigns taken out of meta."""
    tree = {**tree, "id": id}
    meta = tree.get("meta")
    if isinstance(meta, dict) and ("versionId" in meta or "lastUpdated" in meta):
        tree["meta"] = {key: value for key, value in meta.items() if key not in ("versionId", "lastUpdated")}
    if tree.get("meta") == {}:
        del tree["meta"]
    return tree


def checked_id(id: str) -> str:
    """An id from a URL that something is to be written at."""
    if not valid_id(id):
        raise Invalid(f"`{id}` is not a FHIR id; use 1 to 64 letters, digits, `-` and `.`.", code="value")
    return id


def check_write(request: Request, criteria: bool = False) -> None:
    """Refuse preconditions that the method does not take, and query parameters unless they are the `criteria`."""
    for header, methods in _PRECONDITIONS.items():
        if header in request.headers and request.method not in methods:
            name = header.title()
            raise Invalid(
                f"`{name}` has no meaning on a {request.method}; it goes with {', '.join(methods)}. Leave it out.",
                code="not-supported",
            )
    for name, _ in () if criteria else request.query:
        if name not in FORMAT_PARAMETERS:
            raise Invalid(
                f"A {request.method} of this URL has no parameter `{name}`; it takes `_format` and `_pretty`.",
                code="not-supported",
            )


def must_be_absent(request: Request) -> bool:
    """Whether a write carries `If-None-Match: *`; other values have no meaning on writes."""
    versions = if_none_match(request)
    if versions is None:
        return False
    if versions:
        raise Invalid(
            f"`If-None-Match: {request.headers['if-none-match']}` has no meaning on a write; only `*` has.",
            code="value",
        )
    return True


def answer(context: Context, request: Request, done: Done) -> Response:
    """The response of a write, as `Prefer: return=` asks for it."""
    location = f"{request.base}/{done.type}/{done.id}/_history/{done.version}" if done.version else None
    if done.status == 204:
        return Response(204, version=done.version or None)
    wanted = request.prefers("return") or "representation"
    if wanted not in _PREFERENCES:
        wanted = "representation"
    if wanted == "minimal":
        body = b""
    elif wanted == "OperationOutcome":
        body = orjson.dumps(success(done))
    else:
        body = done.text()
    return Response(
        done.status,
        body,
        version=done.version,
        last_updated=done.last_updated,
        location=location if done.status == 201 or request.method in ("POST", "PUT", "PATCH") else None,
    )


def success(done: Done) -> dict[str, Any]:
    """An OperationOutcome that says what was done."""
    verb = "was created" if done.status == 201 else "is current"
    sentence = f"`{done.type}/{done.id}` version {done.version} {verb}."
    return operation_outcome([Issue("information", "informational", sentence)])
