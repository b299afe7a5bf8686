"""The authorization endpoint: an app sends a person here, who logs in and allows or refuses (SMART App Launch).

Between the pages all is sealed in the form; a cookie of this browser alone must come with it, so that no other page can
send the form for somebody.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fhir_server.api.launch_context import Chosen, Launching, choose_context, describe_patient
from fhir_server.api.login_pages import (
    OTHER_SCOPES,
    Choice,
    describe_scope,
    make_policy,
    write_consent_page,
    write_error_page,
    write_login_page,
)
from fhir_server.fhir.outcome import FhirError, Forbidden, Invalid
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.search.paging import open_token, seal
from fhir_server.security.audit import Event
from fhir_server.security.clients import Client, find_client
from fhir_server.security.consents import make_code, make_consent
from fhir_server.security.launch import (
    OPENID,
    LaunchRequest,
    RequestRefused,
    list_granted,
    read_launch_request,
)
from fhir_server.security.launch_handles import find_launch, use_handle
from fhir_server.security.logins import Attempt, check_login
from fhir_server.security.scopes import ResourceScope
from fhir_server.security.users import User, find_user

PAGES_LIFETIME = 600
"""Seconds in which a page has to be sent."""

_COOKIE = "smart-launch"
_SECOND = 1_000_000
_WRONG = (
    "The name, the password or the code is wrong, or there were too many attempts. Wait a quarter of an hour then; a "
    "code is good once."
)
_ENDED = "The launch from the EHR has ended; begin it there again."


async def show_login(context: Context, request: Request) -> Response:
    """GET `auth/authorize`: the page to log in; a redirect with the error where the request cannot be granted."""
    try:
        asked = await read_launch_request(context.unrestricted, _read_once(request.query), request.base)
    except RequestRefused as error:
        _audit(context, request, "unknown", error.client, 400)
        return _redirect(error.url)
    nonce = secrets.token_urlsafe(24)
    state = _seal(context, {"kind": "login", "asked": asdict(asked), "nonce": nonce})
    secure = "; Secure" if request.base.startswith("https:") else ""
    cookie = ("Set-Cookie", f"{_COOKIE}={nonce}; HttpOnly; SameSite=Strict; Path=/{secure}")
    return _make_page(write_login_page(asked.client, state), asked.redirect, extra=(cookie,))


async def take_login(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """POST `auth/login`: the page to allow or refuse, or the login again."""
    asked, state = _open(context, request, form, "login")
    name = form.get("username", "")
    async with context.logins:
        attempt = Attempt(name, form.get("password", ""), form.get("code", ""), request.network)
        user = await check_login(context.unrestricted, context.clock, attempt)
    _audit(context, request, f"user:{name[:64]}", asked.client, 200 if user is not None else 401)
    if user is None:
        again = _seal(context, {"kind": "login", "asked": asdict(asked), "nonce": state["nonce"]})
        return _make_page(write_login_page(asked.client, again, _WRONG, name), asked.redirect, 401)
    granted = await list_granted(context.unrestricted, asked, user, context.roles)
    if not granted and not asked.asks(OPENID):
        return _refuse(context, request, asked, user, "The role allows none of this.")
    kept = {"kind": "consent", "asked": asdict(asked), "nonce": state["nonce"], "user": [user.name, user.created]}
    kept["logged_in"] = context.clock()
    return await _go_on(context, request, user, kept, {})


async def take_consent(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """POST `auth/consent`: back to the app with a code or a refusal, or patients and visits to choose from."""
    asked, state = _open(context, request, form, "consent")
    user = await find_user(context.unrestricted, str(state["user"][0]))
    if user is None or user.disabled or user.created != state["user"][1]:
        raise Forbidden("The user is no longer there; begin again at the app.")
    if form.get("action") == "deny":
        return _refuse(context, request, asked, user)
    return await _go_on(context, request, user, state, form)


async def _go_on(
    context: Context, request: Request, user: User, state: Mapping[str, Any], form: Mapping[str, str]
) -> Response:
    """The page of consent, until it comes back with an answer and all that is to be chosen."""
    store, asked = context.unrestricted, LaunchRequest(**state["asked"])
    client = await find_client(store, asked.client)
    if client is None:
        raise Forbidden("The app is no longer there.")
    granted = await list_granted(store, asked, user, context.roles)
    begun = await find_launch(store, asked.launch) if asked.launch else None
    if asked.launch and begun is None:
        return _refuse(context, request, asked, user, _ENDED)
    if begun is not None and begun.user not in ("", user.name):
        return _refuse(context, request, asked, user, "The launch from the EHR was begun by somebody else.")
    caller = Caller(request.base, user.make_principal(context.roles))
    found = await choose_context(context, caller, Launching(asked, user, granted, begun), form)
    if found is None:
        return _refuse(context, request, asked, user, "The patient of the launch cannot be seen by who logged in.")
    if isinstance(found, Choice) or form.get("action") != "allow":
        choice = found
        if isinstance(choice, Chosen):
            choice = Choice(person=await describe_patient(context, caller, choice.patient))
        return _show_consent(context, asked, state, granted, choice)
    return await _finish(context, request, (asked, client, user), granted, found, state["logged_in"])


async def _finish(
    context: Context,
    request: Request,
    parties: tuple[LaunchRequest, Client, User],
    granted: Sequence[ResourceScope],
    chosen: Chosen,
    logged_in: int,
) -> Response:
    """Back to the app with a code."""
    asked, client, user = parties
    if asked.launch and not await use_handle(context.unrestricted, asked.launch):
        return _refuse(context, request, asked, user, _ENDED)
    consent = make_consent(client, user, granted, asked, logged_in)
    consent = consent.add_context(asked, chosen.patient, chosen.encounter, chosen.banner)
    code = await make_code(context.unrestricted, context.clock, asked, consent)
    _audit(context, request, f"user:{user.name}", asked.client, 200)
    return _redirect(asked.make_redirect(code=code, iss=request.base))


def _refuse(context: Context, request: Request, asked: LaunchRequest, user: User, sentence: str = "") -> Response:
    """Back to the app without a code; the person said no where there is no sentence."""
    _audit(context, request, f"user:{user.name}", asked.client, 403)
    described = {"error_description": sentence} if sentence else {}
    return _redirect(asked.make_redirect(error="access_denied", **described, iss=request.base))


def _show_consent(
    context: Context,
    asked: LaunchRequest,
    state: Mapping[str, Any],
    granted: Sequence[ResourceScope],
    choice: Choice,
) -> Response:
    words = [describe_scope(scope) for scope in granted]
    words += [sentence for scope, sentence in OTHER_SCOPES.items() if asked.asks(scope)]
    return _make_page(write_consent_page(asked.client, _seal(context, state), words, choice), asked.redirect)


def _seal(context: Context, state: Mapping[str, Any]) -> str:
    expires = context.clock() // _SECOND + PAGES_LIFETIME
    return seal(context.page_key, {**state, "expires": expires})


def _open(
    context: Context, request: Request, form: Mapping[str, str], kind: str
) -> tuple[LaunchRequest, Mapping[str, Any]]:
    """What the page before sealed. Raises Invalid or Forbidden for a form of another page or browser."""
    try:
        state = open_token(context.page_key, form.get("state", ""), context.clock() // _SECOND)
    except FhirError:
        raise Invalid("This page is too old; begin again at the app.") from None
    if state.get("kind") != kind:
        raise Invalid("This form does not belong to this page; begin again at the app.")
    if not hmac.compare_digest(_read_cookie(request).encode(), str(state["nonce"]).encode()):
        raise Forbidden("This form comes from another browser, or cookies are off; begin again at the app.")
    return LaunchRequest(**state["asked"]), state


def _read_cookie(request: Request) -> str:
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _read_once(query: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    names = [name for name, _ in query]
    if len(set(names)) < len(names):
        raise Invalid("Each parameter of an authorization request may be given once.")
    return dict(query)


def _redirect(url: str) -> Response:
    return Response(303, headers=(("Location", url), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")))


def make_error_page(error: FhirError) -> Response:
    """The answer to a browser that sent what leads nowhere, for the person before it."""
    return _make_page(write_error_page(str(error)), "", error.status, error.headers)


def _make_page(text: str, redirect: str, status: int = 200, extra: tuple[tuple[str, str], ...] = ()) -> Response:
    headers = (
        ("Content-Security-Policy", make_policy(redirect)),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
        *extra,
    )
    return Response(status, text.encode(), content_type="text/html; charset=utf-8", headers=headers)


def _audit(context: Context, request: Request, who: str, client: str, status: int) -> None:
    if context.audit is not None:
        context.audit(Event(who, "login", None, None, status, request.id, client=client))
