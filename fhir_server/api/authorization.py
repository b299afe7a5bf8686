"""What needs no token because it leads to one: configurations, keys, logins, the token endpoint and those around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from fhir_server.api.login import make_error_page, show_login, take_consent, take_login
from fhir_server.fhir.outcome import (
    FhirError,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response, parse_query
from fhir_server.security import smart_configuration
from fhir_server.security.access_tokens import find_consent
from fhir_server.security.audit import Event
from fhir_server.security.bearer import read_token
from fhir_server.security.consents import exchange_code, refresh_tokens
from fhir_server.security.id_tokens import describe_user, make_id_token
from fhir_server.security.launch import OPENID
from fhir_server.security.own_configuration import build_own_configuration
from fhir_server.security.signing_keys import list_public_keys
from fhir_server.security.token_endpoint import TokenRefused, grant_token, verify_client
from fhir_server.security.token_state import describe_token, identify_client, revoke_given_token

TOKEN_PATH = ("auth", "token")
INTROSPECT_PATH = ("auth", "introspect")
REVOKE_PATH = ("auth", "revoke")
USERINFO_PATH = ("auth", "userinfo")
AUTHORIZE_PATH = ("auth", "authorize")
METADATA_PATH = (".well-known", "oauth-authorization-server")

_FORM = "application/x-www-form-urlencoded"
_SECOND = 1_000_000
_LARGEST_FORM = 64 * 1024
_NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


async def _describe_server(context: Context, request: Request) -> dict[str, Any]:
    return build_own_configuration(request.base)


async def _list_keys(context: Context, request: Request) -> dict[str, Any]:
    return {"keys": await list_public_keys(context.unrestricted, context.clock)}


_PAGES: Mapping[tuple[str, ...], Callable[[Context, Request, Mapping[str, str]], Awaitable[Response]]] = {
    ("auth", "login"): take_login,
    ("auth", "consent"): take_consent,
}
_DOCUMENTS: Mapping[tuple[str, ...], Callable[[Context, Request], Awaitable[dict[str, Any]]]] = {
    (".well-known", "openid-configuration"): _describe_server,
    METADATA_PATH: _describe_server,
    ("auth", "jwks"): _list_keys,
}
_OTHERS = (USERINFO_PATH, AUTHORIZE_PATH, smart_configuration.PATH)
DOCUMENTS = frozenset({("metadata",), smart_configuration.PATH, *_DOCUMENTS})
"""What says how to get a token, which every web page may read."""
PAGES = frozenset({AUTHORIZE_PATH, *_PAGES})
"""The pages on which people log in, which no other page may read."""


def name_metadata_path(root: str) -> str:
    """Where RFC 8414, section 3.1, looks for METADATA_PATH of an issuer with a path: before that path, not below it."""
    return "/" + "/".join(METADATA_PATH) + root.rstrip("/")


async def answer_authorization(context: Context, request: Request) -> Response | None:
    """The answer to a request of PATHS; None for every other, and where this server needs no token or gives none."""
    if context.smart is None or request.path not in PATHS:
        return None
    if request.path == smart_configuration.PATH:
        _require_method(request, "GET", "HEAD")
        return Response(200, await context.smart.read(request.base), content_type="application/json")
    if not context.smart.gives_tokens:
        return None
    if request.path in _DOCUMENTS:
        _require_method(request, "GET", "HEAD")
        document = await _DOCUMENTS[request.path](context, request)
        return Response(200, orjson.dumps(document), content_type="application/json")
    if request.path == USERINFO_PATH:
        _require_method(request, "GET", "POST")
        return await _answer_userinfo(context, request)
    try:
        return await _answer_people_and_clients(context, request)
    except FhirError as error:
        _audit(context, request, "unknown", error.status)
        if request.path in PAGES and "text/html" in request.headers.get("accept", ""):
            return make_error_page(error)
        raise


async def _answer_people_and_clients(context: Context, request: Request) -> Response:
    """The answer to what a person or a client sends. Raises FhirError for what leads nowhere."""
    if request.path == AUTHORIZE_PATH:
        _require_method(request, "GET")
        return await show_login(context, request)
    _require_method(request, "POST")
    if request.path in _PAGES:
        return await _answer_page(context, request)
    return await _answer_form(context, request)


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


async def _answer_userinfo(context: Context, request: Request) -> Response:
    """Who the user of an app is (OpenID Connect Core, 5.3). The token comes in the header alone."""
    try:
        consent = await find_consent(context.unrestricted, read_token(request.headers))
        if consent is None:
            await context.authenticate(request.headers)
    except Unauthorized as error:
        _audit(context, request, "unknown", error.status)
        raise
    if consent is None or OPENID not in consent.scope.split():
        _audit(context, request, "unknown" if consent is None else f"user:{consent.user}", 403)
        raise Forbidden(
            "`userinfo` tells who logged in to an app that asked for the scope `openid`; this token is not of one.",
            headers=(("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="{OPENID}"'),),
        )
    return _make_answer(200, await describe_user(context.unrestricted, consent, request.base))


async def _answer_form(context: Context, request: Request) -> Response:
    """What the form of a client gets, or the error of RFC 6749, section 5.2."""
    try:
        who, answer = await _FORMS[request.path](context, request, _read_form(request))
    except TokenRefused as error:
        status = 401 if error.error == "invalid_client" else 400
        _audit(context, request, "unknown", status)
        return _make_answer(status, {"error": error.error, "error_description": str(error)})
    _audit(context, request, who, 200)
    return _make_answer(200, answer)


async def _grant(context: Context, request: Request, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(who, the answer) by the type of grant. Raises TokenRefused."""
    store, clock = context.unrestricted, context.clock
    if form.get("grant_type") == "authorization_code":
        consent, answer = await exchange_code(store, clock, form)
        if OPENID in consent.scope.split():
            answer["id_token"] = await make_id_token(store, clock(), consent, request.base)
        return f"user:{consent.user}", answer
    if form.get("grant_type") == "refresh_token":
        consent, answer = await refresh_tokens(store, clock, form)
        if OPENID in consent.scope.split():
            # without the nonce, which was for the login (OpenID Connect Core, 12.2)
            answer["id_token"] = await make_id_token(store, clock(), replace(consent, nonce=""), request.base)
        return f"user:{consent.user}", answer
    client, answer = await grant_token(store, clock, form, _name_token_url(request))
    return f"client:{client.id}", answer


async def _introspect(context: Context, request: Request, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A system, which has proved who it is, asks what a token allows (RFC 7662). Raises TokenRefused."""
    store = context.unrestricted
    client = await verify_client(store, form, _name_token_url(request), context.clock() // _SECOND)
    described = await describe_token(store, context.roles, form.get("token", ""), request.base)
    return f"client:{client.id}", described


async def _revoke(context: Context, request: Request, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A client makes a token of its own worthless (RFC 7009). Raises TokenRefused."""
    store = context.unrestricted
    client = await identify_client(store, form, _name_token_url(request), context.clock() // _SECOND)
    if not form.get("token"):
        raise TokenRefused("invalid_request", "`token` is needed: the one that is to be revoked.")
    await revoke_given_token(store, form["token"], client)
    return f"client:{client.id}", {}


def _name_token_url(request: Request) -> str:
    return f"{request.base}/{'/'.join(TOKEN_PATH)}"


_FORMS: Mapping[
    tuple[str, ...], Callable[[Context, Request, Mapping[str, str]], Awaitable[tuple[str, dict[str, Any]]]]
] = {TOKEN_PATH: _grant, INTROSPECT_PATH: _introspect, REVOKE_PATH: _revoke}
PATHS = frozenset({*_OTHERS, *_PAGES, *_DOCUMENTS, *_FORMS})


def _read_form(request: Request) -> Mapping[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType(f"This endpoint takes a body of type `{_FORM}`.")
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
