"""What of the API needs no token because it leads to one: `.well-known/smart-configuration` and the token endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, MethodNotAllowed, TooLarge, UnsupportedMediaType
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response, parse_query
from fhir_server.security import smart_configuration
from fhir_server.security.audit import Event
from fhir_server.security.token_endpoint import TokenRefused, grant_token

TOKEN_PATH = ("auth", "token")
PATHS = frozenset({TOKEN_PATH, smart_configuration.PATH})

_FORM = "application/x-www-form-urlencoded"
_LARGEST_FORM = 64 * 1024
_NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


async def answer_authorization(context: Context, request: Request) -> Response | None:
    """The answer to a request of PATHS; None for every other, and where this server needs no token or gives none."""
    if context.smart is None or request.path not in PATHS:
        return None
    if request.path == smart_configuration.PATH:
        _require_method(request, "GET", "HEAD")
        return Response(200, await context.smart.read(f"{request.base}/auth/token"), content_type="application/json")
    if not context.smart.gives_tokens:
        return None
    _require_method(request, "POST")
    return await _answer_token_request(context, request)


def _require_method(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(
            f"`{'/'.join(request.path)}` does not answer {request.method}; it answers {allowed}.",
            headers=(("Allow", allowed),),
        )


async def _answer_token_request(context: Context, request: Request) -> Response:
    """200 with a token, or the error of RFC 6749, section 5.2."""
    try:
        form = _read_form(request)
        client, answer = await grant_token(
            context.unrestricted, context.clock, form, f"{request.base}/{'/'.join(TOKEN_PATH)}"
        )
    except TokenRefused as error:
        status = 401 if error.error == "invalid_client" else 400
        _audit(context, request, "unknown", status)
        return _make_answer(status, {"error": error.error, "error_description": str(error)})
    _audit(context, request, f"client:{client.id}", 200)
    return _make_answer(200, answer)


def _read_form(request: Request) -> Mapping[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType(f"The token endpoint takes a body of type `{_FORM}`.")
    if len(request.body) > _LARGEST_FORM:
        raise TooLarge(f"The form has more than {_LARGEST_FORM:,} bytes.")
    try:
        pairs = parse_query(request.body.decode("ascii"))
    except (UnicodeDecodeError, Invalid):
        raise TokenRefused("invalid_request", "The form is not percent-encoded text.") from None
    if len(dict(pairs)) < len(pairs):
        raise TokenRefused("invalid_request", "Each parameter may be given once.")
    return dict(pairs)


def _audit(context: Context, request: Request, who: str, status: int) -> None:
    if context.audit is not None:
        context.audit(Event(who, "login", None, None, status, request.id))


def _make_answer(status: int, content: dict[str, Any]) -> Response:
    return Response(status, orjson.dumps(content), content_type="application/json", headers=_NO_STORE)
