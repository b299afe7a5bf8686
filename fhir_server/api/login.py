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

import orjson

from fhir_server.api.login_pages import describe_scope, make_policy, write_consent_page, write_login_page
from fhir_server.fhir.outcome import FhirError, Forbidden, Invalid
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.search.paging import open_token, seal
from fhir_server.search.query import EVERYTHING, Query, Scope
from fhir_server.security.audit import Event
from fhir_server.security.clients import find_client
from fhir_server.security.launch import (
    LaunchRequest,
    RequestRefused,
    list_granted,
    make_code,
    make_consent,
    read_launch_request,
)
from fhir_server.security.scopes import ResourceScope
from fhir_server.security.users import User, check_password, find_user

PAGES_LIFETIME = 600
"""Seconds in which a page has to be sent."""
MOST_PATIENTS = 20
"""Patients among whom to choose."""

_COOKIE = "smart-launch"
_SECOND = 1_000_000
_WRONG = "The name or the password is wrong, or there were too many attempts. Wait a quarter of an hour then."


async def show_login(context: Context, request: Request) -> Response:
    """GET `auth/authorize`: the page to log in; a redirect with the error where the request cannot be granted."""
    try:
        asked = await read_launch_request(context.unrestricted, _read_once(request.query), request.base)
    except RequestRefused as error:
        return _redirect(error.url)
    nonce = secrets.token_urlsafe(24)
    state = _seal(context, {"kind": "login", "asked": asdict(asked), "nonce": nonce})
    secure = "; Secure" if request.base.startswith("https:") else ""
    cookie = ("Set-Cookie", f"{_COOKIE}={nonce}; HttpOnly; SameSite=Strict; Path=/{secure}")
    return _make_page(write_login_page(asked.client, state), asked, extra=(cookie,))


async def take_login(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """POST `auth/login`: the page to allow or refuse, or the login again."""
    asked, state = _open(context, request, form, "login")
    name = form.get("username", "")
    async with context.logins:
        user = await check_password(context.unrestricted, context.clock, name, form.get("password", ""))
    _audit(context, request, f"user:{name[:64]}", asked, 200 if user is not None else 401)
    if user is None:
        again = _seal(context, {"kind": "login", "asked": asdict(asked), "nonce": state["nonce"]})
        return _make_page(write_login_page(asked.client, again, _WRONG), asked, 401)
    granted = await list_granted(context.unrestricted, asked, user, context.roles)
    if not granted:
        return _redirect(
            asked.make_redirect(
                error="access_denied", error_description="The role allows none of this.", iss=request.base
            )
        )
    kept = {"kind": "consent", "asked": asdict(asked), "nonce": state["nonce"], "user": [user.name, user.created]}
    patients: Sequence[tuple[str, str]] | None = () if _needs_patient(granted, user) else None
    return _show_consent(context, asked, kept, granted, patients)


async def take_consent(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """POST `auth/consent`: back to the app with a code or a refusal, or patients to choose from."""
    asked, state = _open(context, request, form, "consent")
    user = await find_user(context.unrestricted, str(state["user"][0]))
    client = await find_client(context.unrestricted, asked.client)
    if user is None or user.disabled or user.created != state["user"][1] or client is None:
        raise Forbidden("The user or the app is no longer there; begin again at the app.")
    if form.get("action") == "deny":
        return _redirect(asked.make_redirect(error="access_denied", iss=request.base))
    granted = await list_granted(context.unrestricted, asked, user, context.roles)
    patient = user.patient
    if _needs_patient(granted, user):
        caller = Caller(request.base, user.make_principal(context.roles))
        patient = form.get("patient", "")
        if form.get("action") == "find":
            return _show_consent(
                context, asked, state, granted, await _find_patients(context, caller, form.get("name", ""))
            )
        if not patient or await context.reader(caller).read("Patient", patient) is None:
            found = await _find_patients(context, caller, form.get("name", ""))
            return _show_consent(context, asked, state, granted, found, "Choose a patient.")
    consent = make_consent(client, user, granted, asked, patient)
    code = await make_code(context.unrestricted, context.clock, asked, consent)
    _audit(context, request, f"user:{user.name}", asked, 200)
    return _redirect(asked.make_redirect(code=code, iss=request.base))


def _needs_patient(granted: Sequence[ResourceScope], user: User) -> bool:
    return not user.patient and any(scope.level == "patient" for scope in granted)


async def _find_patients(context: Context, caller: Caller, name: str) -> list[tuple[str, str]]:
    """(id, name and birth date) of patients whom the user may see."""
    where = await parse_criteria(context, "Patient", (("name", name),), caller) if name.strip() else EVERYTHING
    page = await context.reader(caller).search(Query((Scope("Patient", where),), count=MOST_PATIENTS))
    found = []
    for stored in page.matches:
        tree: dict[str, Any] = orjson.loads(stored.raw or b"{}")
        first: dict[str, Any] = next(iter(tree.get("name", ())), {})
        text = first.get("text") or " ".join([*first.get("given", ()), first.get("family", "")])
        found.append((stored.id, f"{text} {tree.get('birthDate', '')}".strip() or stored.id))
    return found


def _show_consent(
    context: Context,
    asked: LaunchRequest,
    state: Mapping[str, Any],
    granted: Sequence[ResourceScope],
    patients: Sequence[tuple[str, str]] | None,
    fault: str = "",
) -> Response:
    words = [describe_scope(scope.level, scope.type, scope.permissions) for scope in granted]
    return _make_page(write_consent_page(asked.client, _seal(context, state), words, patients, fault), asked)


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


def _make_page(text: str, asked: LaunchRequest, status: int = 200, extra: tuple[tuple[str, str], ...] = ()) -> Response:
    headers = (
        ("Content-Security-Policy", make_policy(asked.redirect)),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
        *extra,
    )
    return Response(status, text.encode(), content_type="text/html; charset=utf-8", headers=headers)


def _audit(context: Context, request: Request, who: str, asked: LaunchRequest, status: int) -> None:
    if context.audit is not None:
        context.audit(Event(who, "login", None, None, status, request.id, client=asked.client))
