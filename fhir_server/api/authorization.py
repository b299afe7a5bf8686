"""What needs no token because it leads to one: `.well-known/smart-configuration`, logins, the token endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from fhir_server.api.login import show_login, take_consent, take_login
from fhir_server.fhir.outcome import Invalid, MethodNotAllowed, TooLarge, UnsupportedMediaType
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response, parse_query
from fhir_server.security import smart_configuration
from fhir_server.security.audit import Event
from fhir_server.security.launch import exchange_code, refresh_tokens
from fhir_server.security.token_endpoint import TokenRefused, grant_token

TOKEN_PATH = ("auth", "token")
_PAGES: Mapping[tuple[str, ...], Callable[[Context, Request, Mapping[str, str]], Awaitable[Response]]] = {
    ("auth", "login"): take_login,
    ("auth", "consent"): take_consent,
}
AUTHORIZE_PATH = ("auth", "authorize")
PATHS = frozenset({TOKEN_PATH, AUTHORIZE_PATH, smart_configuration.PATH, *_PAGES})

_FORM = "application/x-www-form-urlencoded"
_LARGEST_FORM = 64 * 1024
_NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


async def answer_authorization(context: Context, request: Request) -> Response | None:
    """The answer to a request of PATHS; None for every other, and where this server needs no token or gives none."""
    if context.smart is None or request.path not in PATHS:
        return None
    if request.path == smart_configuration.PATH:
        _require_method(request, "GET", "HEAD")
        return Response(200, await context.smart.read(request.base), content_type="application/json")
    if not context.smart.gives_tokens:
        return None
    if request.path == AUTHORIZE_PATH:
        _require_method(request, "GET")
        return await show_login(context, request)
    _require_method(request, "POST")
    if request.path in _PAGES:
        return await _answer_page(context, request)
    return await _answer_token_request(context, request)


async def _answer_page(context: Context, request: Request) -> Response:
    try:
        form = _read_form(request)
    except TokenRefused as error:
        raise Invalid(str(error)) from None
    return await _PAGES[request.path](context, request, form)


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
        who, answer = await _grant(context, request, form)
    except TokenRefused as error:
        status = 401 if error.error == "invalid_client" else 400
        _audit(context, request, "unknown", status)
        return _make_answer(status, {"error": error.error, "error_description": str(error)})
    _audit(context, request, who, 200)
    return _make_answer(200, answer)


async def _grant(context: Context, request: Request, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(who, the answer) by the type of grant. Raises TokenRefused."""
    if form.get("grant_type") == "authorization_code":
        return await exchange_code(context.unrestricted, context.clock, form)
    if form.get("grant_type") == "refresh_token":
        return await refresh_tokens(context.unrestricted, context.clock, form)
    url = f"{request.base}/{'/'.join(TOKEN_PATH)}"
    client, answer = await grant_token(context.unrestricted, context.clock, form, url)
    return f"client:{client.id}", answer


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
