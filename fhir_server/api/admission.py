"""Who makes a request: the token's principal, within its rate, and what break-glass opens; refusals are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fhir_server.fhir.outcome import FhirError, Forbidden, TooManyRequests, Unauthorized
from fhir_server.requests.context import Context
from fhir_server.requests.request import Pairs
from fhir_server.security.audit import Event
from fhir_server.security.bearer import refuse_token_in_query
from fhir_server.security.break_glass import HEADER, break_glass, check_reading, parse_emergency
from fhir_server.security.policy import Principal
from fhir_server.settings import split_list


async def admit(
    context: Context, method: str, path: Sequence[str], query: Pairs, headers: Mapping[str, str], request_id: str
) -> Principal:
    """The principal of the request. Raises Unauthorized, TooManyRequests, Forbidden and Invalid."""
    try:
        if query and context.smart is not None:
            refuse_token_in_query(query)
        principal = await context.authenticate(headers)
    except Unauthorized as error:
        _report(context, Event("unknown", "login", None, None, error.status, request_id))
        raise
    try:
        if context.rate is not None:
            context.rate.check(principal)
    except TooManyRequests as error:
        _report(context, _describe(context, principal, "throttled", path, error, request_id))
        raise
    if HEADER not in headers or principal.grant is None:
        return principal
    return await _open(context, principal, (method, path), headers[HEADER], request_id)


async def _open(
    context: Context, principal: Principal, asked: tuple[str, Sequence[str]], header: str, request_id: str
) -> Principal:
    """The principal for whom the glass is broken."""
    purposes, purpose, reason = split_list(context.settings.break_glass), "", ""
    try:
        if not purposes:
            raise Forbidden("There is no break-glass here (setting `break_glass`).")
        emergency = parse_emergency(header, purposes)
        purpose, reason = emergency
        opened = await break_glass(context.unrestricted, context.roles, principal, emergency)
        check_reading(*asked)
        return opened
    except FhirError as error:
        event = _describe(context, principal, "break-glass", asked[1], error, request_id)
        _report(context, event._replace(purpose=purpose, reason=reason))
        raise


def _describe(
    context: Context, principal: Principal, kind: str, path: Sequence[str], error: FhirError, request_id: str
) -> Event:
    type = path[0] if path and path[0] in context.types else None
    event = Event(principal.name, kind, type, None, error.status, request_id)
    grant = principal.grant
    return event if grant is None else event._replace(client=grant.client, user=grant.user, patient=grant.patient)


def _report(context: Context, event: Event) -> None:
    if context.audit is not None:
        context.audit(event)
