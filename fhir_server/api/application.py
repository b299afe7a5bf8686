"""The FHIR API as an ASGI application: no framework between the HTTP server and the interactions."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fhir_server.api import binary
from fhir_server.api.address import find_base_url, find_network, is_from_proxy, names_forwarder
from fhir_server.api.admission import admit
from fhir_server.api.authorization import PATHS as AUTHORIZATION_PATHS
from fhir_server.api.authorization import answer_authorization
from fhir_server.api.bodies import Bodies, Holding
from fhir_server.api.log import Log
from fhir_server.api.log_paths import make_path_writer, shorten_path
from fhir_server.api.negotiation import (
    FHIR_TYPES,
    accepts_gzip,
    check_body_type,
    check_operation_body,
    choose_media_type,
    choose_response_type,
    is_fhir_json,
    parse_pretty,
)
from fhir_server.api.request import (
    ClientGone,
    Receive,
    Scope,
    parse_query,
    read_body,
    read_headers,
    split_path,
    strip_root,
)
from fhir_server.api.response import Send, Style, error_to_response, send
from fhir_server.fhir.outcome import FhirError, Unavailable
from fhir_server.interactions.search import parse_form
from fhir_server.operations import OPERATIONS
from fhir_server.operations.operation import Operation
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import FHIR_JSON, Pairs, Request, Response
from fhir_server.requests.store_errors import store_error_to_fhir_error
from fhir_server.security.audit import Audit
from fhir_server.security.policy import ANONYMOUS
from fhir_server.settings import Settings
from fhir_server.store.protocol import StoreError

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_NAMES, _LONGEST_NAME = 20, 100
"""Names of parameters that a log line has, and characters of each."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:;/+=@|~\-]+", re.ASCII)
_LONGEST_ID = 64
_OPEN = frozenset({("metadata",)}) | AUTHORIZATION_PATHS
"""What needs no token."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_READING = frozenset({"GET", "HEAD"})
# How an error is told before it is known what the client wants, by whether the request is a HEAD.
_ERROR_STYLE = (Style(FHIR_JSON), Style(FHIR_JSON, head=True))
_BODY_LATE = (
    "The body of the request had not arrived after {:g} seconds, the limit (setting `request_timeout`); nothing was "
    "written."
)


def build_application(context: Context, log: Log, new_request_id: Callable[[], str]) -> Application:
    """The ASGI application of a context."""
    root = context.settings.path.rstrip("/")
    bodies = Bodies(max(context.settings.max_bodies, context.settings.max_body))
    describe = _make_description(context, root)
    tell_strangers = _make_warning(context.settings, log)

    async def application(scope: Scope, receive: Receive, send_message: Send) -> None:
        began = time.perf_counter()
        headers = read_headers(scope)
        tell_strangers(scope, headers)
        request_id = _choose_request_id(headers.get("x-request-id"), new_request_id)
        style = _ERROR_STYLE[scope["method"] == "HEAD"]
        holding = Holding(bodies)
        try:
            body_source = partial(_receive_body, context, receive, headers, holding)
            request, style = await _read_request(context, scope, body_source, headers, request_id, root)
            response = await _answer(context, request, headers)
        except ClientGone:
            return
        except FhirError as error:
            response = error_to_response(error)
        except Exception as error:
            log("error", "unexpected error", request_id=request_id, error=describe_error(error))
            response = _make_unexpected_response(request_id)
        finally:
            holding.close()
        size = await send(response, style, request_id, send_message)
        log(
            "info",
            "request",
            request_id=request_id,
            method=scope["method"],
            **describe(scope),
            status=response.status,
            bytes=size,
            milliseconds=round((time.perf_counter() - began) * 1000, 2),
        )

    return application


def _make_description(context: Context, root: str) -> Callable[[Scope], dict[str, Any]]:
    """What the log says of what was asked: the path, and the names of the parameters."""
    write = shorten_path if context.settings.log_ids else make_path_writer(root, context.types, context.page_key)
    return lambda scope: {"path": write(scope["path"]), **_name_parameters(scope)}


def _name_parameters(scope: Scope) -> dict[str, list[str]]:
    """The names of the parameters in the query, for the log: values may be a patient's."""
    query: bytes = scope.get("query_string") or b""
    if not query:
        return {}
    names = [
        part.partition(b"=")[0][:_LONGEST_NAME].decode("ascii", "replace") for part in query.split(b"&", _MOST_NAMES)
    ]
    return {"query": names[:_MOST_NAMES]}


def _make_warning(settings: Settings, log: Log) -> Callable[[Scope, dict[str, str]], None]:
    """What says once that forwarded headers are ignored because they come from no proxy of the settings."""
    told = False

    def tell(scope: Scope, headers: dict[str, str]) -> None:
        nonlocal told
        if not told and names_forwarder(headers) and not is_from_proxy(settings, scope):
            told = True
            log(
                "warning",
                "Forwarded headers are ignored, since they come from no proxy of the setting `proxies` (FHIR_PROXIES). "
                "This is said once.",
                client=(scope.get("client") or ("unknown",))[0],
            )

    return tell


def _choose_request_id(given: str | None, new: Callable[[], str]) -> str:
    """The beginning of the client's request id when it is made of plain characters, else a new one."""
    return given[:_LONGEST_ID] if given and _REQUEST_ID.fullmatch(given) else new()


async def _read_request(
    context: Context,
    scope: Scope,
    read_body: Callable[[], Awaitable[bytes]],
    headers: dict[str, str],
    request_id: str,
    root: str,
) -> tuple[Request, Style]:
    method: str = scope["method"]
    path = strip_root(split_path(scope["path"], scope.get("raw_path")), root)
    query = parse_query(scope["query_string"])
    style = _choose_style(method, path, headers, query)
    operation = _find_operation(path)
    keyed = operation is not None and operation.keyed
    principal = ANONYMOUS
    if not keyed and path not in _OPEN:
        principal = await admit(context, method, path, query, headers, request_id)
    body = b""
    if method in _WITH_BODY:
        body = await read_body()
        if path[-1:] == ("_search",) and b"_" in body:
            style = _choose_style(method, path, headers, (*query, *parse_form(body)))
        # only of a Binary is the whole body looked at
        size = len(body) if path[:1] == ("Binary",) else 0
        body = await context.long_work.run(size, _check_body, method, path, headers, body)
    base = find_base_url(context.settings, scope, headers)
    if path in AUTHORIZATION_PATHS:
        network = find_network(context.settings, scope, headers)
        return Request(method, path, query, headers, body, base, principal, request_id, network=network), style
    if style.content_type not in FHIR_TYPES:
        media_type, style = style.content_type, style._replace(content_type=FHIR_JSON)
        return Request(method, path, query, headers, body, base, principal, request_id, media_type), style
    return Request(method, path, query, headers, body, base, principal, request_id), style


def _find_operation(path: tuple[str, ...]) -> Operation | None:
    """The operation that a path names, where its media types are not those of every other request."""
    operation = OPERATIONS.get(path[-1][1:]) if path and path[-1].startswith("$") else None
    return operation if operation is not None and operation.speaks_other_media else None


async def _receive_body(context: Context, receive: Receive, headers: dict[str, str], holding: Holding) -> bytes:
    limit = context.settings.request_timeout
    with context.time_limits.end_after(limit, sentence=_BODY_LATE):
        body = await read_body(receive, headers, context.settings.max_body, holding.grow)
    if holding.is_large:
        with context.time_limits.end_after(limit):
            await holding.begin()
    return body


def _choose_style(method: str, path: tuple[str, ...], headers: dict[str, str], pairs: Pairs) -> Style:
    """How to answer, as Accept, Accept-Encoding, `_format` and `_pretty` say."""
    media_type = indent = None
    for name, value in pairs:
        if name == "_format":
            media_type = value
        elif name == "_pretty":
            indent = value
    accept = headers.get("accept")
    operation = _find_operation(path)
    if operation is not None:
        kind = choose_media_type(accept, media_type, operation.gives)
        return Style(kind, parse_pretty(indent), accepts_gzip(headers.get("accept-encoding", "")), method == "HEAD")
    native = path[:1] == ("Binary",) and (
        binary.is_native_write(method, path, headers.get("content-type"))
        or binary.is_native_read(method, path, accept, pairs)
    )
    kind = FHIR_JSON if native else choose_response_type(accept, media_type)
    return Style(kind, parse_pretty(indent), accepts_gzip(headers.get("accept-encoding", "")), method == "HEAD")


def _check_body(method: str, path: tuple[str, ...], headers: dict[str, str], body: bytes) -> bytes:
    content_type = headers.get("content-type")
    if path[:1] == ("Binary",) and (
        binary.is_native_write(method, path, content_type) or binary.is_native_json(method, path, content_type, body)
    ):
        native = binary.content_to_resource(path, headers, body)
        headers["content-type"] = FHIR_JSON
        return native
    operation = _find_operation(path)
    if operation is not None:
        if body:
            check_operation_body(content_type, operation.takes)
        return body
    # a patch has types of its own, which the interaction knows; if it is FHIR JSON, then of this version
    own_type = method == "PATCH" and not is_fhir_json((content_type or "").partition(";")[0])
    if body and path[-1:] != ("_search",) and path not in AUTHORIZATION_PATHS and not own_type:
        check_body_type(content_type)
    return body


async def _answer(context: Context, request: Request, headers: dict[str, str]) -> Response:
    try:
        with context.time_limits.end_after(context.settings.request_timeout):
            response = None
            if request.path in AUTHORIZATION_PATHS:
                response = await answer_authorization(context, request)
            if response is None:
                response = await context.dispatch(context, request)
    except StoreError as error:
        raise store_error_to_fhir_error(error) from None
    is_emergency = request.principal.emergency is not None
    if context.audit is not None and (is_emergency or request.method not in _READING):
        await _settle_audit(context.audit)
    if request.path[:1] == ("Binary",) and binary.is_native_read(
        request.method, request.path, headers.get("accept"), request.query
    ):
        if len(response.body) < binary.THREAD_FROM:
            return binary.resource_to_content(response)
        return await asyncio.to_thread(binary.resource_to_content, response)
    return response


async def _settle_audit(audit: Audit) -> None:
    """Wait until the event of a write is durable. Raises Unavailable where it cannot be."""
    try:
        await audit.settle()
    except OSError as error:
        raise Unavailable(
            f"What was asked may have been done, but the record of it cannot be written ({error.strerror}); ask again "
            "once there is room."
        ) from None


def _make_unexpected_response(request_id: str) -> Response:
    error = FhirError(
        f"The server failed on this request, which is a fault of ours; the log has it under `{request_id}`."
    )
    return error_to_response(error)
